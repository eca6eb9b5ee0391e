"""The second lane: facts that go singly while the window of batch calls is shut.

A single create has a window of its own (backend), so it can shorten an import that waits. It is not the
default: the singles spend the window of the account's other writes too, and 25 of them what one batch does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from omi_async.constants import BATCH_SIZE
from omi_async.importing.calls import Calls, WindowShut
from omi_async.importing.delivery import Delivery
from omi_async.importing.item import Item

__all__ = ["Lanes", "TwoLanes"]

Lanes = Literal["batch", "both"]

WORTH_WHILE: Final = 5.0
"""Seconds that the window of batch calls is yet shut, from where on single facts are worth their calls."""


class TwoLanes:
    """Brings the workers' chunks to the server, whole or fact by fact.

    Args:
        calls: knows which window is open, and waits for it.
        delivery: sends the facts.
        exhausted: tells whether the input was read and given out to its end.
        give_back: takes facts that are to be in the next chunks.
    """

    def __init__(
        self,
        calls: Calls,
        delivery: Delivery,
        exhausted: Callable[[], bool],
        give_back: Callable[[list[Item]], None],
    ) -> None:
        self._give_back = give_back
        self._calls = calls
        self._pacing = calls.pacing
        self._delivery = delivery
        self._exhausted = exhausted
        self._broken: list[Item] = []  # the one chunk from which single facts are taken
        self._left = 0
        self._waiting = 0  # chunks that wait for the window of batch calls

    async def bring(self, chunk: list[Item]) -> bool:
        """Send a chunk, or facts of it; return whether it was sent, and else leave in it what was not."""
        if await self._send_singly(chunk):
            return not chunk  # what is left is to be filled again
        shut = self._shut() > 0
        self._waiting += shut
        try:
            await self._delivery.deliver(chunk, patient=shut)
        except WindowShut:
            return False
        finally:
            self._waiting -= shut
        return True

    async def _send_singly(self, chunk: list[Item]) -> bool:
        """Send single facts while that is worth it; return whether the chunk was broken up for that.

        All workers take them from the same chunk, so that the others stay whole. Whoever ends first takes
        what is left of it, or gives it back where he has a chunk of his own.
        """
        self._left += len(chunk)
        broken = False
        try:
            while self._is_worth_it():
                if not self._broken or len(chunk) < BATCH_SIZE:
                    self._broken += chunk
                    chunk.clear()
                    broken = True
                if not self._broken:
                    break
                if self._pacing.wait("create", live=False):
                    await self._calls.until_open("create", "batch")
                else:
                    await self._send_one(self._broken.pop())
            left, self._broken = self._broken, []
            if chunk:
                self._left -= len(left)
                self._give_back(left)
            else:
                chunk += left
        finally:
            self._left -= len(chunk)
        return broken

    async def _send_one(self, item: Item) -> None:
        """Send a fact singly, unless that turns out to mean waiting: then there may be a better way."""
        self._left -= 1
        try:
            await self._delivery.deliver_single(item, patient=False)
        except WindowShut:
            self._left += 1
            self._broken.append(item)

    def _shut(self) -> float:
        return self._pacing.wait("batch", live=False)

    def _is_worth_it(self) -> bool:
        """Whether another single fact ends the import sooner.

        While there is more to read, each does: it is one less for the windows to come. At the end it does
        only if all that is left can go singly; else a batch of the next window must be waited for anyway.
        """
        shut = self._shut()
        if shut < WORTH_WHILE or self._pacing.wait("create", live=False) >= shut:
            return False
        if not self._exhausted():
            return True
        return not self._waiting and self._left <= self._pacing.capacity("create", shut)
