"""What Bee's API returns: ``{"facts": [{"text", "tags", "created_at", "confirmed"}]}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut
from omi_async.sources.known._values import statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("facts",)
ACCOUNT: Final = ""


def matches(sample: Sample) -> bool:
    """Whether the records are facts that a person confirms."""
    return any("text" in record and "confirmed" in record for record in sample.under(*LISTS))


def read(record: Any, options: ReadOptions) -> Iterator[Found]:
    """Yield a fact, if it is confirmed or pending ones are wanted."""
    text = text_of(record, "text")
    if record.get("confirmed") is False and "pending" not in options.include:
        yield LeftOut("pending")
    else:
        yield statement(text, tags=record.get("tags"), date=record.get("created_at"))
