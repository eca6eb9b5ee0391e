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
    refused call at worst.

    """

    def __init__(self) -> None:
        self._ahead = -math.inf  # of the loop's clock
        self._other = 0.0  # by how much another clock, that this one agrees with, is ahead of the wall's

    def now(self) -> float:
        """Return the time."""
        ticks = asyncio.get_running_loop().time()
        ahead = time.time() - ticks
        if ahead > self._ahead + ASLEEP:
            self._ahead = ahead
        return ticks + self._ahead + self._other

    def wall(self) -> float:
        """Return the time without a running loop: any thread may ask."""
        return time.time() + self._other

    def agree(self, theirs: float, since: float) -> None:
        """Agree with another clock, which was at `theirs` at some moment between `since` and now.

        Nothing is changed if that is possible as it is: to believe each answer to the millisecond would make
        this clock jump by what the network's way has taken.
        """
        now = self.now()
        if theirs < since:
            self._other += theirs - since
        elif theirs > now:
            self._other += theirs - now
