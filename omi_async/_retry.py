"""Whether a failed call is worth another try, and how long to wait before it.

Pure: chance is an argument, and the waiting is left to `backoff` at the session's edge.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from omi_async.config import SHORTEST_WAIT, Retry
from omi_async.errors import ConnectError, RateLimitError, ResponseLostError, ServerError

__all__ = ["parse_http_date", "parse_retry_after", "wait_before", "waits", "worth_retrying"]

LONGEST_RETRY_AFTER: Final = 366 * 86_400.0
"""Seconds; a longer Retry-After counts as unreadable."""

_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


def worth_retrying(error: BaseException, *, idempotent: bool) -> bool:
    """Decide whether the same call may be made again without asking anybody.

    What surely was not applied and may pass: yes. What may have been applied: only where doing it twice is
    the same as doing it once. What will be refused again: no.
    """
    match error:
        case ConnectError() | RateLimitError():
            return True
        case ResponseLostError() | ServerError():
            return idempotent or not error.maybe_applied
        case _:
            return False


def wait_before(retry: Retry, number: int, error: BaseException, chance: float) -> float:
    """Return the seconds to wait before retry `number` (from 0), given a `chance` between 0 and 1.

    A wait that the server asked for is kept in full, and never cut or jittered.
    """
    asked: float | None = getattr(error, "retry_after", None)
    if asked is not None:
        return max(asked, SHORTEST_WAIT)
    longest = min(retry.cap, retry.base * 2.0 ** min(number, 64))
    return longest * (0.5 + chance / 2)


def waits(retry: Retry, chance: Callable[[], float]) -> Generator[float, Any, None]:
    """Generate waits in seconds for `backoff`, which sends the error in and awaits what comes out.

    After a 429 there is nothing to wait for here: the next attempt waits for its turn, with all who wait.
    The first value is only there to be thrown away: backoff starts its generators with a `send(None)`.
    """
    error = yield 0.0
    for number in itertools.count():
        out_of_quota = isinstance(error, RateLimitError)
        error = yield 0.0 if out_of_quota else wait_before(retry, number, error, chance())


def parse_retry_after(
    value: str | None, *, date: str | None = None, now: float | None = None
) -> float | None:
    """Read a Retry-After header: seconds, fractions of them, or an HTTP-date (RFC 9110, 10.2.3).

    A date is measured against the answer's own `date` header, so that a wrong clock here does no harm; where
    that is missing, against `now` (epoch seconds). What cannot be read, or is no length of time, counts as
    absent: None.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return _believable(float(text))
    until = parse_http_date(text)
    if until is None:
        return None
    sent = parse_http_date(date) if date else None
    reference = sent.timestamp() if sent else now
    return None if reference is None else _believable(max(0.0, until.timestamp() - reference))


def _believable(seconds: float) -> float | None:
    """Take a wait of more than a year for what it is: milliseconds, a clock gone wrong, a joke."""
    return seconds if seconds <= LONGEST_RETRY_AFTER else None


def parse_http_date(value: str) -> datetime | None:
    """Read an HTTP-date; None where it is none."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
