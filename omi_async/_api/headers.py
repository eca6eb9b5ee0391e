"""What the headers of an answer say about quotas."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import attrs

from omi_async._api.messages import Response

__all__ = [
    "LONGEST_RETRY_AFTER",
    "NOTHING",
    "RateLimitHeaders",
    "parse_http_date",
    "parse_retry_after",
    "read_rate_limit_headers",
    "retry_after",
]

EPOCH: Final = 1e9
"""An X-RateLimit-Reset from here on is a moment in epoch seconds; below, it is a number of seconds."""

OUT_OF_QUOTA: Final = 429

_IN_WORDS: Final = re.compile(rb'\A\{"detail": ?"[^"]{0,99}[Tt]ry again in (\d{1,9}) ?s\b')

MOST: Final = 1e9
"""Calls in a window; a larger number is no limit that anybody meant."""


@attrs.frozen
class RateLimitHeaders:
    """Calls that a window allows, calls that are left of them, seconds until it ends; None for not said."""

    limit: int | None = None
    remaining: int | None = None
    left: float | None = None


NOTHING: Final = RateLimitHeaders()


def read_rate_limit_headers(response: Response) -> RateLimitHeaders:
    """Read the headers about quotas; one that is unreadable counts as missing."""
    most = response.header("X-RateLimit-Limit")
    if most is None and response.status != OUT_OF_QUOTA:
        return NOTHING
    limit, left = _count(most), retry_after(response)
    if limit is None and left is None:
        return NOTHING
    if left is None:
        left = _until(response.header("X-RateLimit-Reset"), response)
    return RateLimitHeaders(limit, _count(response.header("X-RateLimit-Remaining")), left)


def retry_after(response: Response) -> float | None:
    """Read how many seconds to wait: from the header, or from the service's own words on a 429."""
    seconds = parse_retry_after(
        response.header("Retry-After"), date=response.header("Date"), now=response.received
    )
    if seconds is None and response.status == OUT_OF_QUOTA and (words := _IN_WORDS.search(response.body)):
        seconds = parse_retry_after(words[1].decode())
    return seconds


def _count(value: str | None) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) and number < MOST else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _until(reset: str | None, response: Response) -> float | None:
    """Read a Reset: a moment, against the answer's own Date if there is one, or a number of seconds."""
    number = _number(reset)
    if number is None or number < EPOCH:
        return parse_retry_after(reset)
    date = parse_http_date(response.header("Date") or "")
    now = response.received if date is None else date.timestamp()
    return None if now is None else parse_retry_after(f"{max(0.0, number - now):f}")


LONGEST_RETRY_AFTER: Final = 366 * 86_400.0
"""Seconds; a longer Retry-After counts as unreadable."""


_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


def parse_retry_after(
    value: str | None, *, date: str | None = None, now: float | None = None
) -> float | None:
    """Read a Retry-After header: seconds, fractions of them, or an HTTP-date (RFC 9110, 10.2.3).

    A date is measured against the answer's own `date` header, so that a wrong clock here does no harm; if
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
    """Read an HTTP-date; None if it is none."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
