"""The second lane: facts that go singly while the window of batch calls is shut.

A single create has a window of its own (backend), so it can shorten an import that waits. It is not the
default: the singles spend the window of the account's other writes too, and 25 of them what one batch does.
"""

from __future__ import annotations

from typing import Final, Literal

from omi_async.importing.calls import Calls
from omi_async.importing.intake import Intake

__all__ = ["TwoLanes"]

WORTH_WHILE: Final = 5.0
"""Seconds that the window of batch calls is yet shut, from which on single facts are worth their calls."""


class TwoLanes:
    """Chooses how the next facts go.

    Args:
        calls: knows which window is open, and waits for it.
        intake: knows how much is left.
    """

    def __init__(self, calls: Calls, intake: Intake) -> None:
        self._calls = calls
        self._pacing = calls.pacing
        self._intake = intake

    async def choose(self) -> Literal["batch", "create"]:
        """Wait until a batch or a single fact may go; return which. Raises `ImportHalted` once stopped."""
        while (shut := self._pacing.wait("batch", live=False)) > 0:
            if not self._is_worth_it(shut):
                await self._calls.until_open("batch", "batch")
            elif self._pacing.wait("create", live=False) > 0:
                await self._calls.until_open("create", "batch")
            else:
                return "create"
        return "batch"

    def _is_worth_it(self, shut: float) -> bool:
        """Whether single facts end the import sooner while batches are shut for so many seconds.

        While there is more to read, each does: it is one less for the windows to come. At the end they do
        only if all that is left can go singly; else a batch of the next window must be waited for anyway.
        """
        if shut < WORTH_WHILE or self._pacing.wait("create", live=False) >= shut:
            return False
        left = self._intake.left
        return left is None or left <= self._pacing.capacity("create", shut)
