"""Who may call now: the ledger of quotas, the connections, and those who wait, in the order of their coming.

All waiting of a Session stands in one place, so that a window that opens is spent by those who came first,
and by not one call more than it holds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from omi_async._api.messages import Kind
from omi_async._quota.clock import Clock
from omi_async._quota.keeper import FileKeeper, Keeper, Verdict
from omi_async._quota.ledger import Ledger
from omi_async._quota.permit import TOO_MANY_REQUESTS, CallGroup, Permit
from omi_async._quota.policy import QuotaState
from omi_async._quota.queue import Queue, Queues, Waiter
from omi_async._quota.sharing import SharedRecord
from omi_async._quota.store import LedgerFile
from omi_async._quota.storekeeper import StoreKeeper
from omi_async._quota.window import CountedCall
from omi_async.errors import OmiError, RateLimitError

__all__ = ["Pacer"]

LOOK_AGAIN: Final = 30.0
"""Seconds after which a wait is looked at again: while the machine sleeps, its timers stand still, and a
window that opened meanwhile would be waited for once more."""


class _Ask(NamedTuple):
    """A permit that is given out if the store counts its call."""

    queue: Queue
    waiter: Waiter
    permit: Permit
    probe: bool


class Pacer:
    """Gives out permits.

    Args:
        ledger: knows which call may go.
        connections: calls on the wire at the same time, at most.

    Attributes:
        ledger: the same.
        clock: what the ledger's moments are told by.
        used_at: when a permit was last asked for, by the steady clock.
    """

    def __init__(self, ledger: Ledger, connections: int) -> None:
        self.ledger = ledger
        self.clock = Clock()
        self.used_at = -math.inf
        self._connections = connections
        self._free = connections
        self._all_back = asyncio.Event()
        self._keeper: Keeper | None = None
        self._queues = Queues()
        self._asks: dict[CountedCall, _Ask] = {}
        self._number = 0
        self._held: set[Kind] = set()  # what has waited for a window since it was last let through
        self._closed: Callable[[], OmiError] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What is known

    def states(self) -> tuple[QuotaState, ...]:
        """Return what is known of each policy. Any thread may ask."""
        return self.ledger.states(self.clock.wall())

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
        permit = self.at_once(kind, group=group)
        if permit is not None:
            return permit
        now = self.used_at = self.clock.now() - self.clock.correction
        self._number += 1
        until = math.inf if patience is None else now + patience
        waiter = Waiter(self._number, now, until, asyncio.get_running_loop().create_future())
        self._queues.add(kind, group, waiter)
        try:
            if self._keeper is not None:
                await self._keeper.open()
            self._dispatch()
            if group is None and not waiter.granted.done():
                self._refuse_if_too_far_behind(waiter, kind)
            return await waiter.granted
        except asyncio.CancelledError:
            if not waiter.granted.cancel():
                with suppress(asyncio.CancelledError, OmiError):
                    # It was granted and cancelled in one turn of the loop.
                    waiter.granted.result().give_back()
            raise
        finally:
            self._queues.drop_if_empty(kind, group)
            if not self._queues:
                self._forget_timer()

    def at_once(self, kind: Kind, *, group: CallGroup | None = None) -> Permit | None:
        """Return a permit if nobody waits, and there is nothing to wait for; else None: `acquire` waits.

        The first step of `acquire`, for those to whom it is worth something to know that they need not wait:
        nearly all calls of an import.

        Raises:
            OmiError: what `close` was given, after that.
        """
        if self._closed is not None:
            raise self._closed()
        if self._queues or kind in self._held or self._keeper is not None or not self._free:
            return None
        if group is not None and not group.free:
            return None
        now = self.clock.now()
        if self.ledger.wait(kind, now, live=group is None) or self.ledger.head_start_left(kind, now):
            return None
        self.used_at = now
        return self._permit(self.ledger.spend(kind, now), group, waited=0.0)

    def _refuse_if_too_far_behind(self, waiter: Waiter, kind: Kind) -> None:
        """Send a caller away if so many came first that one window does not do for all of them.

        It could wait and see. But a web request that waits in vain is worse than one that is told at once.
        """
        now = self.clock.now()
        waiting = self._queues.waiting(kind)
        wait = self.ledger.seconds_for(kind, waiting, now, live=True)
        if waiting > 1 and wait and self.clock.steady() + wait > waiter.until:
            waiter.granted.set_exception(out_of_quota(kind, wait, self.ledger.blocking(kind, now)))

    def reconsider(self) -> None:
        """Look again who may go: a group has changed its mind."""
        if self._queues and (self._keeper is None or self._keeper.is_open):
            self._dispatch()

    def settle(self, permit: Permit, learn: Callable[..., object], *what: Any) -> None:
        """Have the ledger learn what has become of a call, take back its permit, and let the next ones go."""
        learn(self.ledger, permit.call, *what)
        self._release(permit)
        if self._keeper is not None:
            self._keeper.note(permit.call, learn, what)
            if self._keeper.has_news:
                self._keeper.begin()
        self.reconsider()

    def _release(self, permit: Permit) -> None:
        self._free += 1
        if self._free == self._connections:
            self._all_back.set()
        if permit.group is not None:
            permit.group.end()

    def close(self, error: Callable[[], OmiError]) -> None:
        """Send everybody away, each with an error of its own."""
        self._closed = error
        for waiter in [*self._queues.waiters(), *[ask.waiter for ask in self._asks.values()]]:
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
        if self._keeper is not None:
            self._keeper.tidy(now)
        soonest = math.inf
        queues = [*self._queues.values()]
        while queues:
            # To be told that it must wait may end an import, and all its waits: look each time who is left.
            queue = min(queues, key=Queue.number_of_first)
            if queue.first() is None:
                break
            wait = self._wait_of(queue, now)
            if wait:
                soonest = min(soonest, wait)
                queues.remove(queue)
            else:
                self._grant(queue, queue.waiters.popleft(), now)
        if self._timer is not None:
            self._forget_timer()
        if soonest < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(soonest, LOOK_AGAIN), self._look_again)
        if self._asks and self._keeper is not None:
            self._keeper.begin()

    def _look_again(self) -> None:
        """Let those go who may by now; in a store, what the others wait for may have changed."""
        self._dispatch()
        if self._queues and self._keeper is not None and self._keeper.shared:
            self._keeper.begin()

    def _wait_of(self, queue: Queue, now: float) -> float:
        """Return the seconds until a queue is worth another look: 0 for now.

        They are infinite if nothing but the end of a permit, or a group's change of mind, makes a difference.
        """
        kind, live = queue.kind, queue.group is None
        if not self._free or (queue.group is not None and not queue.group.free):
            return math.inf
        wait = self.ledger.wait(kind, now, live=live)
        if wait and any(ask.queue.kind == kind for ask in self._asks.values()):
            # To be told that it must wait may end an import, and those who asked before would go no more,
            # though they are counted: a call of the window would be lost.
            return math.inf
        if wait:
            self._held.add(kind)
            self._put_off(queue, wait, now)
            return wait
        # Neither the wait for a probe nor the one for a store is for a quota: no caller is sent away.
        wait = self.ledger.head_start_left(kind, now)
        if wait:
            self._held.discard(kind)  # there is one already, perhaps of another process
        return wait or (0.0 if live or self._keeper is None else self._keeper.stall())

    def _grant(self, queue: Queue, waiter: Waiter, now: float) -> None:
        """Give out a permit, or ask for it."""
        probe = queue.kind in self._held
        self._held.discard(queue.kind)
        call = self.ledger.spend(queue.kind, now, probe=probe)
        permit = self._permit(call, queue.group, queue.waited(waiter, now - self.clock.correction))
        if self._keeper is not None:
            self._keeper.spend(call)
            if self._keeper.asks:
                self._asks[call] = _Ask(queue, waiter, permit, probe)
                return
        waiter.granted.set_result(permit)

    def _permit(self, call: CountedCall, group: CallGroup | None, waited: float) -> Permit:
        self._free -= 1
        self._all_back.clear()
        if group is not None:
            group.begin()
        return Permit(self, call, group, waited)

    def _put_off(self, queue: Queue, wait: float, now: float) -> None:
        """Tell those who wait that they must, and send those away who would not."""
        steady = now - self.clock.correction
        queue.put_off(steady, steady + wait)
        state = self.ledger.blocking(queue.kind, now, live=queue.group is None)
        for waiter in queue.waiters:
            if steady + wait > waiter.until and not waiter.granted.done():
                waiter.granted.set_exception(out_of_quota(queue.kind, wait, state))
        if queue.group is not None and queue.first() is not None:
            queue.group.on_quota_wait(queue.kind, wait, state)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What others know

    def keep(self, file: LedgerFile) -> None:
        """Keep the ledger in a file, from the first call on."""
        self._keeper = FileKeeper(file, self.ledger, self.clock, self._heed)

    def share(self, record: SharedRecord) -> None:
        """Count in a store from now on, unless the ledger is kept already; calls on the wire stay here."""
        if self._keeper is None:
            self._keeper = StoreKeeper(record, self.ledger, self.clock, self._heed)

    async def open(self) -> None:
        """Read what is kept, if anything is; once, however many ask."""
        if self._keeper is not None:
            await self._keeper.open()

    async def flush(self) -> None:
        """Tell what is not told yet."""
        if self._keeper is not None:
            await self._keeper.flush()

    async def save(self) -> None:
        """Tell what is not told yet; the last thing that is done with the keeper."""
        await self.flush()
        self._keeper = None

    def _heed(self, verdict: Verdict) -> None:
        """Give out the permits whose calls were counted; all others who asked come first in their queues."""
        for call in reversed(verdict.refused):
            ask = self._asks.pop(call)
            self._release(ask.permit)
            self._queues.put_back(ask.queue, ask.waiter)
            if ask.probe:
                self._held.add(call.kind)
        for call in verdict.counted:
            ask = self._asks.pop(call)
            if ask.waiter.granted.done():
                ask.permit.give_back()
            else:
                ask.waiter.granted.set_result(ask.permit)
        self.reconsider()


def out_of_quota(kind: Kind, wait: float, state: QuotaState | None) -> RateLimitError:
    """Make the error for a call that was not made, since it would have to wait for too long."""
    what = "the server refuses all calls for now" if state is None else f"the {state.policy} quota is used up"
    return RateLimitError(
        f"{kind}: {what}, the next call may go in {wait:,.1f} s; nothing was sent",
        status=TOO_MANY_REQUESTS,
        retry_after=wait,
    )
