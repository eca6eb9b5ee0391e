"""What is left of an import: its calls, the quota windows that they need, and when the last one is done."""

from __future__ import annotations

import time
from bisect import bisect_right
from datetime import UTC, datetime
from math import ceil
from typing import Final

import attrs

from omi_async._quota.pacer import Pacer
from omi_async.constants import BATCH_SIZE

__all__ = ["CallPace", "Forecast", "foresee"]

COUNTED: Final = 100
"""Windows that are counted one by one; beyond them they are taken to come as often as these."""

LONGEST: Final = 100 * 366 * 86_400.0
"""Seconds, beyond which nothing is foreseen."""


@attrs.frozen
class Forecast:
    """What is left of an import, if nothing fails.

    Attributes:
        calls: batch calls yet to be made.
        wait: seconds that the last of them waits for quota windows, as far as those are known.
        windows: openings of quota windows that have to be waited for; beyond 100 an estimate.
        done_at: when the last call is answered, at the pace of the calls so far; aware, in UTC.
    """

    calls: int
    wait: float
    windows: int
    done_at: datetime


class CallPace:
    """How long an import's calls take, the waits for quota windows left out. All moments are the loop's."""

    def __init__(self) -> None:
        self._busy = 0.0
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Note that the import begins."""
        self._since = now

    def park(self, now: float, wait: float) -> None:
        """Note that no call goes for so many seconds."""
        if wait > 0:
            self._busy = self.seconds(now)
            self._since = now + wait

    def seconds(self, now: float) -> float:
        """Return the seconds in which calls could go."""
        return self._busy + (0.0 if self._since is None else max(0.0, now - self._since))


def foresee(pacing: Pacer, facts_left: int, seconds_a_call: float) -> Forecast:
    """Make the forecast for so many facts in full batches, sent at a pace, as windows allow. In the loop."""
    calls = ceil(max(0, facts_left) / BATCH_SIZE)
    wait, windows, last = _windows(pacing, calls)
    seconds = max(wait + last * seconds_a_call, calls * seconds_a_call)
    done_at = datetime.fromtimestamp(time.time() + min(seconds, LONGEST), UTC)
    return Forecast(calls, wait, windows, done_at)


def _windows(pacing: Pacer, calls: int) -> tuple[float, int, int]:
    """Return the wait of the last call, the openings until then, and the calls that go after the last one."""
    if not calls:
        return 0.0, 0, 0

    def waits(number: int) -> float:
        return pacing.seconds_for("batch", number)

    opened, openings, gone, before = 0.0, 0, 0, 0
    while openings < COUNTED:
        gone = bisect_right(range(1, calls + 1), opened, lo=gone, key=waits)
        if gone >= calls:
            break
        before = gone
        opened = waits(gone + 1)
        openings += 1
    wait = max(waits(calls), pacing.wait("batch", live=False))
    if opened and wait > opened:
        openings = max(openings, round(openings * wait / opened))
    return wait, openings, calls - before
