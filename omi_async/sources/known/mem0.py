"""mem0, hosted or one's own, and its OpenMemory: ``{"results": [{"memory", "categories", "user_id"}]}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut
from omi_async.sources.known._values import is_past, statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("results", "memories")
ACCOUNT: Final = "user_id"

_MARKS: Final = frozenset(
    {"user_id", "hash", "categories", "expiration_date", "owner", "immutable", "agent_id"}
)
_STATES: Final = frozenset({"active", "paused", "archived", "deleted"})


def matches(sample: Sample) -> bool:
    """Whether a record is a memory with mem0's keys beside it, or has a state as OpenMemory's have."""
    return any(
        (isinstance(record.get("memory"), str) and not _MARKS.isdisjoint(record)) or _is_openmemory(record)
        for record in sample.under(*LISTS)
    )


def _is_openmemory(record: dict[str, Any]) -> bool:
    marks = {"app", "app_id", "categories", "category_ids"}
    return "content" in record and record.get("state") in _STATES and not marks.isdisjoint(record)


def read(record: Any, options: ReadOptions) -> Iterator[Found]:
    """Yield a memory that is active and has not expired."""
    text = text_of(record, "memory", "content")
    state = record.get("state") or "active"
    if state != "active" and not (state == "archived" and "archived" in options.include):
        yield LeftOut(str(state)[:20])
    elif is_past(record.get("expiration_date"), options.today):
        yield LeftOut("expired")
    else:
        yield statement(text, tags=record.get("categories"), date=record.get("created_at"))
