"""Bytes to numbered lines, with a bound on the length of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from omi_async.sources._errors import DamagedStreamError, SourceError

__all__ = ["LONGEST", "Block", "Lines", "line_end_of"]

LONGEST: Final = 2**20
"""Bytes of one record, at most: a fact has 500 characters, the rest is what else its record says."""

Block = tuple[int, list[bytes]]
"""The number of the first line, and lines without their ends."""


def line_end_of(head: bytes) -> bytes:
    """Tell how the lines of a file end: by a lone carriage return only where nothing else ends them."""
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"


class Lines:
    r"""The lines of a file; ``\r\n`` leaves its ``\r`` on the line.

    U+2028, U+0085 and their like end no line: they stand inside of JSON strings. A line of more than
    `LONGEST` bytes is cut to one byte more than that.

    Attributes:
        name: the file, for errors.
        number: the line, from 1, that the next block begins with.
    """

    def __init__(self, chunks: Iterable[bytes], name: str, end: bytes = b"\n") -> None:
        self.name = name
        self.number = 1
        self._chunks = chunks
        self._end = end
        self._part = bytearray()

    def blocks(self) -> Iterator[Block]:
        """Yield what each chunk completes.

        Raises `SourceError` with the line where the bytes break; the torn line itself is not handed out, as
        half a sentence may look like a whole one.
        """
        try:
            for chunk in self._chunks:
                if block := self._complete(chunk):
                    yield self._count(block)
        except DamagedStreamError as error:
            raise SourceError.at(self.name, self.number, str(error)) from error
        if self._part:
            yield self._count([bytes(self._part)])

    def _complete(self, chunk: bytes) -> list[bytes]:
        first, *others = chunk.split(self._end)
        self._part += first[: LONGEST + 1 - len(self._part)]
        if not others:
            return []
        complete = [bytes(self._part), *others[:-1]]
        self._part = bytearray(others[-1])
        return complete

    def _count(self, lines: list[bytes]) -> Block:
        number = self.number
        self.number += len(lines)
        return number, lines
