"""`LocalServer`: the stand-in Omi server on a port of this machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from omi_async.local.account import Account
from omi_async.local.contention import CONTENDED, Head
from omi_async.local.faults import Fault, Sleep
from omi_async.local.http import Endpoint
from omi_async.local.keys import SCOPES, Keys, check_key, make_key
from omi_async.local.listing import ListLimits
from omi_async.local.loop_thread import LoopThread
from omi_async.local.plan import Chaos, Faults
from omi_async.local.quotas import Quota, Quotas
from omi_async.local.records import CallRecord, Calls, assert_each_stored_once
from omi_async.local.service import Service
from omi_async.local.store import NO_FILES, Memories, timestamp

__all__ = ["LocalServer", "ThreadedServer"]

_GRACE: Final = 1.0
"""Seconds that calls in flight have to end when the server closes."""


def _wall_clock() -> float:
    return time.time()


class LocalServer:
    """A stand-in Omi server: the memories API over a SQLite file or, without one, over memory.

    ``async with LocalServer() as server:`` listens on a free port; a Session needs its `url` and `api_key`.

    Args:
        database: path of the file, made if there is none; None keeps the memories in memory.
        api_key: the key to accept; None makes one. Raises ValueError for an `omi_mcp_...` key.
        port: 0 for a free one.
        text_identity: a text that is stored already is answered unchanged, as the newest backend does it;
            off, each POST stores a new memory, as before.
        quotas: such as `DOCUMENTED_QUOTAS` or `REAL_QUOTAS`.
        scopes: what `api_key` may do.
        faults: to happen from the start, as `server.faults.add(*faults)` would plan them.
        clock: returns epoch seconds, for the quota windows and the timestamps; None is the machine's.
        access_log: gets one line for each call.
        list_window: the list answers 413 to a page that ends beyond so many memories; None for no such wall.
        list_budget: documents that a list may read: more than that (deleted ones count) list as none, and a
            list by category shows less the more there are; None for no such budget.
        search_lag: seconds until a search finds a new memory: on the service that takes an hourly job.
        contended: seconds that a storage call takes while the writes of the account race for one document, as
            in the backend: in parallel some fail with a 500, after a prefix of a batch. True for 0.005; False
            for writes that take no time and never fail.
        sleep: waits for seconds: what `Fault.slow` and `contended` use.
    """

    def __init__(
        self,
        database: str | PathLike[str] | None = None,
        *,
        api_key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        text_identity: bool = True,
        quotas: Iterable[Quota] = (),
        scopes: Iterable[str] = SCOPES,
        faults: Iterable[Fault] | None = None,
        chaos: Chaos | None = None,
        clock: Callable[[], float] | None = None,
        access_log: logging.Logger | None = None,
        list_window: int | None = 5000,
        list_budget: int | None = 25_000,
        search_lag: float = 3600.0,
        contended: bool | float = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.api_key = make_key() if api_key is None else check_key(api_key)
        self.faults = Faults(chaos)
        self.faults.add(*(faults or ()))
        self._clock = clock or _wall_clock
        self.quotas = Quotas(quotas, clock=self._clock)
        self._database = database
        self._host = host
        self._port = port
        self._text_identity = text_identity
        self._limits = ListLimits(list_window, list_budget)
        self._search_lag = search_lag
        self._sleep = sleep
        self._contended = CONTENDED if contended is True else float(contended)
        self._calls = Calls(access_log)
        self._keys = Keys()
        self._how_many = 1
        self._accounts: list[Account] = []
        self._add_key(self.api_key, 0, scopes=scopes)
        self._runner: web.ServerRunner | None = None

    def __repr__(self) -> str:
        state = self.url if self._runner is not None else "closed"
        return f"<LocalServer {state} database={self._database!r}>"

    @classmethod
    def in_thread(cls, database: str | PathLike[str] | None = None, **options: Any) -> ThreadedServer:
        """Make a server that runs in a thread of its own, for ``with``; takes what the constructor takes."""
        return ThreadedServer(cls(database, **options))

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end. Raises RuntimeError unless the server is open."""
        if self._runner is None:
            raise RuntimeError("the server has no address: it is not open")
        # A server that listens everywhere is reached on this machine by its loopback address.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._runner.addresses[0][1]}"

    @property
    def database_id(self) -> str:
        """A random name of the database, made and kept with the file: a new file has a new one.

        Raises RuntimeError unless the server is open.
        """
        return self._account(None).memories.database_id

    async def start(self) -> Self:
        """Open the database and listen. Raises `LocalDatabaseError`, or OSError if the port is taken."""
        if self._runner is not None:
            raise RuntimeError("the server is open already")
        runner = None
        try:
            for number in range(self._how_many):
                self._open_account(number)
            runner = web.ServerRunner(self._endpoint().make_server(), shutdown_timeout=_GRACE)
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await self._clean_up(runner)
            raise
        self._runner = runner
        return self

    async def close(self) -> None:
        """Stop listening, give the calls in flight a second to end, close the database. Twice is fine."""
        # First of all: a second close, or one that is cancelled and tried again, has nothing left to do.
        runner, self._runner = self._runner, None
        await self._clean_up(runner)

    async def _clean_up(self, runner: web.ServerRunner | None) -> None:
        try:
            if runner is not None:
                await runner.cleanup()
        finally:
            for account in self._accounts:
                account.memories.close()
            self._accounts.clear()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _endpoint(self) -> Endpoint:
        service = Service(
            accounts=self._accounts,
            keys=self._keys,
            quotas=self.quotas,
            clock=self._clock,
            limits=self._limits,
            search_lag=self._search_lag,
        )
        return Endpoint(service, self.faults, self._calls, self._sleep)

    def _open_account(self, number: int) -> None:
        path = None if self._database is None else fspath(self._database)
        if number and path not in NO_FILES:
            path = f"{path}.{number + 1}"
        head = Head(self._contended, self._sleep)
        self._accounts.append(Account(Memories(path), head, self._clock, self._text_identity))

    def _account(self, api_key: str | None) -> Account:
        """Return the account of a key, or the first. Raises KeyError and RuntimeError."""
        number = 0 if api_key is None else self._keys.account_of(api_key)
        if not self._accounts:
            raise RuntimeError("the memories cannot be read: the server is not open")
        return self._accounts[number]

    def add_account(self, api_key: str | None = None, *, scopes: Iterable[str] = SCOPES) -> str:
        """Make another account, with memories and quotas of its own. Returns a key of it.

        The first further account of a database `omi-local.db` is kept in `omi-local.db.2`, and so on. Raises
        ValueError.
        """
        key = self._add_key(api_key, self._how_many, scopes=scopes)
        # Before the start, the number is enough: their memories are opened with the first account's.
        if self._accounts:
            self._open_account(self._how_many)
        self._how_many += 1
        return key

    def add_key(
        self,
        api_key: str | None = None,
        *,
        scopes: Iterable[str] = SCOPES,
        granted: bool = True,
        account: str | None = None,
    ) -> str:
        """Accept another key, or change what a known one may do. Returns the key.

        It is a key of the same account as the key `account`, or of the first one. `granted=False` is a key
        without a grant of the account: 403 with an object. Raises ValueError, and KeyError for an unknown
        `account`.
        """
        number = 0 if account is None else self._keys.account_of(account)
        return self._add_key(api_key, number, scopes=scopes, granted=granted)

    def _add_key(
        self, api_key: str | None, account: int, *, scopes: Iterable[str], granted: bool = True
    ) -> str:
        key = make_key() if api_key is None else api_key
        created_at = timestamp(self._clock())
        self._keys.add(key, scopes, account=account, granted=granted, created_at=created_at)
        return key

    def revoke_key(self, api_key: str) -> None:
        """Accept a key no longer. Raises KeyError, which does not name it."""
        self._keys.revoke(api_key)

    def memories(self, account: str | None = None) -> list[dict[str, Any]]:
        """Return every stored memory, oldest first: the API's fields, and `locked`.

        `account` is a key of the account that is meant; the first one if it is None.
        """
        return list(self._account(account).memories)

    def add(self, *texts: str, account: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Store memories, past the API: one for each text (stripped), also if it is stored already.

        `fields` are fields of the API, for all of them, or ``locked=True`` for what a free plan has locked.
        Raises TypeError for another field.
        """
        memories, now = self._account(account).memories, self._clock()
        identity = self._text_identity
        return [memories.add(text.strip(), now=now, text_identity=identity, **fields) for text in texts]

    def assert_each_stored_once(self, facts: Iterable[Any], *, account: str | None = None) -> None:
        """Raise AssertionError, naming what is missing and what is doubled, unless each fact is stored once.

        A fact is a text, a `Fact`, or a mapping with a `content`; what else is stored does not matter.
        """
        assert_each_stored_once(self.memories(account), facts)

    @property
    def requests(self) -> deque[CallRecord]:
        """The calls that were handled, in the order in which they ended; the last 100,000."""
        return self._calls.records

    @property
    def in_flight(self) -> int:
        """The number of calls that are being handled, also for clients that are gone."""
        return self._calls.in_flight

    @property
    def max_in_flight(self) -> int:
        """The highest number of calls that were handled at once."""
        return self._calls.peak

    @property
    def max_in_flight_by_kind(self) -> Mapping[str, int]:
        """The highest number of calls of each kind that were handled at once; 0 if there was none."""
        return self._calls.peaks


class ThreadedServer:
    """A `LocalServer` with an event loop of its own in a daemon thread. Made by `LocalServer.in_thread`.

    Its methods may be called from any thread, and have the meaning that they have there.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._thread = LoopThread("omi-local")

    def __repr__(self) -> str:
        return f"<ThreadedServer of {self._server!r}>"

    def start(self) -> Self:
        """Start the thread, and wait until the server listens. Raises what `LocalServer.start` raises."""
        self._thread.start()
        try:
            self._thread.run(self._server.start())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def close(self) -> None:
        """Close the server and end its thread. Twice is fine."""
        if self._thread.running:
            try:
                self._thread.run(self._server.close())
            finally:
                self._thread.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return self._server.url

    @property
    def api_key(self) -> str:
        """The key that the server accepts."""
        return self._server.api_key

    @property
    def faults(self) -> Faults:
        """The faults to come."""
        return self._server.faults

    @property
    def quotas(self) -> Quotas:
        """The quotas in force."""
        return self._server.quotas

    @property
    def requests(self) -> list[CallRecord]:
        """The calls that were handled up to now."""
        return self._thread.call(list, self._server.requests)

    @property
    def in_flight(self) -> int:
        """The number of calls that are being handled."""
        return self._server.in_flight

    @property
    def max_in_flight(self) -> int:
        """The highest number of calls that were handled at once."""
        return self._server.max_in_flight

    @property
    def max_in_flight_by_kind(self) -> Mapping[str, int]:
        """The highest number of calls of each kind that were handled at once."""
        return self._server.max_in_flight_by_kind

    @property
    def database_id(self) -> str:
        """A random name of the database."""
        return self._server.database_id

    def add_account(self, api_key: str | None = None, **options: Any) -> str:
        """See `LocalServer.add_account`."""
        return self._thread.call(self._server.add_account, api_key, **options)

    def add_key(self, api_key: str | None = None, **options: Any) -> str:
        """See `LocalServer.add_key`."""
        return self._server.add_key(api_key, **options)

    def revoke_key(self, api_key: str) -> None:
        """See `LocalServer.revoke_key`."""
        self._server.revoke_key(api_key)

    def memories(self, account: str | None = None) -> list[dict[str, Any]]:
        """See `LocalServer.memories`."""
        return self._thread.call(self._server.memories, account)

    def add(self, *texts: str, **fields: Any) -> list[dict[str, Any]]:
        """See `LocalServer.add`."""
        return self._thread.call(self._server.add, *texts, **fields)

    def assert_each_stored_once(self, facts: Iterable[Any], *, account: str | None = None) -> None:
        """See `LocalServer.assert_each_stored_once`."""
        self._thread.call(self._server.assert_each_stored_once, list(facts), account=account)
