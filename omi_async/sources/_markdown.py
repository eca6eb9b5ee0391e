"""Markdown: its bullets are the facts, or its lines if it has no bullets.

Read as Obsidian and Logseq write it too: inline ``#tags``, ``[[Target|alias]]`` links, ``%% comments %%``,
block ids, ``key:: value`` properties. A bullet below another keeps what it belongs to: "Sizes: shoes 42".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from omi_async.sources._front_matter import FrontMatter, front_matter
from omi_async.sources._inline import inline, is_only_an_embed
from omi_async.sources._statements import Found, LeftOut, Statement, Unreadable

__all__ = ["BULLET", "FENCE", "TABLE", "MarkdownReader", "goes_on", "heading_of", "is_furniture", "nested"]

BULLET: Final = re.compile(r"(?P<indent>\s*)(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")

FENCE: Final = re.compile(r"\s*(?:[-*+]\s+)?(?:(?P<ticks>`{3,})[^`]*|(?P<tildes>~{3,}).*)$")

_TASK: Final = re.compile(r"\s*(?:\[[ xX/-]\](?:\s|$)|(?:TODO|DOING|DONE|LATER|NOW|WAITING|CANCELED)\s)")
_HEADING: Final = re.compile(r"\s{0,3}(?P<marks>#{1,6})(?:\s+(?P<text>.*?))?\s*#*\s*$")
_UNDERLINE: Final = re.compile(r"\s{0,3}(?:=+|-{2,})\s*$")
_RULE: Final = re.compile(r"\s*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,}|={3,})\s*$")
TABLE: Final = re.compile(r"\s*\||\s*:?-{2,}:?\s*\|")
_DEFINITION: Final = re.compile(r"\s{0,3}\[[^\]]+\]:(?:\s|$)")
_HTML: Final = re.compile(r"\s*</?[A-Za-z][^>]*>?")
_QUOTE: Final = re.compile(r"\s{0,3}>")
_PROPERTY: Final = re.compile(r"\s*(?:-\s+)?(?P<key>[\w./-]+)::(?:\s+(?P<value>.*))?$")
_INDENTED_CODE: Final = re.compile(r" {4,}|\t")

_COMMENTS: Final = (("<!--", "-->"), ("%%", "%%"))

GEMINI: Final = "gemini added memories"
"""The heading below which Gemini's command line keeps memories; all else in that file are rules for it."""

_LABEL_WORDS: Final = 2
"""A bullet with others below it and no more words than this is a label ("Sizes"), and no fact by itself."""


@attrs.define
class _Bullet:
    """A bullet that may still go on, or a line if there are no bullets.

    Attributes:
        indent: how far it is indented.
        text: its words so far.
        line: its line in the file.
        why_not: why it and all below it are no facts, or "".
        whole: the text with what it belongs to, once it is complete.
    """

    indent: int
    text: str
    line: int
    why_not: str = ""
    whole: str = ""
    tags: tuple[str, ...] = ()


