"""`LocalServer`: the stand-in Omi server on a port of this machine."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiohttp import web

from omi_async.local.account import Account
from omi_async.local.contention import CONTENDED, Head
from omi_async.local.faults import Fault, Sleep
from omi_async.local.http import Endpoint
from omi_async.local.keys import SCOPES, Keys, check_key, make_key
from omi_async.local.plan import Chaos, Faults
from omi_async.local.quotas import Quota, Quotas
from omi_async.local.records import CallRecord, Calls, assert_each_stored_once
from omi_async.local.service import Service
from omi_async.local.store import Memories, timestamp

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
        list_window: the list answers 413 beyond so many memories, as the backend's historical reader does.
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
        list_window: int | None = None,
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
        self._list_window = list_window
        self._sleep = sleep
        self._contended = CONTENDED if contended is True else float(contended)
        self._calls = Calls(access_log)
        self._keys = Keys()
        self.add_key(self.api_key, scopes=scopes)
        self._store: Memories | None = None
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

    async def start(self) -> Self:
        """Open the database and listen. Raises `LocalDatabaseError`, or OSError if the port is taken."""
        if self._runner is not None:
            raise RuntimeError("the server is open already")
        store = Memories(self._database)
        runner = web.ServerRunner(self._endpoint(store).make_server(), shutdown_timeout=_GRACE)
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            store.close()
            raise
        self._store, self._runner = store, runner
        return self

    async def close(self) -> None:
        """Stop listening, give the calls in flight a second to end, close the database. Twice is fine."""
        runner, store = self._runner, self._store
        self._runner = self._store = None
        if runner is not None and store is not None:
            try:
                await runner.cleanup()
            finally:
                store.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _endpoint(self, store: Memories) -> Endpoint:
        head = Head(self._contended, self._sleep)
        account = Account(store, head, self._clock, self._text_identity)
        service = Service(account, self._keys, self.quotas, self._clock, self._list_window)
        return Endpoint(service, self.faults, self._calls, self._sleep)

    def add_key(
        self, api_key: str | None = None, *, scopes: Iterable[str] = SCOPES, granted: bool = True
    ) -> str:
        """Accept another key, or change what a known one may do. Returns the key.

        `granted=False` is a key without a grant of the account: 403 with an object. Raises
        ValueError.
        """
        key = make_key() if api_key is None else api_key
        self._keys.add(key, scopes, granted=granted, created_at=timestamp(self._clock()))
        return key

    def revoke_key(self, api_key: str) -> None:
        """Accept a key no longer. Raises KeyError, which does not name it."""
        self._keys.revoke(api_key)

    def _open_store(self) -> Memories:
        if self._store is None:
            raise RuntimeError("the memories cannot be read: the server is not open")
        return self._store

    def memories(self) -> list[dict[str, Any]]:
        """Return every stored memory, oldest first: the API's fields, and `locked`."""
        return list(self._open_store())

    def add(self, *texts: str, **fields: Any) -> list[dict[str, Any]]:
        """Store memories, past the API: one for each text (stripped), also if it is stored already.

        `fields` are fields of the API, for all of them, or ``locked=True`` for what a free plan has locked.
        Raises TypeError for another field.
        """
        store, now = self._open_store(), self._clock()
        identity = self._text_identity
        return [store.add(text.strip(), now=now, text_identity=identity, **fields) for text in texts]

    def assert_each_stored_once(self, facts: Iterable[str | Mapping[str, Any] | Any]) -> None:
        """Raise AssertionError, naming what is missing and what is doubled, unless each fact is stored once.

        A fact is a text, a `Fact`, or a mapping with a `content`; what else is stored does not matter.
        """
        assert_each_stored_once(self.memories(), facts)

    @property
    def requests(self) -> deque[CallRecord]:
        """The calls that were handled, in the order in which they ended; the last 100,000."""
        return self._calls.records

    @property
    def max_in_flight(self) -> int:
        """The highest number of calls that were handled at once."""
        return self._calls.peak

    @property
    def max_in_flight_by_kind(self) -> Mapping[str, int]:
        """The highest number of calls of each kind that were handled at once; 0 if there was none."""
        return self._calls.peaks


T = TypeVar("T")


class ThreadedServer:
    """A `LocalServer` with an event loop of its own in a daemon thread. Made by `LocalServer.in_thread`.

    Its methods may be called from any thread, and have the meaning that they have there.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<ThreadedServer of {self._server!r}>"

    def start(self) -> Self:
        """Start the thread, and wait until the server listens. Raises what `LocalServer.start` raises."""
        if self._loop is not None:
            raise RuntimeError("the server is open already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="omi-local", daemon=True)
        self._thread.start()
        try:
            self._wait(self._server.start())
        except BaseException:
            self._stop()
            raise
        return self

    def close(self) -> None:
        """Close the server and end its thread. Twice is fine."""
        if self._loop is not None:
            try:
                self._wait(self._server.close())
            finally:
                self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(_end_all_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the server is not open")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def _call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function in the server's thread: its data belong to it."""

        async def call() -> T:
            return function(*args, **options)

        return self._wait(call())

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
        return self._call(list, self._server.requests)

    @property
    def max_in_flight(self) -> int:
        """The highest number of calls that were handled at once."""
        return self._server.max_in_flight

    @property
    def max_in_flight_by_kind(self) -> Mapping[str, int]:
        """The highest number of calls of each kind that were handled at once."""
        return self._server.max_in_flight_by_kind

    def add_key(self, api_key: str | None = None, **options: Any) -> str:
        """See `LocalServer.add_key`."""
        return self._server.add_key(api_key, **options)

    def revoke_key(self, api_key: str) -> None:
        """See `LocalServer.revoke_key`."""
        self._server.revoke_key(api_key)

    def memories(self) -> list[dict[str, Any]]:
        """See `LocalServer.memories`."""
        return self._call(self._server.memories)

    def add(self, *texts: str, **fields: Any) -> list[dict[str, Any]]:
        """See `LocalServer.add`."""
        return self._call(self._server.add, *texts, **fields)

    def assert_each_stored_once(self, facts: Iterable[Any]) -> None:
        """See `LocalServer.assert_each_stored_once`."""
        self._call(self._server.assert_each_stored_once, list(facts))


async def _end_all_tasks() -> None:
    """End what still works for a client that has gone, as `asyncio.run` would."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
