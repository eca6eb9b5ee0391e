"""How long calls will have to wait, by all windows that count them together."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from omi_async._quota.window import Window

__all__ = ["seconds_for"]


@attrs.define
class _Room:
    """What a window has left, and will have.

    Attributes:
        share: calls that each window allows.
        length: seconds; 0 while it is unknown.
        left: calls in the open one.
        ends: when that is over; None where the next call opens it.
    """

    share: float
    length: float
    left: float
    ends: float | None

    def spend(self, calls: float, moment: float) -> float:
        """Spend calls; return when there is room for another."""
        self.left -= calls
        if self.ends is None and (calls or self.left <= 0):
            self.ends = moment + self.length
        return moment if self.ends is None or self.left > 0 else self.ends

    def roll(self, moment: float) -> None:
        """Close it once its end has come."""
        if self.ends is not None and self.ends <= moment:
            self.left, self.ends = self.share, None


def seconds_for(windows: Iterable[Window], calls: float, now: float, reserve: float = 0.0) -> float:
    """Return how long so many calls have to wait, the last one of them.

    Each burst is as large as all windows allow, and waited for is the one that is used up. Once all of them
    begin anew together, it goes on as it went since they last did.
    """
    rooms = [
        _Room(window.share(-math.inf, reserve), window.length or 0.0, *window.rest(now, reserve))
        for window in windows
    ]
    moment, before = now, None
    while calls > (burst := max(0.0, min((room.left for room in rooms), default=math.inf))):
        calls -= burst
        moment = max([room.spend(burst, moment) for room in rooms])
        for room in rooms:
            room.roll(moment)
        if all(room.ends is None for room in rooms):
            if before is not None:
                cycles = (calls - 1) // (before[1] - calls)
                moment, calls = moment + cycles * (moment - before[0]), calls - cycles * (before[1] - calls)
            before = moment, calls
    return moment - now
