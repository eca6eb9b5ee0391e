"""Tables: CSV and its kin, with a bound on what one stray quote can swallow."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from omi_async.errors import InvalidFactError
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Columns, Fields
from omi_async.sources._records import Batch, Block, Entry, Lines, Records, decoded, shown

__all__ = ["DELIMITERS", "Dialect", "dialect_of", "read_csv", "reads_as_table"]

_MOST_LINES: Final = 512
_MOST_BYTES: Final = 64 * 1024
"""What one row may span. A fact has 500 characters; whatever is longer has lost its closing quote."""


def read_csv(lines: Lines, records: Records) -> Iterator[Batch]:
    """Read a fact of each row below the header; rows of empty cells are skipped.

    A row that breaks is one invalid outcome, and reading goes on with the line after its first. Raises
    `SourceError` if no column holds the text.
    """
    feed = _Feed(lines.blocks())
    header = _read_header(feed)
    if header is None:
        return
    number, line = header
    dialect = dialect_of(line, records.fields)
    if dialect is None or dialect.columns is None:
        raise SourceError.at(records.name, number, _no_column(line, records))
    table = _Table(feed, dialect, dialect.columns, records)
    while feed.fill():
        yield table.drain()
    feed.check()


def _read_header(feed: _Feed) -> tuple[int, str] | None:
    """Take the first line that is not blank, past the ``sep=;`` that Excel writes for itself."""
    while feed.fill():
        number, raw = feed.number, feed.take()
        line = raw.decode("utf-8", "replace").strip("\r\n")
        if line.strip() and not line.lower().startswith("sep="):
            return number, line
    feed.check()
    return None


def _no_column(line: str, records: Records) -> str:
    names = ", ".join(repr(name[:40]) for name in line.strip()[:400].split(_likely_delimiter(line)))
    if records.fields.mapping:
        return f"the header has not all columns of the mapping {dict(records.fields.mapping)}; it has {names}"
    return (
        f"no column of the header is called content, text or memory; name it with a mapping. It has {names}"
    )


def _likely_delimiter(line: str) -> str:
    return max(DELIMITERS, key=line.count)


class _Runaway(Exception):  # noqa: N818 - a signal, which only `_Table` sees
    """A row spans more than a row can."""


class _Feed:
    """The lines of a file for `csv.reader`, which remembers those of the row at hand, to give them back.

    Attributes:
        number: the line, from 1, that comes next.
        row: the lines of the row at hand.
        damage: what is wrong with one of them as text, whatever the table makes of it.
    """

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._failure: SourceError | None = None
        self.number = 1
        self.row: list[bytes] = []
        self.damage: InvalidFactError | None = None

    def fill(self) -> bool:
        """Read a block if no line is left; False at the end of the file, and at damage."""
        while not self._lines:
            try:
                block = next(self._blocks, None)
            except SourceError as error:  # what is still at hand goes first
                self._failure = error
                return False
            if block is None:
                return False
            self._lines.extend(block[1])
        return True

    def check(self) -> None:
        """Raise the `SourceError` that ended the file before its time, if one did."""
        if self._failure is not None:
            raise self._failure

    @property
    def buffered(self) -> bool:
        """Whether a line is at hand without reading."""
        return bool(self._lines)

    def take(self) -> bytes:
        """Take a line out, one that belongs to no row."""
        self.number += 1
        return self._lines.popleft()

    def begin(self) -> None:
        """Begin a row: what was taken before stays taken."""
        self.row = []
        self.damage = None
        self._size = 0

    def give_back(self) -> None:
        """Give back all lines of the row but the first."""
        self.number -= len(self.row) - 1
        self._lines.extendleft(reversed(self.row[1:]))
        del self.row[1:]

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if len(self.row) >= _MOST_LINES or self._size > _MOST_BYTES:
            raise _Runaway
        if not self.fill():
            raise StopIteration
        line = self.take()
        self.row.append(line)
        self._size += len(line)
        try:
            return decoded(line) + "\n"
        except InvalidFactError as error:
            self.damage = self.damage or error
            return line.decode("utf-8", "surrogateescape") + "\n"


class _Table:
    """The rows below a header."""

    def __init__(self, feed: _Feed, dialect: Dialect, columns: Columns, records: Records) -> None:
        self._feed = feed
        self._dialect = dialect
        self._columns = columns
        self._records = records
        self._rows = self._reader()
        self._suspect = 0

    def _reader(self) -> Iterator[list[str]]:
        # Strict, as otherwise a quote in the wrong place changes the text instead of being told.
        return csv.reader(
            self._feed, delimiter=self._dialect.delimiter, skipinitialspace=self._dialect.spaced, strict=True
        )

    def drain(self) -> Batch:
        """Read all rows that begin in the lines at hand."""
        batch: Batch = []
        while self._feed.buffered:
            item = self._next()
            if item is not None:
                batch.append(item)
        return batch

    def _next(self) -> Entry | None:
        feed = self._feed
        feed.begin()
        number = feed.number
        try:
            row = next(self._rows)
        except (csv.Error, _Runaway) as error:
            self._rows = self._reader()
            return self._broken(_advice(error), number)
        if not any(map(str.strip, row)) and feed.damage is None:
            return None
        return self._refused(row, number) or self._records.add(self._columns.of_row, row, number)

    def _refused(self, row: list[str], number: int) -> Entry | None:
        feed, width = self._feed, self._columns.width
        if feed.damage is not None:
            return self._records.refuse(feed.damage, number)
        if len(row) > width:
            return self._broken(
                f"has {len(row)} cells below {width} columns; quote a text that holds the delimiter",
                number,
            )
        if number <= self._suspect and (len(row) < width or sum(line.count(b'"') for line in feed.row) % 2):
            return self._broken("is a piece of the broken row above it, or has cells missing", number)
        return None

    def _broken(self, why: str, number: int) -> Entry:
        """Refuse the first line of a row, and read the others again: a stray quote may have eaten them."""
        feed = self._feed
        self._suspect = max(self._suspect, feed.number - 1)
        feed.give_back()
        error = InvalidFactError(why, record=shown(feed.row[0]))
        try:
            decoded(feed.row[0])
        except InvalidFactError as damage:
            error = damage
        return self._records.refuse(error, number)


def _advice(error: Exception) -> str:
    if isinstance(error, _Runaway):
        return (
            f"a quote opens here and does not close within {_MOST_LINES} lines; close it, or write it twice"
        )
    reason = str(error)
    if "unexpected end" in reason:
        return "a quote opens here and never closes; close it, or write it twice"
    if "expected after" in reason:
        return "a quote closes in the middle of a cell; write quotes inside of a cell twice"
    return f"is no row of a table: {reason}"


DELIMITERS: Final = ",;\t|"

_WORDS: Final = 2
"""Words in the name of a column, at most, if nothing but the header says that a file is a table."""


@attrs.frozen
class Dialect:
    """How the rows of a table are written.

    Attributes:
        header: the names of the columns.
        delimiter: what stands between the cells.
        spaced: whether a space follows each delimiter, which belongs to no cell.
        columns: the places of the parts of a fact; None if no column holds the text.
    """

    header: list[str]
    delimiter: str
    spaced: bool
    columns: Columns | None


def dialect_of(line: str, fields: Fields) -> Dialect | None:
    """Read a header with each delimiter, and take the one with most columns; None if none has the text."""
    dialects = [_split(line, delimiter, fields) for delimiter in DELIMITERS]
    fitting = [dialect for dialect in dialects if dialect.columns is not None]
    return max(fitting, key=lambda dialect: len(dialect.header), default=None)


def _split(line: str, delimiter: str, fields: Fields) -> Dialect:
    spaced = line.count(delimiter) == line.count(f"{delimiter} ") > 0
    try:
        header = next(csv.reader([line], delimiter=delimiter, skipinitialspace=spaced), [])
    except csv.Error:
        header = []
    return Dialect(header, delimiter, spaced, fields.columns(header))


def reads_as_table(lines: Sequence[str], dialect: Dialect, *, single: bool) -> bool:
    """Whether the lines below a likely header are rows of it, and not sentences with commas.

    The names of two fields make a header whatever stands below. A single column looks like any text; it is a
    table only with `single`.
    """
    width = len(dialect.header)
    if any(len(name.split()) > _WORDS for name in dialect.header):
        return False
    if width == 1:
        return single
    if dialect.columns is not None and dialect.columns.known > 1:
        return True
    rows = csv.reader([f"{line}\n" for line in lines[1:]], delimiter=dialect.delimiter)
    try:
        fits = [len(row) == width for row in rows]
    except csv.Error:  # a cell beyond all bounds: no table that anybody made
        return False
    return sum(fits) * 2 >= len(fits)
