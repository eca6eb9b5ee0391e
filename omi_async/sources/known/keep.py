"""Google Keep, as Takeout writes it: one JSON file a note."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut
from omi_async.sources.known._values import statement

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ()
ACCOUNT: Final = ""

_TEXTS: Final = frozenset({"listContent", "textContent", "title"})


def matches(sample: Sample) -> bool:
    """Whether the file is a note."""
    return any("isTrashed" in note and not _TEXTS.isdisjoint(note) for note in sample.records)


def read(record: Any, options: ReadOptions) -> Iterator[Found]:
    """Yield the items of a list that are not ticked, or the text of a note of one line."""
    if not isinstance(record, dict):
        raise InvalidFactError("is no note")
    if record.get("isTrashed"):
        yield LeftOut("trashed")
    elif record.get("isArchived") and "archived" not in options.include:
        yield LeftOut("archived")
    elif isinstance(record.get("listContent"), list):
        yield from _items(record)
    else:
        yield from _text(record)


def _items(note: dict[str, Any]) -> Iterator[Found]:
    title = str(note.get("title") or "").strip()
    for item in note["listContent"]:
        text = str(item.get("text") or "").strip() if isinstance(item, dict) else ""
        if text and item.get("isChecked"):
            yield LeftOut("ticked")
        elif text:
            yield statement(f"{title}: {text}" if title else text, tags=note.get("labels"), date=_date(note))


def _text(note: dict[str, Any]) -> Iterator[Found]:
    text = str(note.get("textContent") or "").strip()
    if "\n" in text:
        yield LeftOut("note of several lines")
    elif text:
        yield statement(text, tags=note.get("labels"), date=_date(note))
    else:
        yield LeftOut("empty note")


def _date(note: dict[str, Any]) -> object:
    return note.get("createdTimestampUsec") or note.get("userEditedTimestampUsec")
