"""Who may call now: the ledger of quotas, the connections, and those who wait, in the order of their coming.

All waiting of a Session stands in one place, so that a window that opens is spent by those who came first,
and by not one call more than it holds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from omi_async._api.headers import read_rate_limit_headers
from omi_async._api.messages import Kind, Response
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaState
from omi_async._quota.store import LedgerFile
from omi_async._quota.window import CountedCall
from omi_async.errors import OmiError, RateLimitError

__all__ = ["CallGroup", "Pacer", "Permit"]

LOOK_AGAIN: Final = 30.0
"""Seconds after which a wait is looked at again: while the machine sleeps, its timers stand still, and a
window that opened meanwhile would be waited for once more."""

ASLEEP: Final = 2.0
"""Seconds by which the clock on the wall must get ahead to mean that the machine has slept. Less is what
keeps clocks right, and would open each window too early."""

TOO_MANY_REQUESTS: Final = 429


class Clock:
    """Epoch seconds that go on steadily: by the loop's clock, and over the machine's sleep.

    The loop's clock stands still while the machine sleeps, and the one on the wall may be set back. If the
    wall's gets ahead, either the machine has slept, or the user has set it: to believe the former costs a
    refused call at worst.
    """

    def __init__(self) -> None:
        self._ahead = -math.inf  # of the loop's clock

    def now(self) -> float:
        """Return the time."""
        ticks = asyncio.get_running_loop().time()
        ahead = time.time() - ticks
        if ahead > self._ahead + ASLEEP:
            self._ahead = ahead
        return ticks + self._ahead


class CallGroup(Protocol):
    """The calls of one import, which wait for more than quotas and connections."""

    @property
    def free(self) -> bool:
        """Whether another one may begin."""
        ...

    def begin(self) -> None:
        """Note that one begins."""
        ...

    def end(self) -> None:
        """Note that one has ended."""
        ...

    def on_quota_wait(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls of this kind have to wait so many seconds for a quota."""
        ...


class Permit:
    """Leave to make one call, counted and with a place on the wire; only the first of its ends counts.

    Attributes:
        call: as the ledger counts it.
        group: the import that it belongs to.
        waited: seconds that it was waited for since a quota asked for it. The wait for a connection is none.
    """

    __slots__ = ("_ended", "_pacer", "call", "group", "waited")

    def __init__(self, pacer: Pacer, call: CountedCall, group: CallGroup | None, waited: float) -> None:
        self._pacer = pacer
        self._ended = False
        self.call = call
        self.group = group
        self.waited = waited

    def give_back(self) -> None:
        """End it without a call."""
        if not self._ended:
            self._ended = True
            self._pacer.ledger.give_back(self.call)
            self._pacer.take_back(self)

    def answered(self, response: Response) -> None:
        """End it with an answer, of whatever status."""
        if not self._ended:
            self._ended = True
            ledger, now = self._pacer.ledger, self._pacer.clock.now()
            learn = ledger.refused if response.status == TOO_MANY_REQUESTS else ledger.answered
            learn(self.call, now, read_rate_limit_headers(response))
            self._pacer.take_back(self)

    def failed(self, error: BaseException) -> None:
        """End it without an answer; a call that was given up may have reached the server."""
        if not self._ended:
            self._ended = True
            self._pacer.ledger.failed(self.call, error)
            self._pacer.take_back(self)


class _Waiter(NamedTuple):
    number: int
    since: float  # of the pacer's clock
    until: float  # the latest end of the wait, of the pacer's clock
    granted: asyncio.Future[Permit]


class _Queue:
    """Those who wait for the same: a kind of call, by an import (its group) or by anybody else (None)."""

    def __init__(self, kind: Kind, group: CallGroup | None) -> None:
        self.kind = kind
        self.group = group
        self.waiters: deque[_Waiter] = deque()
        self._shut = (-math.inf, -math.inf)  # the latest time for which a quota let none of them through

    def first(self) -> _Waiter | None:
        """Return the one who came first, of those who still wait."""
        while self.waiters and self.waiters[0].granted.done():
            self.waiters.popleft()
        return self.waiters[0] if self.waiters else None

    def put_off(self, now: float, until: float) -> None:
        """Note that a quota lets none of them through until then."""
        since, before = self._shut
        self._shut = (since if now <= before else now, until)

    def waited(self, waiter: _Waiter, now: float) -> float:
        """Return the seconds that a waiter has waited for a quota."""
        since, until = self._shut
        return max(0.0, min(now, until) - max(waiter.since, since))


class _Probe(NamedTuple):
    """The first call through a window that was waited for. It goes alone: only it may come too early."""

    permit: Permit
    until: float


