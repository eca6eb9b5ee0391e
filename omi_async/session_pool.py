"""Many keys over one pool of connections: what a web app needs that calls for its users.

A Session costs a few kilobytes and no connection of its own, so there is one for each user who has just been
here. What makes two Sessions of one key tread on each other is their accounts of the quotas. Therefore the
pool gives the same Session again as long as it is kept, and whatever it makes later for the same key goes on
with the same account: with the pacer of the dropped one while some import still uses that, and with what was
known of the quotas afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack

import aiohttp
import attrs
from yarl import URL

from omi_async._api.retry import Retry
from omi_async._quota.pacer import Pacer
from omi_async._quota.policy import QuotaPolicy
from omi_async._quota.sharing import SharedQuotas
from omi_async._quota.store import fingerprint
from omi_async._settings import Secret, parse_api_key, parse_seconds, proxy_for
from omi_async._transport import close_pool, let_go_unclosed, open_pool
from omi_async.errors import ConfigurationError, OmiError
from omi_async.importing.stopping import carried_through
from omi_async.session import Session

__all__ = ["SessionOptions", "SessionPool"]

DRAIN: Final = 30.0
"""Seconds that calls on the wire have to come back when the pool is closed. A write that is cut off may have
been stored or not, unknown to its caller; but no server is waited for while an orchestrator is about to kill
us."""

STALE: Final = 86_400.0
"""Seconds for which the quotas of a dropped Session are remembered: no window of the service is longer. With
less, a user who comes back would spend a window again; forever, all who were ever here would be in memory."""


class SessionOptions(TypedDict, total=False):
    """What each Session of a pool is made with: see `Session`."""

    base_url: str | URL | None
    timeout: float
    batch_timeout: float
    retry: Retry
    allow_http: bool | None
    trace_configs: Sequence[aiohttp.TraceConfig]
    quotas: Iterable[QuotaPolicy] | None
    max_wait: float
    reserve: float
    ledger: str | os.PathLike[str] | SharedQuotas | None
    trust_env: bool


class _PooledSession(Session):
    """A Session whose end is the pool's: ``async with`` leaves it open for the others who share it."""

    async def close(self) -> None:
        """Do nothing: other tasks may be using it; the pool closes it."""

    async def end(self) -> None:
        """Close it."""
        await super().close()


@attrs.define
class _Entry:
    session: _PooledSession
    touched: float  # when it was asked for, or seen to be in use; of the loop's clock


