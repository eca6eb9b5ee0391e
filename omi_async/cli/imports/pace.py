"""What can be told of an import under way: how fast it goes, what it waits for, when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from omi_async.cli.format import countdown, local_time, window_in_words
from omi_async.cli.imports.inputs import Inputs
from omi_async.importing.report import ImportReport

if TYPE_CHECKING:
    from omi_async._quota.policy import QuotaState
    from omi_async.importing.forecast import Forecast

__all__ = ["News", "Pace", "in_words", "seconds_to_wait"]

SAME: Final = 2.0
"""Seconds by which two accounts of the same opening may differ."""


class Pace:
    """How fast an import goes, and how long it will take as far as the input's size tells.

    Attributes:
        forecast: foresees what so many facts still take; the importer's, once there is one.
    """

    def __init__(self, inputs: Inputs, clock: Callable[[], float] = time.monotonic) -> None:
        self._inputs = inputs
        self._clock = clock
        self._started = clock()
        self.forecast: Callable[[int], Forecast] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._started

    def rate(self, report: ImportReport) -> float:
        """Return the facts that are done with in a second."""
        return (report.settled - report.not_sent) / max(self.elapsed, 0.001)

    def total(self, report: ImportReport) -> int | None:
        """Estimate the number of facts in all."""
        fraction = self._inputs.fraction()
        return max(report.pulled, round(report.pulled / fraction)) if fraction else None

    def done_at(self, report: ImportReport) -> datetime | None:
        """Estimate when the import will be done, its waits for quota windows included; None if unknown."""
        total, state = self.total(report), report.waiting_for
        if total is None or self.forecast is None or not (report.requests or state):
            return None
        if state is not None and state.window is None:
            return None  # how many such windows it takes is known, but not how long they are
        # As many of those to come as of those before will need no call.
        free = (report.duplicate + report.invalid) / max(1, report.settled)
        return self.forecast(round((total - report.settled) * (1 - free))).done_at

    def left(self, report: ImportReport) -> float | None:
        """Estimate the seconds that are left."""
        done_at = self.done_at(report)
        return None if done_at is None else max(0.0, done_at.timestamp() - time.time())


class News:
    """Lets a report pass at most once in so many seconds, and at once if a wait for a window begins."""

    def __init__(self, every: float, *, first: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._last = float("-inf") if first else clock()
        self._known: dict[str, datetime] = {}

    def is_due(self, *, urgent: bool = False) -> bool:
        """Return whether something may be shown now; then it counts as shown."""
        due = urgent or self._clock() - self._last >= self._every
        if due:
            self._last = self._clock()
        return due

    def wait_begins(self, state: QuotaState | None) -> bool:
        """Return whether this wait was not told of yet, or ends at another time than told."""
        if state is None or state.opens_at is None:
            return False
        known = self._known.get(state.policy)
        self._known[state.policy] = state.opens_at
        return known is None or abs((state.opens_at - known).total_seconds()) > SAME


def seconds_to_wait(report: ImportReport) -> float:
    """Return for how long the import still waits for a quota window."""
    state = report.waiting_for
    if state is None or state.opens_at is None:
        return 0.0
    return max(0.0, state.opens_at.timestamp() - time.time())


def in_words(report: ImportReport, pace: Pace) -> Callable[[], str] | None:
    """Return what says, now and later, what is waited for and for how long; None if nothing is."""
    state = report.waiting_for
    if state is None or (opens_at := state.opens_at) is None or report.resume_at is not None:
        return None  # or it ends, and waits no more
    total, done_at = pace.total(report), pace.done_at(report)
    of = f" of {total:,}" if total is not None else ""
    done = f", done about {local_time(done_at)}" if done_at is not None else ""
    window = window_in_words(state)

    def words() -> str:
        left = countdown(opens_at.timestamp() - time.time())
        return f"waiting for {window}, opens in {left}, {report.settled:,}{of} facts{done}"

    return words
