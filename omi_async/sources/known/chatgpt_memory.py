"""A list of ChatGPT's memories as JSON, if an export has one: ``{"memories": [{"content", "enabled"}]}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut
from omi_async.sources.known._values import statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("memories",)
ACCOUNT: Final = ""


def matches(sample: Sample) -> bool:
    """Whether the records can be switched off."""
    return any("content" in record and "enabled" in record for record in sample.under(*LISTS))


def read(record: Any, options: ReadOptions) -> Iterator[Found]:  # noqa: ARG001 - the same for all formats
    """Yield a memory that is not switched off."""
    text = text_of(record, "content")
    if record.get("enabled") is False:
        yield LeftOut("disabled")
    else:
        yield statement(text, date=record.get("created_at"))
