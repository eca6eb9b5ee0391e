"""What the records of many systems have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._statements import Statement

__all__ = ["date_of", "is_past", "statement", "tags_of", "text_of"]

_NO_DATE: Final = 10_000_000_000
"""Seconds beyond the year 2286: what is larger counts milliseconds, or microseconds."""


def text_of(record: Any, *keys: str) -> str:
    """Return the first text under these keys. Raises `InvalidFactError` if there is none."""
    if not isinstance(record, Mapping):
        raise InvalidFactError("content: the record is no object", field="content")
    for key in keys:
        if isinstance(value := record.get(key), str) and value.strip():
            return value
    raise InvalidFactError(f"content: no text under {' or '.join(map(repr, keys))}", field="content")


def statement(text: str, *, tags: object = None, date: object = None) -> Statement:
    """Make a statement of what a record says."""
    return Statement(text, tags_of(tags), date_of(date))


def tags_of(value: object) -> tuple[str, ...]:
    """Read tags: a list of texts or of objects with a name, one text, or nothing."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    names = [item.get("name") if isinstance(item, Mapping) else item for item in values]
    return tuple(name.strip() for name in names if isinstance(name, str) and name.strip())


def date_of(value: object) -> str | None:
    """Write a date for people; numbers are seconds since 1970, or thousandths or millionths of them."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    seconds = float(value)
    while seconds > _NO_DATE:
        seconds /= 1000
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def is_past(value: object, today: date) -> bool:
    """Whether a date lies before today."""
    written = date_of(value)
    try:
        return written is not None and date.fromisoformat(written[:10]) < today
    except ValueError:
        return False
