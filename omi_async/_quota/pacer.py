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
from threading import get_ident
from typing import Final, NamedTuple, TypeVar, TypeVarTuple

from omi_async._api.headers import read_rate_limit_headers
from omi_async._api.messages import Kind, Response
from omi_async._quota.history import CountedCall
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacing import CallGroup
from omi_async._quota.policy import QuotaState
from omi_async._quota.store import LedgerFile
from omi_async.errors import OmiError, RateLimitError

__all__ = ["Pacer", "Permit"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LOOK_AGAIN: Final = 30.0
"""Seconds after which a wait is looked at again: the machine may have slept, another process have learned."""

ASLEEP: Final = 2.0
"""Seconds by which the clock on the wall must get ahead to mean that the machine has slept."""


class Clock:
    """Epoch seconds that go on steadily: by the loop's clock, and over the machine's sleep.

    The loop's clock stands still while the machine sleeps, and the one on the wall may be set back. Where the
    wall's gets ahead, either the machine has slept, or somebody has set it: to believe the former costs a
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


class Permit:
    """Leave to make one call, counted and with a place on the wire; only the first of its ends counts.

    Attributes:
        group: the import that it belongs to.
        ended: whether the pacer has it back.
    """

    __slots__ = ("_pacer", "_spend", "ended", "group")

    def __init__(self, pacer: Pacer, spend: CountedCall, group: CallGroup | None) -> None:
        self._pacer = pacer
        self._spend = spend
        self.group = group
        self.ended = False

    def give_back(self) -> None:
        """End it without a call."""
        if not self.ended:
            self._pacer.finish(self, self._pacer.ledger.give_back, self._spend)

    def answered(self, response: Response) -> None:
        """End it with an answer, of whatever status."""
        if not self.ended:
            pacer, ledger = self._pacer, self._pacer.ledger
            refused = response.status == 429  # noqa: PLR2004  # Too Many Requests
            lesson = ledger.refused if refused else ledger.answered
            pacer.finish(self, lesson, self._spend, pacer.clock.now(), read_rate_limit_headers(response))

    def failed(self, error: BaseException) -> None:
        """End it without an answer; a call that was given up may have reached the server."""
        if not self.ended:
            self._pacer.finish(self, self._pacer.ledger.failed, self._spend, error)


class _Waiter(NamedTuple):
    number: int
    until: float  # the latest end of the wait, of the pacer's clock
    granted: asyncio.Future[Permit]


class _Queue:
    """Those who wait for the same: a kind of call, by an import (its group) or by anybody else (None)."""

    def __init__(self, kind: Kind, group: CallGroup | None) -> None:
        self.kind = kind
        self.group = group
        self.waiters: deque[_Waiter] = deque()

    def first(self) -> _Waiter | None:
        """Return the one who came first, of those who still wait."""
        while self.waiters and self.waiters[0].granted.done():
            self.waiters.popleft()
        return self.waiters[0] if self.waiters else None


class Pacer:
    """Gives out turns.

    Args:
        ledger: knows which call may go.
        connections: calls on the wire at the same time, at most.
        file: the ledger's file, shared with other processes; None for none.

    Attributes:
        ledger: the same.
        clock: what the ledger's moments are told by.
    """

    def __init__(self, ledger: Ledger, connections: int, file: LedgerFile | None = None) -> None:
        self.ledger = ledger
        self.clock = Clock()
        self._free = connections
        self._file = file
        self._queues: dict[tuple[Kind, CallGroup | None], _Queue] = {}
        self._number = 0
        self._closed: Callable[[], OmiError] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: int | None = None  # of the loop, once there was a call

    # What is known

    def states(self) -> tuple[QuotaState, ...]:
        """Return what is known of each policy; outside of the loop, without a look into the file."""
        try:
            now = self.clock.now()
        except RuntimeError:
            return self.ledger.states(time.time())
        if self._thread not in {None, get_ident()}:
            return self.ledger.states(time.time())
        return self._within(self.ledger.states, now)

    def wait(self, kind: Kind, *, live: bool = True) -> float:
        """Return the seconds until a call of this kind may go, as far as quotas are concerned."""
        return self.ledger.wait(kind, self.clock.now(), live=live, alone=False)

    def capacity(self, kind: Kind, seconds: float) -> float:
        """Return how many calls an import can make within so many seconds."""
        now = self.clock.now()
        return self.ledger.capacity(kind, now, now + seconds)

    def seconds_for(self, kind: Kind, calls: int) -> float:
        """Return how long so many calls of an import wait for windows, the last one of them."""
        return self.ledger.seconds_for(kind, calls, self.clock.now())

    # Turns

    def try_acquire(self, kind: Kind, *, group: CallGroup | None = None) -> Permit | None:
        """Return a turn, or None where others wait for one, or it would have to be waited for.

        Raises:
            OmiError: what `close` was given, after that.
        """
        if self._closed is not None:
            raise self._closed()
        self._thread = get_ident()
        if self._queues and (queue := self._queues.get((kind, group))) and queue.first() is not None:
            return None
        permit = self._try(kind, group)
        return permit if isinstance(permit, Permit) else None

    async def acquire(
        self, kind: Kind, *, group: CallGroup | None = None, patience: float | None = None
    ) -> Permit:
        """Wait for a turn; whoever came first gets it first.

        Args:
            kind: of the call.
            group: the import that it belongs to.
            patience: seconds to be waited for quotas at most; None for any. The wait for a connection does
                not count.

        Raises:
            RateLimitError: the wait would be longer.
            OmiError: what `close` was given, after that.
        """
        permit = self.try_acquire(kind, group=group)
        if permit is not None:
            return permit
        now = self.clock.now()
        if patience is not None and group is None:
            self._refuse_those_too_far_behind(kind, patience, now)
        queue = self._queues.get((kind, group))
        if queue is None:
            queue = self._queues[kind, group] = _Queue(kind, group)
        granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._number += 1
        until = float("inf") if patience is None else now + patience
        queue.waiters.append(_Waiter(self._number, until, granted))
        self._dispatch()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().give_back()
            raise
        finally:
            if queue.first() is None and self._queues.get((kind, group)) is queue:
                del self._queues[kind, group]
            if not self._queues:
                self._forget_timer()

    def _refuse_those_too_far_behind(self, kind: Kind, patience: float, now: float) -> None:
        """Raise where so many came first that one window does not do for all of them."""
        ahead = sum(len(queue.waiters) for queue in self._queues.values() if queue.kind == kind)
        wait = self.ledger.seconds_for(kind, ahead + 1, now, live=True)
        if ahead and wait > patience:
            raise out_of_quota(kind, wait, self.ledger.blocking(kind, now))

    def reconsider(self) -> None:
        """Look again who may go: a group has changed its mind."""
        if self._queues:
            self._dispatch()

    def finish(self, permit: Permit, lesson: Callable[[*Ts], None], *about: *Ts) -> None:
        """Take a turn back, and teach the ledger what was learned."""
        permit.ended = True
        self._free += 1
        if permit.group is not None:
            permit.group.end()
        self._within(lesson, *about)
        if self._queues:
            self._dispatch()

    def close(self, error: Callable[[], OmiError]) -> None:
        """Send everybody away, each with an error of its own."""
        self._closed = error
        for queue in self._queues.values():
            for waiter in queue.waiters:
                if not waiter.granted.done():
                    waiter.granted.set_exception(error())
        self._forget_timer()
        if self._file is not None:
            self._file.close()

    def _try(self, kind: Kind, group: CallGroup | None) -> Permit | float:
        """Give a turn, or tell how many seconds quotas ask to wait; infinity where it is not for quotas."""
        if not self._free or (group is not None and not group.free):
            return float("inf")
        return self._within(self._spend, kind, group)

    def _spend(self, kind: Kind, group: CallGroup | None) -> Permit | float:
        now = self.clock.now()  # not before: the file may have had to be waited for
        if wait := self.ledger.wait(kind, now, live=group is None):
            return wait
        spend = self.ledger.spend(kind, now)
        self._free -= 1
        if group is not None:
            group.begin()
        return Permit(self, spend, group)

    def _within(self, work: Callable[[*Ts], T], *about: *Ts) -> T:
        """Do some work on the ledger, as the file has it where there is one."""
        if self._file is None:
            return work(*about)
        return self._file.within(self.ledger, self.clock.now, lambda: work(*about))

    def _dispatch(self) -> None:
        """Give out all turns that there are, and come again when there may be more."""
        now = self.clock.now()
        soonest = float("inf")
        queues = [*self._queues.values()]
        # To be told that it must wait may end an import, and all of its waits.
        while queues := [queue for queue in queues if queue.first() is not None]:
            queue = min(queues, key=_number_of_first)
            result = self._try(queue.kind, queue.group)
            if isinstance(result, Permit):
                queue.waiters.popleft().granted.set_result(result)
                if queue.first() is not None:
                    continue
            elif result < float("inf"):
                soonest = min(soonest, result)
                self._put_off(queue, result, now)
            queues.remove(queue)
        self._forget_timer()
        if soonest < float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(soonest, LOOK_AGAIN), self._dispatch)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put_off(self, queue: _Queue, wait: float, now: float) -> None:
        """Tell those who wait that they must, and send those away who would not."""
        if not self.ledger.wait(queue.kind, now, live=queue.group is None, alone=False):
            return  # it is open: only the first call through it is waited for
        state = self.ledger.blocking(queue.kind, now, live=queue.group is None)
        for waiter in queue.waiters:
            if now + wait > waiter.until and not waiter.granted.done():
                waiter.granted.set_exception(out_of_quota(queue.kind, wait, state))
        if queue.group is not None and queue.first() is not None:
            queue.group.on_quota_wait(queue.kind, wait, state)


def _number_of_first(queue: _Queue) -> int:
    first = queue.first()
    assert first is not None  # noqa: S101  # only such queues are compared
    return first.number


def out_of_quota(kind: Kind, wait: float, state: QuotaState | None) -> RateLimitError:
    """Make the error for a call that was not made, since it would have to wait for too long."""
    what = "the server refuses all calls for now" if state is None else f"the {state.policy} quota is used up"
    return RateLimitError(
        f"{kind}: {what}, the next call may go in {wait:,.1f} s; nothing was sent",
        status=429,
        retry_after=wait,
    )
