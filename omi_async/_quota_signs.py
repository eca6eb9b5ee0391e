"""What the headers of an answer say about quotas."""

from __future__ import annotations

import math
import re
from typing import Final

import attrs

from omi_async._retry import parse_http_date, parse_retry_after
from omi_async._wire import Response

__all__ = ["NOTHING", "Signs", "read_signs", "retry_after"]

EPOCH: Final = 1e9
"""An X-RateLimit-Reset from here on is a moment in epoch seconds; below, it is a number of seconds."""

OUT_OF_QUOTA: Final = 429

_IN_WORDS: Final = re.compile(rb'\A\{"detail": ?"[^"]{0,99}[Tt]ry again in (\d{1,9}) ?s\b')

MOST: Final = 1e9
"""Calls in a window; a larger number is no limit that anybody meant."""


@attrs.frozen
class Signs:
    """Calls that a window allows, calls that are left of them, seconds until it ends; None for not said."""

    limit: int | None = None
    remaining: int | None = None
    left: float | None = None


NOTHING: Final = Signs()


def read_signs(response: Response) -> Signs:
    """Read the headers about quotas; one that is unreadable counts as missing."""
    most = response.header("X-RateLimit-Limit")
    if most is None and response.status != OUT_OF_QUOTA:
        return NOTHING
    limit, left = _count(most), retry_after(response)
    if limit is None and left is None:
        return NOTHING
    if left is None:
        left = _until(response.header("X-RateLimit-Reset"), response)
    return Signs(limit, _count(response.header("X-RateLimit-Remaining")), left)


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
    """Read a Reset: a moment, against the answer's own Date where there is one, or a number of seconds."""
    number = _number(reset)
    if number is None or number < EPOCH:
        return parse_retry_after(reset)
    date = parse_http_date(response.header("Date") or "")
    now = response.received if date is None else date.timestamp()
    return None if now is None else parse_retry_after(f"{max(0.0, number - now):f}")