class SessionPool:
    """Sessions for many keys, over one pool of connections, for one event loop.

    ```python
    async with SessionPool(max_wait=5) as pool:
        memory = await pool.session(user.omi_key).memories.create("User is vegetarian")
    ```

    Args:
        connections: calls on the wire at the same time, at most, of all keys together; a single key has 8 of
            them at most.
        max_sessions: Sessions that are kept, at most; the one that was not asked for longest goes first.
        idle: seconds without any use after which a Session goes. What was learned of its quotas stays for a
            day.
        options: of each Session: ``base_url``, ``timeout``, ``batch_timeout``, ``retry``, ``allow_http``,
            ``quotas``, ``max_wait``, ``reserve``, ``ledger``; of the connections: ``trace_configs``,
            ``trust_env``.

    Raises:
        ConfigurationError: what a Session with such options would raise; at once, and not for the first user.
    """

    def __init__(
        self,
        *,
        connections: int = 100,
        max_sessions: int = 1000,
        idle: float = 600.0,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._closed = True  # until everything below has been found usable
        if connections < 1 or max_sessions < 1:
            raise ConfigurationError("connections and max_sessions must be at least 1")
        self._connections = connections
        self._max_sessions = max_sessions
        self._idle = parse_seconds("idle", idle)
        self._trace_configs = options.pop("trace_configs", ())
        trust_env = options.pop("trust_env", False)
        if (quotas := options.get("quotas")) is not None:
            options["quotas"] = tuple(quotas)  # each Session reads them
        trial = Session("omi_dev_trial", **options)
        self._base = options["base_url"] = trial.base_url
        self._options = options
        self._proxy = proxy_for(self._base) if trust_env else None
        self._client: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop  # of the client, once there is one
        # By fingerprints: no key stands in a table that some debugger or error report may show.
        self._kept: OrderedDict[str, _Entry] = OrderedDict()
        self._pacers: weakref.WeakValueDictionary[str, Pacer] = weakref.WeakValueDictionary()
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._flushing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # Life

    @property
    def base_url(self) -> str:
        """The server's base URL, without a slash at its end."""
        return self._base

    @property
    def closed(self) -> bool:
        """Whether `close` has been called; a closed pool stays closed."""
        return self._closed

    def __len__(self) -> int:
        """Return how many Sessions are kept."""
        return len(self._kept)

    def __bool__(self) -> bool:
        """Return True: an empty pool is a pool."""
        return True

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._kept)} sessions"
        return f"<omi_async.SessionPool {self._base} {state}>"

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        client = getattr(self, "_client", None)
        if client is not None:
            let_go_unclosed(self, client, self._loop)

    async def close(self) -> None:
        """Let the calls on the wire come back, for half a minute at most, and give the connections back.

        Callers who wait for a quota or a connection are sent away at once. Closing twice is fine.
        """
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        pacers = [*self._pacers.values()]  # of the dropped ones too, as long as they are in use
        for pacer in pacers:
            pacer.close(_is_closed)
        # Also when cancelled: else the ledgers would not be written, nor the Sessions be closed.
        await carried_through(self._drain(pacers))

    async def _drain(self, pacers: list[Pacer]) -> None:
        draining = [asyncio.create_task(pacer.drain()) for pacer in pacers if pacer.busy]
        try:
            if draining:
                await asyncio.wait(draining, timeout=DRAIN)
        finally:
            for task in draining:
                task.cancel()
            await self._end(pacers)

    async def _end(self, pacers: Iterable[Pacer]) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_pool(client, self._loop)
        for entry in self._kept.values():
            await entry.session.end()
        self._kept.clear()
        for pacer in pacers:
            await pacer.save()
        if self._flushing:
            await asyncio.wait(self._flushing)

    def _open(self) -> aiohttp.ClientSession:
        """Return the connections, made for the running loop when they are first asked for."""
        if self._closed:
            raise _is_closed()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("a SessionPool is used inside a running event loop") from None
        if self._client is None:
            # Without any headers of its own: the key is each Session's, and goes with each call.
            self._client = open_pool(self._connections, {}, self._trace_configs, self._proxy)
            self._loop = loop
        if self._loop is not loop:
            raise ConfigurationError("this SessionPool belongs to another event loop; make one for each loop")
        return self._client

    # Sessions

    def session(self, api_key: str, /) -> Session:
        """Return the Session of a key: the same one as long as it is kept.

        It may be used as it is, or with ``async with``, which leaves it open: it is the pool's to close.

        Raises:
            ConfigurationError: no usable key (`OMI_API_KEY` is not read: it is no user's); the pool is
                closed, or belongs to another event loop.
        """
        kind = type(api_key)
        api_key = Secret(api_key or "")  # this frame stands in tracebacks
        client = self._open()
        account = fingerprint(parse_api_key(api_key, kind))
        now = self._loop.time()
        self._drop_idle(now)
        entry = self._kept.pop(account, None)
        if entry is None:
            entry = _Entry(self._make(account, api_key, client), now)
        entry.touched = now
        self._kept[account] = entry  # at the end: the order is that of their use
        if len(self._kept) > self._max_sessions:
            self._drop(next(iter(self._kept)))
        if self._timer is None:
            self._sweep_later()
        return entry.session

    def _make(self, account: str, api_key: str, client: aiohttp.ClientSession) -> _PooledSession:
        session = _PooledSession(api_key, client=client, **self._options)
        pacer = self._pacers.get(account)
        if pacer is not None:  # an import that began long ago still uses the Session that was dropped
            session.pacing = pacer
            return session
        self._pacers[account] = session.pacing
        if account in self._known:
            _, windows = self._known.pop(account)
            session.pacing.ledger.load(json.loads(windows), time.time())
        return session

    def _drop_idle(self, now: float) -> None:
        """Drop those that were not used for long, and what is known of quotas that have changed since."""
        for _ in range(len(self._kept)):
            account, entry = next(iter(self._kept.items()))
            if now - entry.touched < self._idle:
                break
            pacer = entry.session.pacing
            if pacer.busy or pacer.clock.steady() - pacer.used_at < self._idle:
                # It was not asked for, but its holder makes calls. It is looked at again later.
                entry.touched = now
                self._kept.move_to_end(account)
            else:
                self._drop(account)
        stale = time.time() - STALE
        while self._known and next(iter(self._known.values()))[0] < stale:
            self._known.popitem(last=False)

    def _drop(self, account: str) -> None:
        """Keep a Session no longer. Whoever holds it can go on using it: its connections are the pool's."""
        pacer = self._kept.pop(account).session.pacing
        windows = pacer.ledger.dump()
        if windows:
            self._known[account] = (time.time(), json.dumps(windows))
            self._known.move_to_end(account)
        task = self._loop.create_task(pacer.flush())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    def _sweep_later(self) -> None:
        # By a weak reference: a timer that held the pool would keep a forgotten one alive, unwarned of.
        self._timer = self._loop.call_later(max(self._idle, 1.0), _sweep, weakref.ref(self))

    def sweep(self) -> None:
        """Drop what is idle, now and later; without it memory would only be given back at the next call."""
        self._timer = None
        self._drop_idle(self._loop.time())
        if self._kept:
            self._sweep_later()


def _sweep(reference: weakref.ref[SessionPool]) -> None:
    pool = reference()
    if pool is not None:
        pool.sweep()


def _is_closed() -> OmiError:
    return ConfigurationError("this SessionPool is closed; a closed pool cannot be opened again")
