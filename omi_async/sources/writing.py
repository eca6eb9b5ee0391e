"""Memories as lines that `open_facts` reads back.

JSON lines keep everything; CSV keeps what an import takes, the id and the dates; Markdown is for people and
keeps the texts alone, each on one line (``<br>`` for a line break).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, Literal

import attrs

from omi_async._api.json import dumps
from omi_async.fact import Fact
from omi_async.memory import Memory
from omi_async.sources._inline import escaped

__all__ = ["Writer", "Written", "writer_for"]

Written = Literal["jsonl", "csv", "markdown"]

_COLUMNS: Final = ("content", "category", "visibility", "tags", "id", "created_at", "updated_at")


@attrs.frozen
class Writer:
    """Writes a file, line by line; a line has no line end of its own, and may hold line breaks in CSV.

    Attributes:
        header: what stands above the lines, or None.
        line_of: makes the line of a memory or fact.
    """

    header: str | None
    line_of: Callable[[Memory | Fact], str]


def writer_for(wanted: Written) -> Writer:
    """Choose the writer of a format. Raises `ValueError` for an unknown one."""
    if wanted not in _WRITERS:
        raise ValueError(f"can write {', '.join(_WRITERS)}, not {wanted!r}")
    return _WRITERS[wanted]


def _parts(item: Memory | Fact) -> dict[str, Any]:
    parts: dict[str, Any] = {name: getattr(item, name, None) for name in _COLUMNS}
    return {name: part.isoformat() if isinstance(part, datetime) else part for name, part in parts.items()}


def _json_line(item: Memory | Fact) -> str:
    return dumps({name: part for name, part in _parts(item).items() if part is not None}).decode()


def _csv_line(item: Memory | Fact) -> str:
    parts = _parts(item)
    # A JSON list, as a tag may hold any of the marks that could part it from the next.
    parts["tags"] = dumps(item.tags).decode() if item.tags else ""
    line = _row(parts.values())
    # At the start of a line these are marks of a file; behind a quote they are text.
    return f'"{parts["content"]}"{line[len(item.content) :]}' if line.startswith(("\ufeff", "\x1a")) else line


def _row(cells: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)  # with it, both of its characters are quoted
    return out.getvalue().removesuffix("\r\n")


def _markdown_line(item: Memory | Fact) -> str:
    return f"- {escaped(item.content)}"


_WRITERS: Final[dict[str, Writer]] = {
    "jsonl": Writer(None, _json_line),
    "csv": Writer(_row(_COLUMNS), _csv_line),
    "markdown": Writer(None, _markdown_line),
}
