"""What follows a run of a job, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omi_async import (
    APIError,
    AuthenticationError,
    ConnectError,
    ImportReport,
    ImportStoppedError,
    OmiError,
    ServerError,
)
from omi_async.jobs.verdict import AGAIN_AFTER, SHORTEST_WAIT, Verdict, after

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def decide(
    report: ImportReport,
    failure: Exception | None = None,
    *,
    waited: float = 0.0,
    tries: int = 0,
    **options: Any,
) -> Verdict:
    return after(report, failure, options, waited=waited, tries=tries, now=NOW)


def stopped(cause: Exception) -> ImportStoppedError:
    error = ImportStoppedError("the import could not go on", ImportReport())
    error.__cause__ = cause
    return error


WHOLE = ImportReport(pulled=3, created=1, invalid=1, rejected=1, complete=True)


def test_done_is_what_was_read_to_its_end_and_left_nothing_open() -> None:
    assert decide(WHOLE) == Verdict("done")
    assert decide(ImportReport(complete=True)) == Verdict("done")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (ImportReport(pulled=3, created=1, unknown=2, complete=True), "2 facts are in doubt"),
        (ImportReport(pulled=3, created=1, not_sent=2, complete=True), "2 facts were not sent"),
        (ImportReport(pulled=3, created=3, complete=False), "0 facts were not sent"),
    ],
)
def test_what_is_open_is_tried_again_a_bounded_number_of_times(report: ImportReport, words: str) -> None:
    for tries, seconds in enumerate(AGAIN_AFTER):
        verdict = decide(report, tries=tries)
        assert (verdict.state, verdict.seconds) == ("waiting", seconds)
        assert words in str(verdict.error)
    verdict = decide(report, tries=len(AGAIN_AFTER))
    assert (verdict.state, verdict.seconds) == ("failed", None)
    assert words in str(verdict.error)


def test_who_wants_doubt_reported_is_not_made_to_wait() -> None:
    report = ImportReport(pulled=1, unknown=1, complete=True)
    assert decide(report, on_unknown="report").state == "failed"


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (stopped(ConnectError("refused")), "waiting"),
        (stopped(ServerError("503", status=503, detail=None, headers={})), "waiting"),
        (stopped(AuthenticationError("401", status=401, detail=None, headers={})), "failed"),
        (stopped(OSError("the source")), "failed"),
        (KeyError("dana"), "failed"),
        (OmiError("no such option"), "failed"),
    ],
)
def test_an_outage_may_pass_and_nothing_else(failure: Exception, state: str) -> None:
    verdict = decide(ImportReport(pulled=1, not_sent=1), failure)
    assert verdict.state == state
    assert str(failure.__cause__ or failure) in str(verdict.error)
    assert isinstance(failure, APIError) or verdict.error


@pytest.mark.parametrize(("ahead", "seconds"), [(3600, 3600.0), (0, SHORTEST_WAIT), (-60, SHORTEST_WAIT)])
def test_a_window_is_waited_for_to_the_second(ahead: float, seconds: float) -> None:
    opens = NOW + timedelta(seconds=ahead)
    report = ImportReport(pulled=2, created=1, not_sent=1, resume_at=opens)
    assert decide(report) == Verdict("waiting", "waits for a quota window", seconds, opens)


def test_max_wait_counts_what_was_waited_before() -> None:
    report = ImportReport(pulled=1, not_sent=1, resume_at=NOW + timedelta(seconds=100))
    assert decide(report, max_wait=100).state == "waiting"
    assert decide(report, max_wait=100, waited=1).state == "stopped"
    assert decide(report, max_wait=99).state == "stopped"
    assert decide(report, waited=1e9).state == "waiting"
