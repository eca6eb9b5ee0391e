"""LangGraph's store and LangMem: ``{"namespace", "key", "value": {"content": ...}}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found
from omi_async.sources.known._values import statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("items",)
ACCOUNT: Final = ""


def matches(sample: Sample) -> bool:
    """Whether a record is an item of a store."""
    return any({"namespace", "key", "value"} <= record.keys() for record in sample.under(*LISTS))


def read(record: Any, options: ReadOptions) -> Iterator[Found]:  # noqa: ARG001 - the same for all formats
    """Yield the text of an item, which LangMem puts one level deeper."""
    value = record.get("value") if isinstance(record, dict) else None
    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, dict):
        raise InvalidFactError("content: the item's value is no object with a text", field="content")
    inner = value.get("content")
    text = text_of(inner if isinstance(inner, dict) else value, "content", "text", "memory")
    yield statement(text, date=record.get("created_at"))
