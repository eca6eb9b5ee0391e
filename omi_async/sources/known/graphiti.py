"""Graphiti and Zep: the edges of a knowledge graph, each a fact with the time in which it held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut
from omi_async.sources.known._values import statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("edges", "facts")
ACCOUNT: Final = ""

_MARKS: Final = frozenset({"valid_at", "invalid_at", "expired_at", "source_node_uuid"})


def matches(sample: Sample) -> bool:
    """Whether a record is a fact with a time in which it held."""
    return any("fact" in record and not _MARKS.isdisjoint(record) for record in sample.under(*LISTS))


def read(record: Any, options: ReadOptions) -> Iterator[Found]:  # noqa: ARG001 - the same for all formats
    """Yield a fact that still holds."""
    text = text_of(record, "fact")
    if record.get("expired_at"):
        yield LeftOut("expired")
    elif record.get("invalid_at"):
        yield LeftOut("no longer true")
    else:
        yield statement(text, date=record.get("valid_at") or record.get("created_at"))