class Pacer:
    """Gives out permits.

    Args:
        ledger: knows which call may go.
        connections: calls on the wire at the same time, at most.
        file: the ledger's file, shared with other processes; None for none.

    Attributes:
        ledger: the same.
        clock: what the ledger's moments are told by.
        used_at: when a permit was last asked for.
    """

    def __init__(self, ledger: Ledger, connections: int, file: LedgerFile | None = None) -> None:
        self.ledger = ledger
        self.clock = Clock()
        self.used_at = -math.inf
        self._connections = connections
        self._free = connections
        self._all_back = asyncio.Event()
        self._file = file
        self._queues: dict[tuple[Kind, CallGroup | None], _Queue] = {}
        self._number = 0
        self._held: set[Kind] = set()  # what has waited for a window since it was last let through
        self._probes: dict[Kind, _Probe] = {}
        self._closed: Callable[[], OmiError] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._first: asyncio.Task[None] | None = None  # exchange with the file, at the start
        self._exchange: asyncio.Task[None] | None = None  # the latest one

    # What is known

    def states(self) -> tuple[QuotaState, ...]:
        """Return what is known of each policy. Any thread may ask."""
        return self.ledger.states(time.time())

    def wait(self, kind: Kind, *, live: bool = True) -> float:
        """Return the seconds until a call of this kind may go, as far as quotas are concerned."""
        return self.ledger.wait(kind, self.clock.now(), live=live)

    def capacity(self, kind: Kind, seconds: float) -> float:
        """Return how many calls an import can make within so many seconds."""
        now = self.clock.now()
        return self.ledger.capacity(kind, now, now + seconds)

    def seconds_for(self, kind: Kind, calls: int) -> float:
        """Return how long so many calls of an import wait for windows, the last one of them."""
        return self.ledger.seconds_for(kind, calls, self.clock.now())

    # Permits

    async def acquire(
        self, kind: Kind, *, group: CallGroup | None = None, patience: float | None = None
    ) -> Permit:
        """Wait for a permit; whoever came first gets it first.

        Args:
            kind: of the call.
            group: the import that it belongs to.
            patience: seconds to be waited for quotas at most; None for any. The wait for a connection does
            not count.

        Raises:
            RateLimitError: the wait would be longer.
            OmiError: what `close` was given, after that.
        """
        await self.open()
        if self._closed is not None:
            raise self._closed()
        now = self.used_at = self.clock.now()
        self._number += 1
        until = math.inf if patience is None else now + patience
        waiter = _Waiter(self._number, now, until, asyncio.get_running_loop().create_future())
        queue = self._queues.setdefault((kind, group), _Queue(kind, group))
        queue.waiters.append(waiter)
        self._dispatch()
        if group is None and not waiter.granted.done():
            self._refuse_if_too_far_behind(waiter, kind, now)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError, OmiError):
                waiter.granted.result().give_back()  # it was granted and cancelled in one turn of the loop
            raise
        finally:
            self._forget_if_empty(queue)

    def _forget_if_empty(self, queue: _Queue) -> None:
        key = queue.kind, queue.group
        # Not one that was made since: those who were let through together come here one after the other.
        if queue.first() is None and self._queues.get(key) is queue:
            del self._queues[key]
        if not self._queues:
            self._forget_timer()

    def _refuse_if_too_far_behind(self, waiter: _Waiter, kind: Kind, now: float) -> None:
        """Send a caller away if so many came first that one window does not do for all of them.

        It could wait and see. But a web request that waits in vain is worse than one that is told at once.
        """
        waiting = sum(len(queue.waiters) for queue in self._queues.values() if queue.kind == kind)
        wait = self.ledger.seconds_for(kind, waiting, now, live=True)
        if waiting > 1 and now + wait > waiter.until:
            waiter.granted.set_exception(out_of_quota(kind, wait, self.ledger.blocking(kind, now)))

    def reconsider(self) -> None:
        """Look again who may go: a group has changed its mind."""
        if self._queues:
            self._dispatch()

    def take_back(self, permit: Permit) -> None:
        """Note that a permit has ended, and let the next ones go."""
        self._free += 1
        if self._free == self._connections:
            self._all_back.set()
        kind = permit.call.kind
        if kind in self._probes and self._probes[kind].permit is permit:
            del self._probes[kind]
        if permit.group is not None:
            permit.group.end()
        if self.ledger.learned and self._file is not None:
            self._begin_exchange(self._file)
        self.reconsider()

    def close(self, error: Callable[[], OmiError]) -> None:
        """Send everybody away, each with an error of its own."""
        self._closed = error
        for queue in self._queues.values():
            for waiter in queue.waiters:
                if not waiter.granted.done():
                    waiter.granted.set_exception(error())
        self._forget_timer()

    @property
    def busy(self) -> bool:
        """Whether a call is on the wire, or waits to be."""
        return self._free < self._connections or bool(self._queues)

    async def drain(self) -> None:
        """Wait until no call is on the wire."""
        while self._free < self._connections:
            await self._all_back.wait()

    def _dispatch(self) -> None:
        """Give out all permits that there are, and come again when there may be more."""
        now = self.clock.now()
        soonest = math.inf
        queues = [*self._queues.values()]
        # To be told that it must wait may end an import, and all of its waits: look each time who is left.
        while queues := [queue for queue in queues if queue.first() is not None]:
            queue = min(queues, key=_number_of_first)
            wait = self._wait_of(queue, now)
            if wait:
                soonest = min(soonest, wait)
                queues.remove(queue)
            else:
                waiter = queue.waiters.popleft()
                waiter.granted.set_result(self._grant(queue, queue.waited(waiter, now), now))
        self._forget_timer()
        if soonest < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(soonest, LOOK_AGAIN), self._dispatch)

    def _wait_of(self, queue: _Queue, now: float) -> float:
        """Return the seconds until a queue is worth another look: 0 for now.

        They are infinite if nothing but the end of a permit, or a group's change of mind, makes a difference.
        """
        kind, live = queue.kind, queue.group is None
        if not self._free or (queue.group is not None and not queue.group.free):
            return math.inf
        wait = self.ledger.wait(kind, now, live=live)
        if wait:
            self._held.add(kind)
            self._put_off(queue, wait, now)
            return wait
        probe = self._probes.get(kind)
        # The wait for a probe is none for a quota: the window is open, and no caller is sent away.
        return 0.0 if probe is None else max(0.0, probe.until - now)

    def _grant(self, queue: _Queue, waited: float, now: float) -> Permit:
        permit = Permit(self, self.ledger.spend(queue.kind, now), queue.group, waited)
        self._free -= 1
        self._all_back.clear()
        if queue.group is not None:
            queue.group.begin()
        if queue.kind in self._held:
            self._held.discard(queue.kind)
            self._probes[queue.kind] = _Probe(permit, now + self.ledger.head_start(queue.kind))
        return permit

    def _put_off(self, queue: _Queue, wait: float, now: float) -> None:
        """Tell those who wait that they must, and send those away who would not."""
        queue.put_off(now, now + wait)
        state = self.ledger.blocking(queue.kind, now, live=queue.group is None)
        for waiter in queue.waiters:
            if now + wait > waiter.until and not waiter.granted.done():
                waiter.granted.set_exception(out_of_quota(queue.kind, wait, state))
        if queue.group is not None and queue.first() is not None:
            queue.group.on_quota_wait(queue.kind, wait, state)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The file

    async def open(self) -> None:
        """Read the file, if there is one; once, however many ask."""
        if self._file is None:
            return
        if self._first is None:
            self._first = self._begin_exchange(self._file)
        if not self._first.done():
            await asyncio.wait([self._first])  # it goes on for the others if this one is cancelled

    async def flush(self) -> None:
        """Write what is not written yet."""
        if self._file is None or self._first is None:
            return
        if self._exchange is not None and self._exchange.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._exchange])
        await self._file.exchange(self.ledger, self.clock.now, only_news=True)

    async def save(self) -> None:
        """Write what is not written yet; the last thing that is done with the file."""
        await self.flush()
        self._file = None

    def _begin_exchange(self, file: LedgerFile) -> asyncio.Task[None]:
        if self._exchange is None or self._exchange.done():
            self._exchange = asyncio.get_running_loop().create_task(self._exchange_with(file))
        return self._exchange

    async def _exchange_with(self, file: LedgerFile) -> None:
        """Exchange with the file what is known, again if more was learned meanwhile."""
        self.ledger.learned = True
        while self.ledger.learned:
            self.ledger.learned = False
            await file.exchange(self.ledger, self.clock.now)
            self.reconsider()


def _number_of_first(queue: _Queue) -> float:
    first = queue.first()
    return math.inf if first is None else first.number


def out_of_quota(kind: Kind, wait: float, state: QuotaState | None) -> RateLimitError:
    """Make the error for a call that was not made, since it would have to wait for too long."""
    what = "the server refuses all calls for now" if state is None else f"the {state.policy} quota is used up"
    return RateLimitError(
        f"{kind}: {what}, the next call may go in {wait:,.1f} s; nothing was sent",
        status=TOO_MANY_REQUESTS,
        retry_after=wait,
    )
