"""Plain text and Markdown lists: a fact a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

from omi_async.errors import InvalidFactError
from omi_async.sources._records import Batch, Entry, Lines, Records, decoded

__all__ = ["BULLET", "escaped", "is_furniture", "read_markdown", "read_text", "unescaped"]

BULLET: Final = re.compile(
    r"\s*(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)(?:\[[ xX]\](?:[ \t]+|$))?|\s*\[[ xX]\](?:[ \t]+|$)"
)
"""A bullet, a number or a check box, or one before the other."""

_HEADING: Final = re.compile(r"\s{0,3}#{1,6}(?:\s|$)")
_RULE: Final = re.compile(r"\s*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,}|={3,})\s*$")
_FENCE: Final = re.compile(r"\s*(?:[-*+]\s+)?(?:(`{3,})[^`]*|(~{3,}).*)$")


def read_text(lines: Lines, records: Records) -> Iterator[Batch]:
    """Read a fact of each line that is not blank, as it is."""
    for first, block in lines.blocks():
        yield [
            _item(line, number, records)
            for number, line in enumerate(block, first)
            if line and not line.isspace()
        ]


def _item(line: bytes, number: int, records: Records) -> Entry:
    try:
        text = decoded(line)
    except InvalidFactError as error:
        return records.refuse(error, number)
    return records.add(records.fields.of_text, text, number)


@attrs.define
class _Fence:
    """A code block: what opened it, where, and how many lines it has hidden so far."""

    mark: str
    number: int
    hidden: int = 0

    def closes(self, line: str) -> bool:
        """Whether the line is a fence at least as long as the one that opened the block."""
        line = line.strip()
        return line.startswith(self.mark) and not line.strip(self.mark[0])


def read_markdown(lines: Lines, records: Records) -> Iterator[Batch]:
    """Read a fact of each line that says something, without its bullet, number or check box.

    Headings, rules and code blocks are skipped. A code block without an end is an invalid outcome, as it
    hides the rest of the file. A wrapped line is a fact of its own: a fact is a line.
    """
    fence: _Fence | None = None
    for first, block in lines.blocks():
        batch: Batch = []
        for number, raw in enumerate(block, first):
            line = raw.decode("utf-8", "replace")
            if fence is not None:
                fence.hidden += 1
                fence = None if fence.closes(line) else fence
            elif opening := _FENCE.match(line):
                fence = _Fence(opening[1] or opening[2], number)
            elif not _says_nothing(line):
                batch.append(_markdown_item(raw, number, records))
        yield batch
    if fence is not None:
        yield [records.refuse(_endless(fence), fence.number)]


def is_furniture(line: str) -> bool:
    """Whether a line of Markdown is a heading, a rule or the fence of a code block."""
    return bool(_HEADING.match(line) or _RULE.match(line) or _FENCE.match(line))


def _says_nothing(line: str) -> bool:
    return is_furniture(line) or not line[_bullet_end(line) :].strip()


def _bullet_end(line: str) -> int:
    bullet = BULLET.match(line)
    return bullet.end() if bullet else 0


def _markdown_item(line: bytes, number: int, records: Records) -> Entry:
    try:
        text = decoded(line)
    except InvalidFactError as error:
        return records.refuse(error, number)
    end = _bullet_end(text)
    return records.add(records.fields.of_text, unescaped(text[end:].strip()) if end else text, number)


def _endless(fence: _Fence) -> InvalidFactError:
    return InvalidFactError(
        f"a code block begins here and never ends; the {fence.hidden:,} lines below it were skipped",
        record=fence.mark,
    )


_LOOKALIKE: Final = re.compile(r"\\[!-/:-@\[-`{-~]|[-\[`~]")
"""What, at the start of a bullet's text, Markdown or we would take for something else."""

_BREAK: Final = re.compile(r"(\\*)(\n|<br[ ]?/?>)")


def escaped(text: str) -> str:
    """Write a text so that it stands on one line, behind a bullet."""
    line = _BREAK.sub(_write_break, text)
    return f"\\{line}" if _LOOKALIKE.match(line) else line


def _write_break(found: re.Match[str]) -> str:
    slashes, what = found.groups()
    return f"{slashes * 2}<br>" if what == "\n" else f"{slashes * 2}\\{what}"


def unescaped(line: str) -> str:
    """Read the text behind a bullet."""
    if line.startswith("\\") and _LOOKALIKE.match(line):
        line = line[1:]
    return _BREAK.sub(_read_break, line)


def _read_break(found: re.Match[str]) -> str:
    slashes, what = found.groups()
    half = slashes[: len(slashes) // 2]
    return f"{half}{what}" if len(slashes) % 2 else f"{half}\n"
