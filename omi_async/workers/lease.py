"""The lease of a part: who works on it, and until when nobody else may."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import attrs

from omi_async._api.messages import Kind, Request
from omi_async._quota.pacer import Pacer
from omi_async._quota.permit import Permit
from omi_async.importing.sender import Sender
from omi_async.workers.errors import LeaseLost, StoreError
from omi_async.workers.names import PartName
from omi_async.workers.scripts import READ, RELEASE, TAKE, WRITE, Script
from omi_async.workers.store import KEPT, RedisStore

__all__ = ["Lease", "LeasedSender", "Taken"]

T = TypeVar("T")

DRIFT: Final = 0.99
"""The share of a lease that counts here: the clocks of two machines may run apart by a little."""


STORING: Final = frozenset[Kind]({"batch", "create"})
"""The calls that are written down before they leave. The others store no fact: that they may be on their way
concerns no other worker."""


def _clock() -> float:
    """Return seconds that go on while the machine sleeps: another worker's do."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # Linux has it
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


@attrs.frozen
class Taken:
    """What was said to a worker that asked for a part.

    Attributes:
        state: "taken"; or "done" or "stopped", and then there is nothing to do.
        report: of the part so far, as JSON; empty if there is none.
        rows: whether earlier workers have left rows.
        suspect: whether facts without a row may have been sent: the rows of an earlier worker are gone.
    """

    state: str
    report: str
    rows: bool = False
    suspect: bool = False


