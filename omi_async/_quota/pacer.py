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

from omi_async._api.headers import read_signs
from omi_async._api.messages import Kind, Response
from omi_async._quota.history import Spend
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacing import Crowd
from omi_async._quota.policy import QuotaState
from omi_async._quota.store import LedgerFile
from omi_async.errors import OmiError, RateLimitError

__all__ = ["Pacer", "Turn"]

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


class Turn:
    """Leave to make one call, counted and with a place on the wire; only the first of its ends counts.

    Attributes:
        crowd: the import that it belongs to.
        ended: whether the pacer has it back.
    """

    __slots__ = ("_pacer", "_spend", "crowd", "ended")

    def __init__(self, pacer: Pacer, spend: Spend, crowd: Crowd | None) -> None:
        self._pacer = pacer
        self._spend = spend
        self.crowd = crowd
        self.ended = False

    def give_back(self) -> None:
        """End it without a call."""
        if not self.ended:
            self._pacer.end_turn(self, self._pacer.ledger.give_back, self._spend)

    def answered(self, response: Response) -> None:
        """End it with an answer, of whatever status."""
        if not self.ended:
            pacer, ledger = self._pacer, self._pacer.ledger
            refused = response.status == 429  # noqa: PLR2004  # Too Many Requests
            lesson = ledger.refused if refused else ledger.answered
            pacer.end_turn(self, lesson, self._spend, pacer.clock.now(), read_signs(response))

    def failed(self, error: BaseException) -> None:
        """End it without an answer; a call that was given up may have reached the server."""
        if not self.ended:
            self._pacer.end_turn(self, self._pacer.ledger.failed, self._spend, error)


class _Waiter(NamedTuple):
    number: int
    until: float  # the latest end of the wait, of the pacer's clock
    granted: asyncio.Future[Turn]


class _Queue:
    """Those who wait for the same: a kind of call, by an import (its crowd) or by anybody else (None)."""

    def __init__(self, kind: Kind, crowd: Crowd | None) -> None:
        self.kind = kind
        self.crowd = crowd
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
        self._queues: dict[tuple[Kind, Crowd | None], _Queue] = {}
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

    def turn_at_once(self, kind: Kind, *, crowd: Crowd | None = None) -> Turn | None:
        """Return a turn, or None where others wait for one, or it would have to be waited for.

        Raises:
            OmiError: what `close` was given, after that.
        """
        if self._closed is not None:
            raise self._closed()
        self._thread = get_ident()
        if self._queues and (queue := self._queues.get((kind, crowd))) and queue.first() is not None:
            return None
        turn = self._try(kind, crowd)
        return turn if isinstance(turn, Turn) else None

    async def turn(self, kind: Kind, *, crowd: Crowd | None = None, patience: float | None = None) -> Turn:
        """Wait for a turn; whoever came first gets it first.

        Args:
            kind: of the call.
            crowd: the import that it belongs to.
            patience: seconds to be waited for quotas at most; None for any. The wait for a connection does
                not count.

        Raises:
            RateLimitError: the wait would be longer.
            OmiError: what `close` was given, after that.
        """
        turn = self.turn_at_once(kind, crowd=crowd)
        if turn is not None:
            return turn
        now = self.clock.now()
        if patience is not None and crowd is None:
            self._refuse_those_too_far_behind(kind, patience, now)
        queue = self._queues.get((kind, crowd))
        if queue is None:
            queue = self._queues[kind, crowd] = _Queue(kind, crowd)
        granted: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
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
            if queue.first() is None and self._queues.get((kind, crowd)) is queue:
                del self._queues[kind, crowd]
            if not self._queues:
                self._forget_timer()

    def _refuse_those_too_far_behind(self, kind: Kind, patience: float, now: float) -> None:
        """Raise where so many came first that one window does not do for all of them."""
        ahead = sum(len(queue.waiters) for queue in self._queues.values() if queue.kind == kind)
        wait = self.ledger.seconds_for(kind, ahead + 1, now, live=True)
        if ahead and wait > patience:
            raise out_of_quota(kind, wait, self.ledger.blocking(kind, now))

    def poke(self) -> None:
        """Look again who may go: a crowd has changed its mind."""
        if self._queues:
            self._dispatch()

    def end_turn(self, turn: Turn, lesson: Callable[[*Ts], None], *about: *Ts) -> None:
        """Take a turn back, and teach the ledger what was learned."""
        turn.ended = True
        self._free += 1
        if turn.crowd is not None:
            turn.crowd.end()
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

    def _try(self, kind: Kind, crowd: Crowd | None) -> Turn | float:
        """Give a turn, or tell how many seconds quotas ask to wait; infinity where it is not for quotas."""
        if not self._free or (crowd is not None and not crowd.free):
            return float("inf")
        return self._within(self._spend, kind, crowd)

    def _spend(self, kind: Kind, crowd: Crowd | None) -> Turn | float:
        now = self.clock.now()  # not before: the file may have had to be waited for
        if wait := self.ledger.wait(kind, now, live=crowd is None):
            return wait
        spend = self.ledger.spend(kind, now)
        self._free -= 1
        if crowd is not None:
            crowd.begin()
        return Turn(self, spend, crowd)

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
            result = self._try(queue.kind, queue.crowd)
            if isinstance(result, Turn):
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
        if not self.ledger.wait(queue.kind, now, live=queue.crowd is None, alone=False):
            return  # it is open: only the first call through it is waited for
        state = self.ledger.blocking(queue.kind, now, live=queue.crowd is None)
        for waiter in queue.waiters:
            if now + wait > waiter.until and not waiter.granted.done():
                waiter.granted.set_exception(out_of_quota(queue.kind, wait, state))
        if queue.crowd is not None and queue.first() is not None:
            queue.crowd.parked(queue.kind, wait, state)


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
