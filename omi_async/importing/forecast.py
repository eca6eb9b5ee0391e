"""What is left of an import: its calls, the quota windows that they need, and when the last one is done."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from math import ceil
from typing import Final

import attrs

from omi_async._quota.pacer import Pacer
from omi_async.constants import BATCH_SIZE

__all__ = ["Forecast", "foresee"]

LONGEST: Final = 100 * 366 * 86_400.0
"""Seconds beyond which nothing is foreseen: a date after the year 9999 cannot be written."""


@attrs.frozen
class Forecast:
    """What is left of an import, if nothing fails.

    Attributes:
        calls: batch calls yet to be made.
        wait: seconds that the last of them waits for quota windows, as far as those are known.
        windows: openings of the tightest quota's window that have to be waited for.
        done_at: when the last call is answered, at the pace of the calls so far; aware, in UTC.
    """

    calls: int
    wait: float
    windows: int
    done_at: datetime


def foresee(pacing: Pacer, facts_left: int, seconds_a_call: float) -> Forecast:
    """Make the forecast for so many facts in full batches, sent at a pace, as windows allow. In the loop."""
    calls = ceil(max(0, facts_left) / BATCH_SIZE)
    if not calls:
        return Forecast(0, 0.0, 0, datetime.fromtimestamp(time.time(), UTC))
    wait = max(pacing.seconds_for("batch", calls), pacing.wait("batch", live=False))
    windows, last = _tightest(pacing, calls)
    seconds = max(wait + last * seconds_a_call, calls * seconds_a_call)
    done_at = datetime.fromtimestamp(time.time() + min(seconds, LONGEST), UTC)
    return Forecast(calls, wait, windows, done_at)


def _tightest(pacing: Pacer, calls: int) -> tuple[int, int]:
    """Return the openings of the quota that takes longest, and the calls that go after the last of them."""
    longest, openings, last = 0.0, 0, calls
    for state in pacing.states():
        if "batch" not in state.kinds or not state.limit or not state.window:
            continue
        left = 0 if state.opens_at is not None else max(0, state.limit - state.used)
        beyond = calls - left
        if beyond > 0 and ceil(beyond / state.limit) * state.window > longest:
            openings = ceil(beyond / state.limit)
            longest, last = openings * state.window, beyond - (openings - 1) * state.limit
    return openings, last