class Lease:
    """A part's lease, in the hands of one worker.

    Args:
        store: where it is.
        part: whose lease.
        longest_call: seconds after which a call on the wire has ended in any case.

    Attributes:
        lost: why it is another's by now; None while it is not known to be.
        stop_asked: whether somebody asked the import to stop.
        news: set when one of these two has changed.
        hurry: to be set when there is no time left to wait for a store that is away.
    """

    def __init__(self, store: RedisStore, part: PartName, longest_call: float) -> None:
        self.lost: LeaseLost | None = None
        self.stop_asked = False
        self.news = asyncio.Event()
        self.hurry = asyncio.Event()
        self._store = store
        self._part = part
        self._longest_call = longest_call
        self._holder = secrets.token_hex(8)
        self._keys = [
            store.key(part.whole, "part", part.number),
            store.key(part.whole, "rows", part.number),
            store.key(part.whole, "import"),
        ]
        self._fence = ""
        self._until = 0.0  # by the clock of this machine, which is asked without a round trip
        self._ahead = 0.0  # seconds that the store's clock is ahead of this machine's time.time()
        self._out = 0  # calls that are on the wire, or may be at any moment
        self._written = 0  # the number of the last write
        self._writing = asyncio.Lock()

    @property
    def length(self) -> float:
        """How many seconds it lasts if it is not renewed."""
        return self._store.lease

    def holds(self) -> bool:
        """Whether the part is still this worker's, as far as can be told without asking."""
        return self.lost is None and _clock() < self._until

    def to_own_clock(self, milliseconds: float) -> float:
        """Return a moment of the store's clock in epoch seconds of this machine's."""
        return milliseconds / 1000 - self._ahead

    # Taking and giving back

    async def take(self, server: str, parts: int | None, *, redelivered: bool) -> Taken:
        """Take the part, if it is free and there is something to do.

        Raises:
            LeaseLost: another worker holds it.
            StoreError: the store cannot be used, or knows the import with another server or in other parts.
        """
        lost_at = await self._store.lost_since(hurry=self.hurry)
        # Of a store that lost its data it cannot be told who worked on what: until the last lease that it may
        # have given has run out, and the last call has ended.
        free_again = 0.0 if lost_at is None else lost_at + self.length + self._longest_call
        arguments: list[str | bytes | int] = [
            self._holder,
            *map(_milliseconds, (self.length, self._longest_call, KEPT)),
            server,
            self._part.number,
            parts or 0,
            int(redelivered or lost_at is not None),
            _milliseconds(free_again),
        ]
        what, *words = await self._run(TAKE, arguments)
        if what == b"held":
            raise self._lost(f"another worker holds part {self._part}", float(words[0]))
        if what == b"split":
            raise StoreError(
                f"the import {self._part.whole!r} has begun in {int(words[0]) or 'other'} parts, not in "
                f"{parts or 'parts that are given'}: facts would be imported twice, or by no part"
            )
        if what == b"server":
            raise StoreError(f"part {self._part} has begun with another server: {words[0].decode()}")
        if what != b"taken":
            return Taken(what.decode(), words[0].decode())
        self._fence = words[0].decode()
        return Taken("taken", words[1].decode(), rows=bool(words[2]), suspect=bool(words[3]))

    async def release(self, state: str, report: str, error: str = "", resume_at: str = "") -> None:
        """Give the part back, with what became of it. Raises `LeaseLost` and `StoreError`."""
        await self._held(RELEASE, lambda: [_milliseconds(KEPT), state, report, error, resume_at])
        self._until = 0.0

    # Meanwhile

    async def write(self, rows: Sequence[tuple[bytes, bytes]] = (), *, report: str = "") -> None:
        """Write rows of the part, and renew the lease; an empty value means that there is no row.

        Args:
            rows: keys and values.
            report: the account of the part so far, as JSON, if there is news of it.

        Raises:
            LeaseLost: another worker has taken the part over; nothing was written.
            StoreError: the store cannot be used; it is not known what was written.
        """
        spans = _milliseconds(self.length), _milliseconds(KEPT)
        flat = [text for row in rows for text in row]
        await self._held(WRITE, lambda: [*spans, self._out, report, *flat])

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of rows, None for each that there is not. Raises `StoreError`."""
        return await self._store.run(READ, [self._keys[1]], keys, hurry=self.hurry)

    def departs(self) -> None:
        """Note that a call is about to leave: from now on, until `landed`, it may be on the wire."""
        self._out += 1

    def landed(self) -> None:
        """Note that a call is no longer on the wire."""
        self._out -= 1

    async def _held(self, script: Script, arguments: Callable[[], Sequence[str | bytes | int]]) -> None:
        """Run a script that writes, after the one before: if two are under way, either may be done first.

        What it is to write is asked for when it is its turn.
        """
        since = asyncio.get_running_loop().time()  # whoever waits here has waited for the store as well
        async with self._writing:
            if self.lost is not None:
                raise self.lost
            self._written += 1
            answer = await self._run(script, [self._fence, self._written, *arguments()], since=since)
        what, *words = answer
        if what == b"held":
            if words[0] and not self.stop_asked:
                self.stop_asked = True
                self.news.set()
            return
        known, free_at = words
        if known:
            self.lost = self._lost(f"another worker has taken over part {self._part}", float(free_at))
        else:
            await self._store.lost_since(hurry=self.hurry)  # notes it for the others, if all data is gone
            rest = (time.time() + self._ahead + self.length + self._longest_call) * 1000  # of all that had it
            self.lost = self._lost(f"the store knows nothing of part {self._part} any more", rest)
        self.news.set()
        raise self.lost

    async def _run(
        self, script: Script, arguments: Sequence[str | bytes | int], *, since: float | None = None
    ) -> list[Any]:
        """Run a script; what it says of the store's clock is kept, and the rest returned."""
        ticks, wall = _clock(), time.time()  # before it leaves: the lease that counts here is never too long
        answer = await self._store.run(script, self._keys, arguments, hurry=self.hurry, since=since)
        what, now, *words = answer
        self._ahead = float(now) / 1000 - wall
        if what in {b"taken", b"held"}:
            self._until = max(self._until, ticks + self.length * DRIFT)
        return [what, *words]

    def _lost(self, message: str, free_at: float) -> LeaseLost:
        resume_at = datetime.fromtimestamp(self.to_own_clock(free_at), UTC)
        return LeaseLost(message, part=str(self._part), resume_at=resume_at)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


class LeasedSender:
    """The session of an import whose calls leave only while its part is this worker's.

    The last look at the lease comes right before the bytes of a call are given to the operating system, after
    every wait. A worker that is stopped (SIGSTOP, a machine that is paused) can be so between any two
    instructions; between that look and those bytes there are few left.
    """

    def __init__(self, sender: Sender, lease: Lease) -> None:
        self._sender = sender
        self._lease = lease

    @property
    def base_url(self) -> str:
        """The server's base URL."""
        return self._sender.base_url

    @property
    def pacing(self) -> Pacer:
        """Who may call now."""
        return self._sender.pacing

    async def send(self, request: Request[T], /, *, permit: Permit | None = None) -> T:
        """Send a request; a write only while the lease holds (`ConnectError` if it does not)."""
        if not request.idempotent:
            request = attrs.evolve(request, guard=self._lease.holds)
        try:
            return await self._sender.send(request, permit=permit)
        finally:
            if request.kind in STORING:
                self._lease.landed()
