"""What Bee's command line writes for people: ``bee-sync/facts.md``, with a section of unconfirmed facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from omi_async.sources._markdown import heading_of
from omi_async.sources._options import ReadOptions
from omi_async.sources._statements import Found, LeftOut, Statement

__all__ = ["matches", "read"]

_FACT: Final = re.compile(
    r"\s*-\s+(?P<text>.*?)(?:\s+\[(?P<tags>[^\]]*)\])?\s+\((?:(?P<date>[^(),]*),\s*)?id\s+\S+\)\s*$"
)


def matches(head: Sequence[str]) -> bool:
    """Whether most bullets end in a date and an id."""
    bullets = [line for line in head if line.lstrip().startswith("- ")]
    return bool(bullets) and sum(_FACT.match(line) is not None for line in bullets) * 2 > len(bullets)


def read(head: Sequence[str], options: ReadOptions) -> BeeReader:  # noqa: ARG001 - the same for all formats
    """Return what takes the lines."""
    return BeeReader(options)


class BeeReader:
    """Takes the lines of facts.md."""

    def __init__(self, options: ReadOptions) -> None:
        self._take_pending = "pending" in options.include
        self._pending = False

    def take(self, number: int, line: str) -> Iterator[Found]:
        """Yield the fact of a line."""
        if heading := heading_of(line):
            self._pending = "pending" in heading[0].casefold()
        elif found := _FACT.match(line):
            if self._pending and not self._take_pending:
                yield LeftOut("pending")
                return
            tags = [tag.strip() for tag in (found["tags"] or "").split(",")]
            date = (found["date"] or "").strip() or None
            yield Statement(found["text"].strip(), tuple(filter(None, tags)), date, number)
        elif line.strip():
            yield LeftOut("prose")

    def end(self) -> Iterator[Found]:
        """Yield nothing: no line waits for another."""
        yield from ()
