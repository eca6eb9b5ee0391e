"""supermemory: ``{"memories": [{"content", "summary", "containerTags"}], "pagination": {...}}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found
from omi_async.sources.known._values import statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("memories",)
ACCOUNT: Final = ""


def matches(sample: Sample) -> bool:
    """Whether the records have supermemory's keys."""
    return any("containerTags" in record for record in sample.under(*LISTS))


def read(record: Any, options: ReadOptions) -> Iterator[Found]:  # noqa: ARG001 - the same for all formats
    """Yield a memory. Its container tags say whose it is, its type what it came from: no tags of a fact."""
    yield statement(text_of(record, "content", "summary"), date=record.get("createdAt"))
