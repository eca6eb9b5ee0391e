"""Claude: what its export says of the person, as Markdown inside of JSON.

``memories.json`` is a list with one record; since the autumn of 2026 there is ``memories/<uuid>.json``
instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._markdown import BULLET, TABLE, heading_of, is_furniture, nested
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._sentences import sentences
from omi_async.sources._statements import Found, LeftOut, Statement
from omi_async.sources.known.pasted_list import line_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ()
ACCOUNT: Final = "account_uuid"

_PARTS: Final = ("conversations_memory", "memory_files", "project_memories")
_BOLD: Final = re.compile(r"\*\*(?P<text>[^*]+)\*\*:?")


def matches(sample: Sample) -> bool:
    """Whether a record holds one of the parts."""
    return any(part in record for record in sample.records for part in _PARTS)


def read(record: Any, options: ReadOptions) -> Iterator[Found]:
    """Yield what is known of the person; of projects only if that is wanted."""
    if not isinstance(record, dict):
        raise InvalidFactError("is no object with Claude's memories")
    if isinstance(memory := record.get("conversations_memory"), str):
        yield from _statements(memory)
    for file in record.get("memory_files") or ():
        if isinstance(file, dict) and isinstance(content := file.get("content"), str):
            yield from _statements(content, _stem(file.get("path")), file.get("updated_at"))
    for memory in _texts_of(record.get("project_memories")):
        if "projects" in options.include:
            yield from _statements(memory, "project", keep=True)
        else:
            yield LeftOut("project")


def _stem(path: object) -> str:
    return PurePosixPath(path).stem if isinstance(path, str) else ""


def _texts_of(memories: object) -> list[str]:
    values = (
        memories.values() if isinstance(memories, dict) else memories if isinstance(memories, list) else []
    )
    return [text for text in values if isinstance(text, str)]


def _statements(text: str, tag: str = "", date: object = None, *, keep: bool = False) -> Iterator[Found]:
    """Yield bullets one by one, and paragraphs by the sentence, tagged with the heading above them.

    Args:
        text: Markdown, or prose.
        tag: for what stands below no heading.
        date: when it was written.
        keep: whether that tag stays beside a heading's.
    """
    heading = tag
    paragraph: list[str] = []
    above: list[tuple[int, str]] = []  # bullets that others may stand below
    for line in [*text.splitlines(), ""]:
        bullet = BULLET.match(line)
        title = _heading(line)
        rule = is_furniture(line) and not title
        if (bullet or title or rule or not line.strip()) and paragraph:
            for sentence in sentences(" ".join(paragraph)):
                yield _statement(sentence, heading, tag if keep else "", date)
            paragraph = []
        if title:
            heading, above = title, []
        elif bullet and (words := line[bullet.end() :].strip()):
            indent = len(bullet["indent"].expandtabs(4))
            above = [entry for entry in above if entry[0] < indent]
            whole = nested(above[-1][1], words) if above else words
            above.append((indent, whole))
            if not words.endswith(":"):
                yield _statement(whole, heading, tag if keep else "", date)
        elif TABLE.match(line):
            yield LeftOut("table")
        elif line.strip() and not rule:
            paragraph.append(line.strip())


def _heading(line: str) -> str:
    if found := heading_of(line):
        return found[0]
    bold = _BOLD.fullmatch(line.strip())
    return bold["text"].strip(" :") if bold else ""


def _statement(text: str, heading: str, tag: str, date: object) -> Statement:
    """Take the marks off: what Claude only inferred is tagged so."""
    entry = line_of(text)
    tags = dict.fromkeys(filter(None, (tag, heading, *entry.tags)))
    return Statement(entry.text, tuple(tags), entry.date or (date if isinstance(date, str) else None))
