"""Plain text: a fact a line, as it is."""

from __future__ import annotations

from collections.abc import Iterator

from omi_async.sources._statements import Found, Statement

__all__ = ["TextReader"]


class TextReader:
    """Takes each line that is not blank for a fact."""

    def take(self, number: int, line: str) -> Iterator[Found]:
        """Yield the line."""
        if line and not line.isspace():
            yield Statement(line, line=number)

    def end(self) -> Iterator[Found]:
        """Yield nothing: no line waits for another."""
        yield from ()
