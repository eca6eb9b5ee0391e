"""The connection to the store: a Redis or Valkey server that all machines share."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from omi_async._api.retry import Retry, jittered, waits
from omi_async._quota.sharing import FORMAT
from omi_async._settings import Secret
from omi_async.errors import ConfigurationError, OmiError
from omi_async.importing.report import ImportReport
from omi_async.workers.errors import StoreError
from omi_async.workers.names import PartName
from omi_async.workers.progress import ImportSnapshot, PartSnapshot, import_snapshot
from omi_async.workers.quotas import QuotaRecord
from omi_async.workers.scripts import FAIL, IDENTIFY, SNAPSHOT, Script
from omi_async.workers.words import why

__all__ = ["KEPT", "RedisStore"]

T = TypeVar("T")

log: Final = logging.getLogger("omi_async")

LEASE: Final = 30.0
"""Seconds. A worker renews its lease three times in them, so that one answer that comes late costs nothing;
a part whose worker was killed rests for so long."""

CONNECTIONS: Final = 32
"""Commands at the same time; others wait. Each is a script of less than a millisecond."""

NO_ANSWER: Final = 5.0
"""Seconds without an answer after which a command is made again on another connection. A server that does its
work answers in milliseconds; with much more, one that hangs is noticed only when leases have run out."""

PATIENCE: Final = 600.0
"""Seconds for which a command is repeated while the server is away: a restart with a large append-only file,
a failover. A task that hangs for hours would hide the outage from whoever watches the tasks."""

IN_A_HURRY: Final = 2.0
"""The same for work that was cancelled. What cannot be written down then is looked for by the next worker."""

PAUSES: Final = Retry(attempts=1_000_000, base=0.05, cap=1.0)
"""Waits between two repetitions: soon at first, since most outages are the restart of a connection."""

AWAY: Final = (
    RedisConnectionError,  # the server cannot be reached, or loads its data after a restart
    RedisTimeoutError,
    OSError,
    ReadOnlyError,  # a failover: this one is no longer, or not yet, the one that writes
    ClusterDownError,
    TryAgainError,
)

REFUSED: Final = (AuthenticationError, AuthorizationError)
"""To redis-py they are errors of the connection, or the causes of one. No repetition helps."""

KEPT: Final = 40 * 86_400
"""Seconds for which the store knows a part after the last word of it. An import may wait for the window of a
day, and whoever reads its result may come a month later; after them the same part would be imported again."""

LOOKED_EVERY: Final = 1.0
"""Seconds between two looks of somebody who watches. The workers tell of their progress as often."""

LOST_FOR: Final = 86_400.0
"""Seconds for which a loss of data is remembered. An engine delivers what it was working on again within
minutes or hours; for parts that it begins later nothing was sent before the loss."""


class RedisStore:
    """What workers on all machines know together: each part's rows and lease, and each key's quotas.

    One for a process is enough: it may be shared by any number of tasks of one event loop. Neither keys nor
    texts of facts are in the store. A server that is away for a while stalls whoever needs it, and everything
    goes on when it is back; see the package's docstring for what is known after one that lost its data.

    Args:
        url: of a Redis (7 or later) or Valkey server, ``redis://``, ``rediss://`` or ``unix://``.
        prefix: of all keys. Applications that share a server have prefixes of their own.
        lease: seconds for which a worker holds a part without being heard of. All workers should have the
            same.

    Raises:
        ConfigurationError: the URL is none, the prefix is empty or holds a brace, or the lease is not
            positive.
    """

    def __init__(self, url: str, prefix: str = "omi", lease: float = LEASE) -> None:
        url = Secret(url)  # it may hold a password, and this frame stands in tracebacks
        if not prefix or "{" in prefix or "}" in prefix:
            raise ConfigurationError(f"the prefix of the keys must be a word without braces, not {prefix!r}")
        if not 0 < lease < float("inf"):
            raise ConfigurationError(f"lease must be a positive number of seconds, not {lease!r}")
        self.prefix = prefix
        self.lease = lease
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=None,
                # Not redis-py's own time-outs: they use `asyncio.wait_for`, which before Python 3.12 may lose
                # a cancellation, and the task that was cancelled goes on as if nothing had been said.
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=RedisRetry(NoBackoff(), 0),  # all repetition is in `repeated`
            )
        except ValueError:
            pool = None
        if pool is None:  # not within the `except`: what went wrong may quote a piece of the password
            raise ConfigurationError(
                "not the URL of a Redis server: it begins redis://, rediss:// or unix://, and #, / and ? "
                "in a password are written %23, %2F and %3F"
            )
        self._redis = Redis(connection_pool=pool)
        self._known_id = ""
        self._closed = False

    def __repr__(self) -> str:
        return f"<omi_async.workers.RedisStore prefix={self.prefix!r}{' closed' * self._closed}>"

    # Life

    async def __aenter__(self) -> Self:
        await self.lost_since()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back. Closing twice is fine."""
        self._closed = True
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    # Commands, for the other modules of this package

    def key(self, tag: str, *words: object) -> str:
        """Return the key of something that belongs to `tag`: keys of one tag lie on one node."""
        return ":".join([self.prefix, f"{{{tag}}}", *map(str, words)])

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int],
        *,
        hurry: asyncio.Event | None = None,
        since: float | None = None,
    ) -> list[Any]:
        """Run a script; it must do no harm if it is run twice, even late, since an answer may be lost.

        Raises `StoreError`, as `repeated` does.
        """

        async def once() -> list[Any]:
            try:
                answer = await self._redis.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:  # the server is new, or was restarted
                answer = await self._redis.eval(script.text, len(keys), *keys, *arguments)
            return list(answer)

        return await self.repeated(once, hurry=hurry, since=since)

    async def repeated(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        hurry: asyncio.Event | None = None,
        since: float | None = None,
    ) -> T:
        """Do something with the server, again while it is away.

        Args:
            command: what to do; it may be done twice.
            hurry: is set when there is no time to wait for a server that is away.
            since: when the waiting began, by the loop's clock; now if None.

        Raises:
            StoreError: the server stays away, or refuses.
        """
        if self._closed:
            raise StoreError("this RedisStore is closed; make another")
        loop = asyncio.get_running_loop()
        began = loop.time() if since is None else since
        for pause in waits(PAUSES):
            try:
                async with asyncio.timeout(NO_ANSWER):
                    return await command()
            except (RedisError, OSError) as error:
                if not _is_away(error):
                    raise StoreError(f"the store refuses: {type(error).__name__}: {error}") from None
                hurried = hurry is not None and hurry.is_set()
                if loop.time() - began > (IN_A_HURRY if hurried else PATIENCE):
                    raise StoreError(f"the store is away: {error}") from None
                if pause == PAUSES.base:  # the first time only
                    about = {"omi_why": "store", "omi_error": type(error).__name__}
                    log.warning("the store is away: %s; it is tried again", error, extra=about)
            await _pause(jittered(pause or PAUSES.cap, random.random()), hurry)  # noqa: S311  # jitter
        raise AssertionError("PATIENCE ends before the waits do")

    # What users ask

    async def snapshot(self, name: str, /) -> ImportSnapshot:
        """Return how far an import is, with each of its parts. Raises `StoreError`.

        Args:
            name: the import's: ``"dana"`` if its parts are ``"dana/0"`` and so on. An import that the store
                does not know has no parts, and waits.
        """
        keys = [self.key(name, "import")]
        return import_snapshot(name, *await self.run(SNAPSHOT, keys, [self.key(name, "part", "")]))

    async def snapshot_part(self, part: str, /) -> PartSnapshot:
        """Return how far a part is, such as ``"dana/3"``. Raises `StoreError`, and ValueError for no name."""
        name = PartName.parse(part)
        whole = await self.snapshot(name.whole)
        waiting = PartSnapshot(str(name), "waiting", ImportReport())
        return next((known for known in whole.parts if known.part == str(name)), waiting)

    async def watch(self, name: str, /, *, every: float = LOOKED_EVERY) -> AsyncIterator[ImportSnapshot]:
        """Yield how far an import is: now, and after each change; a slow reader gets the latest only.

        It ends with the snapshot in which all parts are done, stopped or failed. Raises `StoreError`.

        Args:
            name: as for `snapshot`.
            every: seconds between two looks.
        """
        shown = None
        while shown is None or not shown.finished:
            if shown is not None:
                await asyncio.sleep(every)
            snapshot = await self.snapshot(name)
            if snapshot != shown:
                yield snapshot
            shown = snapshot

    async def watch_part(self, part: str, /, *, every: float = LOOKED_EVERY) -> AsyncIterator[PartSnapshot]:
        """Yield how far a part is, as `watch` does for an import."""
        shown = None
        while shown is None or not shown.finished:
            if shown is not None:
                await asyncio.sleep(every)
            snapshot = await self.snapshot_part(part)
            if snapshot != shown:
                yield snapshot
            shown = snapshot

    async def stop(self, name: str, /) -> None:
        """Stop an import: its workers let the calls on the wire land, and make no other. Raises `StoreError`.

        They hear of it within a second or two. Parts that are run later end at once, until `resume`.
        """
        key = self.key(name, "import")

        async def once() -> None:
            async with self._redis.pipeline() as both:  # in one step: a key without an expiry would stay
                both.hset(key, "stop", "1")
                both.pexpire(key, KEPT * 1000)
                await both.execute()

        await self.repeated(once)

    async def resume(self, name: str, /) -> None:
        """Let an import that was stopped go on, once its parts are run again. Raises `StoreError`."""

        async def once() -> None:
            await self._redis.hdel(self.key(name, "import"), "stop")

        await self.repeated(once)

    async def note_failure(self, part: str, error: Exception, /) -> None:
        """Note that an engine has given a part up without `import_part`: that has noted its own failures.

        Of an error that is none of this library's only the kind is noted: its words may hold anything.
        Raises `StoreError`.
        """
        name, words = PartName.parse(part), type(error).__name__
        if isinstance(error, OmiError):
            words = f"{words}: {why(error)}"
        keys = [self.key(name.whole, "part", name.number), self.key(name.whole, "import")]
        await self.run(FAIL, keys, [name.number, words.encode(errors="replace"), KEPT * 1000])

    # Quotas

    def quotas_of(self, account: str, server: str) -> QuotaRecord:
        """Return what the store knows of a key's quotas; with this, a store can be a Session's ledger."""
        return QuotaRecord(self.run, self.key(account, "quotas", FORMAT, server))

    # The store's data

    async def lost_since(self, *, hurry: asyncio.Event | None = None) -> float | None:
        """Return when the store was found to have lost its data, in epoch seconds of its clock; None if not.

        Its data has a name, made with the first of it. If it has another one than it had before, the data
        before is gone, and that is noted for all.
        """
        keys = [self.key(self.prefix, "id"), self.key(self.prefix, "lost")]
        spans = round(LOST_FOR * 1000), KEPT * 1000
        arguments: list[str | int] = [self._known_id, secrets.token_hex(16), *spans]
        name, lost = await self.run(IDENTIFY, keys, arguments, hurry=hurry)
        self._known_id = name.decode()
        return int(lost) / 1000 if lost else None


def _is_away(error: Exception) -> bool:
    return (
        isinstance(error, AWAY)
        and not isinstance(error, REFUSED)
        and not isinstance(error.__cause__, REFUSED)
    )


async def _pause(seconds: float, hurry: asyncio.Event | None) -> None:
    """Sleep, but not on when there is a hurry that was not there before."""
    if hurry is None or hurry.is_set():
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await hurry.wait()
    except TimeoutError:
        return
