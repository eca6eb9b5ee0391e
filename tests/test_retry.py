"""Which failures are tried again, and after which waits."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import OmiError, Retry, errors
from omi_async._api.headers import parse_http_date, parse_retry_after
from omi_async._api.retry import wait_after, waits, worth_retrying
from omi_async.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    InvalidFactError,
    InvalidRequestError,
    JournalError,
    JournalInUseError,
    ListLimitError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    TransportError,
)
from omi_async.importing.report import ImportFailedError, ImportReport, ImportStoppedError

ALWAYS, IDEMPOTENT, NEVER = (True, True), (True, False), (False, False)
"""Worth retrying: (when idempotent, when not)."""

TABLE: list[tuple[BaseException, tuple[bool, bool]]] = [
    # Never reached, or refused before the work, and may pass.
    (ConnectError("m"), ALWAYS),
    (RateLimitError("m"), ALWAYS),
    (RateLimitError("m", retry_after=3600.0), ALWAYS),
    (ServerError("m", status=503, maybe_applied=False), ALWAYS),
    (APIError("m", status=421), ALWAYS),
    (APIError("m", status=423), ALWAYS),
    (APIError("m", status=425), ALWAYS),
    # May have been applied.
    (ResponseLostError("m"), IDEMPOTENT),
    (ServerError("m", status=500), IDEMPOTENT),
    (ServerError("m", status=504), IDEMPOTENT),
    (ServerError("m", status=503, retry_after=1.0), IDEMPOTENT),
    # Will be no different the next time.
    (OmiError("m"), NEVER),
    (TransportError("m"), NEVER),
    (APIError("m", status=418), NEVER),
    (APIError("m", status=302), NEVER),
    (AuthenticationError("m", status=401), NEVER),
    (PaymentRequiredError("m", status=402), NEVER),
    (PermissionDeniedError("m", status=403), NEVER),
    (NotFoundError("m", status=404), NEVER),
    (ConflictError("m", status=409), NEVER),
    (InvalidRequestError("m", status=422), NEVER),
    (ResponseFormatError("m"), NEVER),
    (ConfigurationError("m"), NEVER),
    (InvalidFactError("m"), NEVER),
    (JournalError("m"), NEVER),
    (ListLimitError("m", read=5000), NEVER),
    (JournalInUseError("m"), NEVER),
    (ImportStoppedError("m", ImportReport()), NEVER),
    (ImportFailedError("m", [OmiError("m")]), NEVER),
    (ValueError("m"), NEVER),
    (TimeoutError("m"), NEVER),
    (KeyboardInterrupt(), NEVER),
]


@pytest.mark.parametrize(("error", "worth"), TABLE, ids=lambda cell: repr(cell)[:60])
def test_what_is_worth_another_try(error: BaseException, worth: tuple[bool, bool]) -> None:
    assert worth_retrying(error, idempotent=True) is worth[0]
    assert worth_retrying(error, idempotent=False) is worth[1]


def test_the_table_is_complete() -> None:
    assert {type(error).__name__ for error, _ in TABLE} >= set(errors.__all__)


def test_nothing_that_may_have_been_applied_is_made_again_unless_twice_is_once() -> None:
    for error, _ in TABLE:
        if getattr(error, "maybe_applied", False):
            assert not worth_retrying(error, idempotent=False)


LOST = ResponseLostError("m")


def test_the_longest_waits_double_up_to_the_cap_and_none_follows_the_last_attempt() -> None:
    assert [*waits(Retry())] == [0.5, 1.0, 2.0, None]
    assert [*waits(Retry(attempts=7, base=1.0, cap=5.0))] == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, None]
    assert [*waits(Retry(attempts=1))] == [None]


@pytest.mark.parametrize(("attempts", "made"), [(None, 4), (0, 1), (1, 1), (2, 2), (2_000, 2_000)])
def test_a_call_may_have_a_number_of_attempts_of_its_own(attempts: int | None, made: int) -> None:
    # Catches: an overflow of 2**1024 too.
    assert len([*waits(Retry(), attempts)]) == made


@pytest.mark.parametrize("error", [LOST, RateLimitError("m", retry_after=1.0)])
def test_after_the_last_attempt_there_is_no_wait(error: OmiError) -> None:
    assert wait_after(error, None, idempotent=True, chance=0.5) is None


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 2.0), (0.5, 3.0), (1.0, 4.0)])
def test_chance_takes_up_to_a_half_of_a_wait(chance: float, seconds: float) -> None:
    assert wait_after(LOST, 4.0, idempotent=True, chance=chance) == seconds


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("asked", "seconds"), [(7.0, 7.0), (3600.0, 3600.0), (0.3, 0.3), (0.0, 0.05), (0.01, 0.05)]
)
def test_a_wait_that_was_asked_for_is_kept_in_full(chance: float, asked: float, seconds: float) -> None:
    error = ServerError("m", status=503, maybe_applied=False, retry_after=asked)
    assert wait_after(error, 1.0, idempotent=False, chance=chance) == seconds


def test_after_a_429_the_next_permit_is_what_is_waited_for() -> None:
    assert wait_after(RateLimitError("m", retry_after=7.0), 1.0, idempotent=False, chance=0.5) == 0.0


@given(
    st.builds(
        Retry,
        attempts=st.integers(1, 50),
        base=st.floats(1e-9, 1e9, exclude_min=True),
        cap=st.floats(1e-9, 1e9, exclude_min=True),
    ),
    st.floats(0, 1),
)
def test_a_computed_wait_is_positive_and_below_the_cap(retry: Retry, chance: float) -> None:
    *between, last = [wait_after(LOST, longest, idempotent=True, chance=chance) for longest in waits(retry)]
    assert last is None
    assert len(between) == retry.attempts - 1
    assert all(wait is not None and 0 < wait <= retry.cap for wait in between)


# Retry-After

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("0.001", 0.001),
        ("3600", 3600.0),
        ("99999999999", None),
        ("Sun, 22 Nov 2026 12:00:07 GMT", 7.0),
        ("Sunday, 22-Nov-26 12:00:07 GMT", 7.0),
        ("Sun Nov 22 12:00:07 2026", 7.0),
        ("Sun, 22 Nov 2026 13:00:00 +0100", 0.0),
        ("Sun, 22 Nov 2026 11:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        (" ", None),
        ("nan", None),
        ("inf", None),
        ("Infinity", None),
        ("-1", None),
        ("-0", None),
        ("+7", None),
        ("1e3", None),
        ("1.", None),
        (".5", None),
        ("1,5", None),
        ("7s", None),
        ("7 seconds", None),
        ("0x10", None),
        ("1_000", None),
        ("\u0667", None),
        ("7, 8", None),
        ("9" * 400, None),
        ("soon", None),
        ("2026-11-22T12:00:07Z", None),
        ("Sun, 99 Nov 2026 12:00:07 GMT", None),
        ("Sun, 22 Nov 99999 12:00:07 GMT", None),
        ("Sun, 22 Nov 2026 12:00:07 +9999999999", None),
        ("\x00", None),
    ],
)
def test_every_form_of_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, date=DATE, now=0.0) == seconds


@pytest.mark.parametrize("date", [None, "", "nonsense"])
def test_without_a_date_of_the_answer_our_clock_must_do(date: str | None) -> None:
    until = format_datetime(NOON, usegmt=True)
    assert parse_retry_after(until, date=date, now=NOON.timestamp() - 7.5) == 7.5
    assert parse_retry_after(until, date=date) is None
    assert parse_retry_after("7", date=date) == 7.0


@given(st.text() | st.text(st.sampled_from("0123456789.,:+- SunNovGMTZ"), max_size=40), st.text())
@example("Sun, 22 Nov 0000 12:00:07 GMT", DATE)
@example("Fri, 31 Dec 9999 23:59:59 -2359", DATE)
@example("Sat, 01 Jan 0001 00:00:00 +2359", DATE)
def test_retry_after_is_a_length_of_time_or_nothing(value: str, date: str) -> None:
    for reference in (date, DATE, None):
        seconds = parse_retry_after(value, date=reference, now=1e9)
        assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


def test_an_http_date_without_a_zone_is_gmt() -> None:
    assert parse_http_date("Sun, 22 Nov 2026 12:00:00 -0000") == NOON
    assert parse_http_date(DATE) == NOON


# Retry


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": 1.5},
        {"attempts": "4"},
        {"base": 0},
        {"base": -1.0},
        {"base": math.inf},
        {"base": math.nan},
        {"cap": 0.0},
        {"cap": math.inf},
    ],
    ids=repr,
)
def test_a_retry_is_made_of_positive_numbers(settings: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(settings))):
        Retry(**settings)


def test_a_retry_compares_by_value() -> None:
    assert Retry() == Retry(attempts=4, base=0.5, cap=8.0)
    assert Retry(attempts=1) != Retry()
