"""Facts, and outcomes for what is none, with their places and their count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from omi_async.errors import InvalidFactError
from omi_async.fact import Fact
from omi_async.importing.report import FactOutcome
from omi_async.sources._errors import DamagedStreamError, SourceError
from omi_async.sources._fields import Fields

__all__ = [
    "LONGEST",
    "Batch",
    "Block",
    "Entry",
    "Lines",
    "Records",
    "batched",
    "decoded",
    "line_end_of",
    "shown",
]

BATCH: Final = 200
"""Items handed over at once."""

_SHOWN: Final = 8192
"""Bytes of a broken line that its error keeps: failures by the thousand are kept until the report."""

Entry = Fact | FactOutcome
Batch = list[Entry]
Given = TypeVar("Given")


class Records:
    """Counts the records of one file, and makes each a fact or an invalid outcome.

    Attributes:
        name: the file, as the caller named it.
        fields: how the parts of a fact are found in a record.
        count: records so far.
    """

    def __init__(self, name: str, fields: Fields) -> None:
        self.name = name
        self.fields = fields
        self.count = 0

    def add(self, make: Callable[[Given, str], Fact], given: Given, line: int) -> Entry:
        """Count a record, and make a fact of it with `make(given, origin)`."""
        origin = f"{self.name}:{line}"
        self.count += 1
        try:
            return make(given, origin)
        except InvalidFactError as error:
            if error.record is None:
                error.record = given
            return self._invalid(error, origin)

    def refuse(self, error: InvalidFactError, line: int) -> FactOutcome:
        """Count a record that cannot be read."""
        self.count += 1
        return self._invalid(error, f"{self.name}:{line}")

    def _invalid(self, error: InvalidFactError, origin: str) -> FactOutcome:
        # Failures are kept by the thousand: not with the frames that raised them, and all that those hold.
        error.__traceback__ = error.__context__ = None
        return FactOutcome(index=self.count - 1, fact=None, state="invalid", error=error, origin=origin)


def decoded(line: bytes) -> str:
    """Decode a line. Raises `InvalidFactError` for bytes, lengths and characters that no text has."""
    if len(line) > LONGEST:
        raise InvalidFactError(f"is longer than {LONGEST:,} bytes", record=shown(line))
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise InvalidFactError(
            f"is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1} of the line;"
            " convert the file to UTF-8",
            record=shown(line),
        ) from None
    if "\0" in text:
        raise InvalidFactError(
            f"holds a NUL character at position {text.index(chr(0)) + 1} of the line", record=shown(line)
        )
    return text


def shown(raw: bytes) -> str:
    r"""Keep a broken record readable and bounded, with ``\xe9`` for bytes that are no text."""
    return raw[:_SHOWN].decode("utf-8", "backslashreplace").rstrip("\r\n")


def batched(items: Iterable[Entry], size: int = BATCH) -> Iterator[Batch]:
    """Collect items into lists, and hand out what was collected before a `SourceError` goes on."""
    batch: Batch = []
    failure: SourceError | None = None
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except SourceError as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure


LONGEST: Final = 2**20
"""Bytes of one record, at most: a fact has 500 characters, the rest is what else its record says."""

Block = tuple[int, list[bytes]]
"""The number of the first line, and lines without their ends."""


def line_end_of(head: bytes) -> bytes:
    """Return what ends the lines of a file: a lone carriage return only if nothing else ends them."""
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

        Raises `SourceError` with the line in which the bytes break; the torn line itself is not handed out,
        as half a sentence may look like a whole one.
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
