"""What follows a run of a job's import: the end, or another run after a while."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from omi_async.errors import OmiError, RateLimitError, ServerError, TransportError
from omi_async.importing.report import ImportReport
from omi_async.jobs.record import JobState

__all__ = ["AGAIN_AFTER", "SHORTEST_WAIT", "Verdict", "after", "in_words"]

_LIKE_A_KEY: Final = re.compile(r"omi_(dev|mcp)_\w+")

SHORTEST_WAIT: Final = 1.0
"""Seconds between two runs at least, whatever was said: each of them reads the input from its beginning."""

AGAIN_AFTER: Final = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 3600.0, 3600.0)
"""Seconds after a run that an outage ended or that left facts in doubt: four hours in all, unless more of the
input is settled meanwhile. Sooner, it would take calls from the owner's quota for nothing."""


@attrs.frozen
class Verdict:
    """What becomes of a job.

    Attributes:
        state: the job's from now on.
        error: why, in words.
        seconds: until the next run; None if there is none.
        opens: the quota window that is waited for.
    """

    state: JobState
    error: str | None = None
    seconds: float | None = None
    opens: datetime | None = None


def after(
    report: ImportReport,
    failure: Exception | None,
    options: Mapping[str, Any],
    *,
    waited: float,
    tries: int,
    now: datetime,
) -> Verdict:
    """Decide after a run that was not stopped.

    Args:
        report: of the run.
        failure: what ended it; None if it came to an end of its own.
        options: the job's.
        waited: seconds that the job has waited for quota windows before.
        tries: runs in a row before this one that settled nothing more.
        now: the moment, aware.
    """
    if failure is None and report.complete and not report.unknown and not report.not_sent:
        return Verdict("done")
    if report.resume_at is not None:
        return _wait_for_quota(report.resume_at.astimezone(UTC), options.get("max_wait"), waited, now)
    error = _in_words(report, failure)
    # With "report", the caller has asked not to look for facts in doubt: another run would tell the same.
    hopeless = options.get("on_unknown") == "report" or not _may_pass(failure)
    if hopeless or tries >= len(AGAIN_AFTER):
        return Verdict("failed", error)
    return Verdict("waiting", error, AGAIN_AFTER[tries])


def _wait_for_quota(opens: datetime, max_wait: float | None, waited: float, now: datetime) -> Verdict:
    seconds = max(SHORTEST_WAIT, (opens - now).total_seconds())
    if max_wait is not None and waited + seconds > max_wait:
        return Verdict("stopped", "a quota window opens later than `max_wait` allows")
    return Verdict("waiting", "waits for a quota window", seconds, opens)


def _may_pass(failure: Exception | None) -> bool:
    """Return whether another run may end better: after an outage, or when facts are merely in doubt."""
    if failure is None:
        return True
    return isinstance(failure.__cause__, TransportError | ServerError | RateLimitError)


def _in_words(report: ImportReport, failure: Exception | None) -> str:
    if failure is not None:
        return in_words(failure)
    if report.unknown:
        return f"{report.unknown:,} facts are in doubt: they may be stored, and were not found"
    return f"{report.not_sent:,} facts were not sent"


def in_words(failure: Exception) -> str:
    """Return what went wrong, with its cause, as it can be written down: Unicode, without a key."""
    words = str(failure) if isinstance(failure, OmiError) else f"{type(failure).__name__}: {failure}"
    if failure.__cause__ is not None and str(failure.__cause__) not in words:
        words = f"{words} ({failure.__cause__})"
    # Our own errors hold no key; but what the app raises, when it looks for a session, may.
    return _LIKE_A_KEY.sub("***", words).encode(errors="replace").decode()