class MarkdownReader:
    """Takes a Markdown file line by line.

    Args:
        head: the first lines, by which it is decided whether bullets are the facts, or lines.
        under: headings, in lower case; what is not below one of them is left out. None given: all counts.
        bullets_only: whether prose is no fact even if there are no bullets.
    """

    def __init__(self, head: Sequence[str], under: Sequence[str] = (), *, bullets_only: bool = False) -> None:
        self._front: FrontMatter = front_matter(head)
        body = head[self._front.lines :]
        self._only_bullets = bullets_only or any(_is_bullet(line) for line in _outside_of_code(body))
        if not under and any((heading_of(line) or ("", 0))[0].casefold() == GEMINI for line in body):
            under = (GEMINI,)
        self._under = tuple(under)
        self._tags = self._front.tags
        self._path: list[tuple[int, str]] = []  # of headings, with their levels
        self._stack: list[_Bullet] = []  # the open bullet, below those it belongs to
        self._open: _Bullet | None = None
        self._fence = ""
        self._fence_line = 0
        self._hidden = 0
        self._comment_end = ""

    def take(self, number: int, line: str) -> Iterator[Found]:
        """Take a line, and yield what is complete with it."""
        if number <= self._front.lines:
            if number == self._front.lines:
                yield LeftOut("front matter")
            return
        if self._fence or self._comment_end:
            yield from self._hidden_line(line)
        elif opening := FENCE.match(line):
            yield from self._close()
            self._fence = opening["ticks"] or opening["tildes"]
            self._fence_line, self._hidden = number, 0
        elif end := _comment_that_opens(line):
            yield from self._close()
            yield LeftOut("comment")
            self._comment_end = end if end != "closed" else ""
        else:
            yield from self._visible(number, line)

    def _hidden_line(self, line: str) -> Iterator[Found]:
        if self._comment_end:
            if self._comment_end in line:
                self._comment_end = ""
            return
        text = line.strip()
        if text.startswith(self._fence) and not text.strip(self._fence[0]):
            self._fence = ""
        else:
            self._hidden += 1
            yield LeftOut("code")

    def _visible(self, number: int, line: str) -> Iterator[Found]:
        if not line.strip():
            yield from self._close()
        elif self._is_underline(line):
            # A line with a rule below it is a heading, and the line was held back for just this.
            self._enter_heading(self._open.text if self._open else "", 1 if "=" in line else 2)
            self._open = None
        elif heading := heading_of(line):
            yield from self._close()
            self._enter_heading(*heading)
        elif _RULE.match(line):
            yield from self._close()
        elif reason := self._furniture(line):
            yield from self._close()
            yield LeftOut(reason)
            self._note_property(line)
        elif bullet := BULLET.match(line):
            yield from self._bullet(number, line, bullet)
        elif _TASK.match(line):
            yield from self._close()
            yield LeftOut("task")
        else:
            yield from self._words(number, line)

    def _is_underline(self, line: str) -> bool:
        return bool(self._open is not None and not self._stack and _UNDERLINE.match(line))

    def _furniture(self, line: str) -> str:
        """Name what a line is if it is no text of the document, or return ""."""
        if not self._stack and _INDENTED_CODE.match(line) and not BULLET.match(line):
            return "code"
        for kind, pattern in _FURNITURE.items():
            if pattern.match(line):
                return kind
        return "image" if is_only_an_embed(line) else ""

    def _note_property(self, line: str) -> None:
        """Take Logseq's page property ``tags:: a, b``, which stands above all blocks of the page."""
        found = _PROPERTY.match(line)
        if found and found["key"] == "tags" and not self._stack and found["value"]:
            named = [tag.strip().strip("#[]") for tag in found["value"].split(",")]
            self._tags += tuple(filter(None, named))

    def _enter_heading(self, text: str, level: int) -> None:
        self._stack.clear()
        self._path = [entry for entry in self._path if entry[0] < level]
        self._path.append((level, text.casefold()))

    def _bullet(self, number: int, line: str, found: re.Match[str]) -> Iterator[Found]:
        indent = len(found["indent"].expandtabs(4))
        text = line[found.end() :]
        yield from self._close(followed_by=indent)
        while self._stack and self._stack[-1].indent >= indent:
            self._stack.pop()
        above = self._stack[-1].why_not if self._stack else ""
        why_not = above or ("task" if _TASK.match(text) else "")
        self._open = _Bullet(indent, text.strip(), number, why_not)
        self._stack.append(self._open)

    def _words(self, number: int, line: str) -> Iterator[Found]:
        if self._open is not None and self._only_bullets and goes_on(self._open.text, line):
            self._open.text += f" {line.strip()}"
            return
        yield from self._close()
        if self._only_bullets:
            yield LeftOut("prose")
        else:
            self._open = _Bullet(0, line.strip(), number)

    def _close(self, followed_by: int = -1) -> Iterator[Found]:
        """Complete the open bullet; `followed_by` is the indent of the bullet behind it."""
        bullet, self._open = self._open, None
        if bullet is None:
            return
        text, tags = inline(bullet.text)
        parent = self._stack[-2] if len(self._stack) > 1 and self._stack[-1] is bullet else None
        bullet.whole = nested(parent.whole, text) if parent else text
        bullet.tags = (*(parent.tags if parent else ()), *tags)
        if bullet.why_not:
            yield LeftOut(bullet.why_not)
        elif not text:
            if bullet.text:
                yield LeftOut("only tags")
        elif followed_by > bullet.indent and _is_label(text):
            yield LeftOut("label")
        elif self._under and not any(heading in self._under for _, heading in self._path):
            yield LeftOut("not under the heading")
        else:
            everything = dict.fromkeys((*self._tags, *bullet.tags))
            yield Statement(bullet.whole, tuple(everything), line=bullet.line)

    def end(self) -> Iterator[Found]:
        """Yield what was open. A code block without an end is told, for it hid the rest of the file."""
        yield from self._close()
        if self._fence:
            yield Unreadable(
                f"a code block begins here and never ends; the {self._hidden:,} lines below it were skipped",
                self._fence_line,
                self._fence,
            )


_FURNITURE: Final = {
    "property": _PROPERTY,
    "table": TABLE,
    "link definition": _DEFINITION,
    "quote": _QUOTE,
    "HTML": _HTML,
}


def _is_bullet(line: str) -> bool:
    found = BULLET.match(line)
    return bool(found and line[found.end() :].strip() and not _RULE.match(line))


def _outside_of_code(lines: Sequence[str]) -> Iterator[str]:
    fence = ""
    for line in lines:
        opening = FENCE.match(line)
        if fence:
            fence = "" if line.strip().startswith(fence) else fence
        elif opening:
            fence = opening["ticks"] or opening["tildes"]
        else:
            yield line


def _comment_that_opens(line: str) -> str:
    """Return what ends the comment that begins a line: "closed" if the line does, "" if there is none."""
    text = line.strip()
    for begin, end in _COMMENTS:
        if text.startswith(begin):
            behind = text[len(begin) :].partition(end)
            if not behind[1]:
                return end
            # Something behind the comment is text, and `inline` takes the comment out of it.
            return "closed" if not behind[2].strip() else ""
    return ""


def heading_of(line: str) -> tuple[str, int] | None:
    """Return the text and the level of a heading, without emphasis; None if the line is none."""
    found = _HEADING.match(line)
    if found is None:
        return None
    return (found["text"] or "").strip().strip("*_").strip(), len(found["marks"])


def is_furniture(line: str) -> bool:
    """Whether a line of Markdown is a heading, a rule or the fence of a code block."""
    return bool(_HEADING.match(line) or _RULE.match(line) or FENCE.match(line))


def goes_on(text: str, line: str) -> bool:
    """Whether a line without a bullet goes on with the text of the one above.

    It does if it is indented, or begins in the middle of a sentence. Else it may be the closing remark of
    whoever made the list, which would make a wrong fact of a right one.
    """
    if not line.startswith((" ", "\t")):
        return line[:1].islower() and not text.endswith((".", "!", "?"))
    return True


def _is_label(text: str) -> bool:
    return text.endswith(":") or len(text.split()) <= _LABEL_WORDS


def nested(parent: str, text: str) -> str:
    """Put what a bullet belongs to in front of it."""
    return f"{parent.rstrip(' .:')}: {text}" if parent else text
