"""A memory list that an assistant printed, with lines such as ``[2025-05-02] - User likes ice cream``.

There is no file to move memories from one assistant to another, but a prompt: the old one prints a list in a
code block, with dates, and says something before and after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from omi_async.sources._inline import unescaped
from omi_async.sources._markdown import FENCE, goes_on, heading_of
from omi_async.sources._options import ReadOptions
from omi_async.sources._statements import Found, LeftOut, Statement

__all__ = ["ListLine", "ListReader", "line_of", "matches", "read"]

_BULLET: Final = re.compile(r"\s*(?:[-*+•‣◦\u2013—]|\d{1,9}[.)])[ \t]+")
_DATE: Final = re.compile(
    r"(?:\[(?P<bracketed>\d{4}-\d\d-\d\d)[^\]]{0,20}\](?:\s*[-\u2013—.:])?|(?P<bare>\d{4}-\d\d-\d\d)\s+[-\u2013—])\s*"
    r"|\[(?:unknown|date unknown|no date)\](?:\s*[-\u2013—.:])?\s*",
    re.IGNORECASE,
)
_MARK: Final = re.compile(r"\[(?P<mark>stated|inferred)\](?:\s*[-\u2013—:])?\s*", re.IGNORECASE)
_TASK: Final = re.compile(r"\s*\[[ xX]\](?:\s|$)")
_BOLD: Final = re.compile(r"\*\*[^*]+\*\*:?|__[^_]+__:?")
_PLAIN_FENCE: Final = re.compile(r"\s*(?:```+|~~~+)\s*(?:text|txt|plaintext|markdown|md)?\s*$", re.IGNORECASE)

_SENTENCE: Final = re.compile(r"[^\W\d_]\S*\s+\S+\s+[^={}();]+$")
"""Three words or more, and none of the signs of programs."""

_RARE_BULLETS: Final = ("•", "‣", "◦", "\u2013")
"""No bullets of Markdown: a list with them was copied from a screen."""


@attrs.frozen
class ListLine:
    """A line without what stands in front of its text.

    Attributes:
        text: what it says.
        date: the date in front of it, or None.
        tags: ``inferred``, if the assistant only guessed.
        prefixed: whether anything stood in front of it, so that an entry begins here.
        dated: whether that was a date or another mark of such lists.
    """

    text: str
    date: str | None = None
    tags: tuple[str, ...] = ()
    prefixed: bool = False
    dated: bool = False


def line_of(line: str) -> ListLine:
    """Take the number, bullet, date and marks off a line."""
    bullet = _BULLET.match(line)
    text = line[bullet.end() :] if bullet else line.strip()
    date: str | None = None
    tags: tuple[str, ...] = ()
    dated = False
    while found := _DATE.match(text) or _MARK.match(text):
        parts = found.groupdict()
        if (parts.get("mark") or "").casefold() == "inferred":
            tags = ("inferred",)
        date = date or parts.get("bracketed") or parts.get("bare")
        text = text[found.end() :]
        dated = True
    return ListLine(unescaped(text.strip()), date, tags, bool(bullet) or dated, dated)


def matches(head: Sequence[str]) -> bool:
    """Whether most lines have the marks of such a list, or stand in a code block that is no code."""
    inside, around = _parts(head)
    lines = [
        line for line in (around if inside is None else inside) if line.strip() and not _is_heading(line)
    ]
    if not lines:
        return False
    marked = sum(line_of(line).dated or line.lstrip().startswith(_RARE_BULLETS) for line in lines)
    if inside is None:
        return marked * 2 >= len(lines) or _is_list_amid_talk(lines, marked)
    if marked or any(_is_heading(line) or _BULLET.match(line) for line in around):
        return marked * 2 >= len(lines)  # else it is a note with some code in it
    listed = sum(line_of(line).prefixed for line in lines)
    # What is neither marked nor listed must at least look like sentences, and be more than what is around it.
    talk = sum(bool(line.strip()) for line in around)
    return listed * 2 >= len(lines) or (talk <= len(lines) and all(map(_SENTENCE.match, lines)))


def _is_list_amid_talk(lines: Sequence[str], marked: int) -> bool:
    """Whether most entries are marked, and most lines stand from the first entry to the last."""
    places = [place for place, line in enumerate(lines) if line_of(line).prefixed]
    return marked * 2 > len(places) and (places[-1] - places[0] + 1) * 2 >= len(lines)


def _parts(head: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Return the lines of the first code block, unless it names a language of programs; and all others."""
    fences = [number for number, line in enumerate(head) if FENCE.match(line)]
    if not fences or not _PLAIN_FENCE.match(head[fences[0]]):
        return None, list(head)
    begin, end = fences[0], fences[1] if len(fences) > 1 else len(head)
    return list(head[begin + 1 : end]), [*head[:begin], *head[end + 1 :]]


def read(head: Sequence[str], options: ReadOptions) -> ListReader:  # noqa: ARG001 - the same for all formats
    """Return what takes the lines."""
    inside, around = _parts(head)
    return ListReader(
        fenced=inside is not None, prefixed=any(line_of(line).prefixed for line in inside or around)
    )


class ListReader:
    """Takes a pasted list line by line.

    Args:
        fenced: whether the list stands in a code block, so that what stands around it is talk.
        prefixed: whether its entries have anything in front, so that outside of a block all else is talk.
    """

    def __init__(self, *, fenced: bool, prefixed: bool) -> None:
        self._fenced = fenced
        self._prefixed = prefixed
        self._inside = False
        self._open: Statement | None = None
        self._open_is_prefixed = False

    def take(self, number: int, line: str) -> Iterator[Found]:
        """Take a line, and yield the entry that ends with it."""
        if FENCE.match(line):
            yield from self.end()
            self._inside = not self._inside
        elif not line.strip():
            yield from self.end()
        elif self._fenced and not self._inside:
            yield LeftOut("around the list")
        else:
            yield from self._entry(number, line)

    def _entry(self, number: int, line: str) -> Iterator[Found]:
        entry = line_of(line)
        if self._open is not None and self._open_is_prefixed and self._goes_on(self._open, entry, line):
            self._open = attrs.evolve(self._open, text=f"{self._open.text} {entry.text}")
            return
        yield from self.end()
        if _TASK.match(entry.text):
            yield LeftOut("task")
        elif not entry.prefixed and _is_heading(line):
            yield LeftOut("heading")
        elif not entry.prefixed and not self._inside and self._prefixed:
            yield LeftOut("around the list")  # the first or last sentence of a list without a code block
        elif entry.text:
            self._open = Statement(entry.text, entry.tags, entry.date, number)
            self._open_is_prefixed = entry.prefixed

    def _goes_on(self, before: Statement, entry: ListLine, line: str) -> bool:
        """Whether a line goes on with an entry, and is nothing by itself.

        In a code block any line without a prefix does; outside of it one that is indented, or begins in the
        middle of a sentence.
        """
        if entry.prefixed or line.lstrip().startswith("[") or _is_heading(line):
            return False
        return self._inside or goes_on(before.text, line)

    def end(self) -> Iterator[Found]:
        """Yield the entry that was still open."""
        if self._open is not None:
            yield self._open
            self._open = None


def _is_heading(line: str) -> bool:
    return heading_of(line) is not None or bool(_BOLD.fullmatch(line.strip()))
