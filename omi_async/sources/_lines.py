"""The lines of a file, and the readers that take one line after the other."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from omi_async.errors import InvalidFactError
from omi_async.sources._errors import DamagedStreamError, SourceError
from omi_async.sources._records import LONGEST, Batch, Records, decoded
from omi_async.sources._statements import Found

__all__ = ["Block", "LineReader", "Lines", "clean", "line_end_of", "read_lines"]

Block = tuple[int, list[bytes]]
"""The number of the first line, and lines without their ends."""

_END_OF_FILE: Final = b"\x1a"
"""Ctrl-Z, by which DOS marked the end of a text, and some programs on Windows still do."""


_MARKS: Final = (codecs.BOM_UTF8, _END_OF_FILE)


def line_end_of(head: bytes) -> bytes:
    """Return what ends the lines of a file: a lone carriage return only if nothing else ends them."""
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"


def clean(line: bytes) -> bytes:
    """Take away what only files have, and no text: byte order marks and DOS' end marks before a line.

    They stand inside of a file when several were joined.
    """
    while line.startswith(_MARKS):
        line = line.removeprefix(codecs.BOM_UTF8).removeprefix(_END_OF_FILE)
    return line


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

        Raises `SourceError` with the line in which the bytes break; the torn line itself is not handed out,
        as half a sentence may look like a whole one.
        """
        try:
            for chunk in self._chunks:
                if block := self._complete(chunk):
                    yield self._count(block)
        except DamagedStreamError as error:
            raise SourceError.at(self.name, self.number, str(error)) from error
        last = bytes(self._part).rstrip(b"\0") if _END_OF_FILE in self._part else bytes(self._part)
        if last := last.rstrip(_END_OF_FILE):
            yield self._count([last])

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


class LineReader(Protocol):
    """Finds statements in lines, one after the other."""

    def take(self, number: int, line: str) -> Iterable[Found]:
        """Return what is complete with this line; bytes that are no text are half surrogates in it."""

    def end(self) -> Iterable[Found]:
        """Return what was still open at the end of the file."""


def read_lines(lines: Lines, reader: LineReader, records: Records) -> Iterator[Batch]:
    """Read a file line by line; a batch is what a chunk completes, so a live stream is not kept waiting."""
    before = b""
    for first, block in lines.blocks():
        batch: Batch = []
        for number, raw in enumerate(block, first):
            if not raw and not before:  # a second blank line says no more than the first
                continue
            before = raw
            if len(raw) <= LONGEST:
                line = clean(raw).decode("utf-8", "surrogateescape").rstrip("\r")
                batch += records.found(reader.take(number, line), number)
                continue
            try:
                decoded(raw)
            except InvalidFactError as error:
                batch.append(records.refuse(error, number))
        yield batch
    yield records.found(reader.end(), max(1, lines.number - 1))
