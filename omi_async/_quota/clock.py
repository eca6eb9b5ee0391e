"""The clock of a pacer: steady, over the machine's sleep, and in agreement with a store's."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

__all__ = ["Clock"]

ASLEEP: Final = 2.0
"""Seconds by which the clock on the wall must get ahead to mean that the machine has slept. Less is what
keeps clocks right, and would open each window too early."""


class Clock:
    """Epoch seconds that go on steadily: by the loop's clock, and over the machine's sleep.

    The loop's clock stands still while the machine sleeps, and the one on the wall may be set back. If the
    wall's gets ahead, either the machine has slept, or the user has set it: to believe the former costs a
    refused call at worst. Once it agrees with a store's clock, it leaves the wall's alone: then that store
    tells it of a sleep.

    Attributes:
        correction: seconds by which it was turned, in all, to agree with another clock.
    """

    def __init__(self) -> None:
        self.correction = 0.0
        self._ahead = -math.inf  # of the loop's clock
        self._ahead_of_wall: float | None = None  # as long as it agrees with no other one

    def now(self) -> float:
        """Return the time."""
        ticks = asyncio.get_running_loop().time()
        if self._ahead_of_wall is None:
            ahead = time.time() - ticks
            if ahead > self._ahead + ASLEEP:
                self._ahead = ahead
        return ticks + self._ahead

    def steady(self) -> float:
        """Return the time that no agreement makes jump, for what is measured on this machine alone."""
        return self.now() - self.correction

    def wall(self) -> float:
        """Return the time without a running loop: any thread may ask."""
        return time.time() + (self._ahead_of_wall or 0.0)

    def agree(self, theirs: float, since: float) -> float:
        """Agree with another clock, which was at `theirs` at some moment between `since` and now.

        Nothing is changed if that is possible as it is: to believe each answer to the millisecond would make
        this clock jump by what the network's way has taken. Returns by how many seconds it was turned.
        """
        now = self.now()
        turned = min(0.0, theirs - since) or max(0.0, theirs - now)
        self._ahead += turned
        self.correction += turned
        self._ahead_of_wall = now + turned - time.time()
        return turned
