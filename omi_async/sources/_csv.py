"""Tables: CSV and its kin, with a bound on what one stray quote can swallow."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Final

import attrs

from omi_async.errors import InvalidFactError
from omi_async.sources._columns import USUAL, Columns, columns_of, in_one_form
from omi_async.sources._errors import SourceError
from omi_async.sources._lines import Block, Lines, clean
from omi_async.sources._options import ReadOptions
from omi_async.sources._records import Batch, Records, decoded, shown

__all__ = ["DELIMITERS", "Dialect", "dialect_of", "read_csv"]

DELIMITERS: Final = ",;\t|"

_MOST_LINES: Final = 512
_MOST_BYTES: Final = 64 * 1024
"""What one row may span. A fact has 500 characters; whatever is longer has lost its closing quote."""

_HEADER_LINES: Final = 50
"""Lines that a header may span: more of them is a quote that never closes."""


def read_csv(lines: Lines, records: Records) -> Iterator[Batch]:
    """Read a fact of each row below the header; rows of empty cells are skipped.

    A row that breaks is one invalid outcome, and reading goes on with the line after its first. Raises
    `SourceError` if no column holds the text, or two may.
    """
    feed = _Feed(lines.blocks())
    header = _header_lines(feed)
    if not header:
        return
    number = feed.number
    dialect = dialect_of(header, records.options)
    if dialect is None:
        raise SourceError.at(records.name, number, _no_column(header[0], records.options))
    if dialect.columns.problem:
        raise SourceError.at(records.name, number, dialect.columns.problem)
    for _ in range(dialect.lines):
        feed.take()
    table = _Table(feed, dialect, records)
    while feed.fill():
        yield table.drain()
    feed.check()


def _header_lines(feed: _Feed) -> list[str]:
    """Return the lines that begin with the header, past the ``sep=;`` that Excel writes for itself."""
    while feed.fill():
        line = feed.ahead(1)[0].strip("\r\n")
        if line.strip() and not line.lower().startswith("sep="):
            while _is_open(header := feed.ahead(_HEADER_LINES)) and feed.more():
                pass
            return header
        feed.take()
    feed.check()
    return []


def _is_open(lines: Sequence[str]) -> bool:
    """Whether a quote opens in the first line that none of these lines closes."""
    quotes = accumulate(line.count('"') for line in lines)
    return len(lines) < _HEADER_LINES and all(number % 2 for number in quotes)


def _no_column(line: str, options: ReadOptions) -> str:
    line = line.strip("\r\n")
    delimiter = max(DELIMITERS, key=line.count)
    names = [name.strip().strip('"') for name in line[:400].split(delimiter)]
    have = f"it has {', '.join(repr(name[:40]) for name in names)}"
    wanted = [name for name in options.fields.mapping.values() if name]
    wanted += options.fields.template.names if options.fields.template else []
    wanted += options.where.values
    known = [in_one_form(name) for name in names]
    if missing := [name for name in wanted if in_one_form(name) not in known]:
        what = ", ".join(map(repr, missing))
        mapped = f"the header has not all columns of the mapping {dict(options.fields.mapping)}; "
        return f"{mapped if options.fields.mapping else ''}there is no column {what}; {have}"
    return (
        f"no column of the header is called {USUAL}; name the one with the text (--map content=NAME), or make"
        f" a sentence of several (--template); {have}"
    )


@attrs.frozen
class Dialect:
    """How the rows of a table are written.

    Attributes:
        delimiter: what stands between the cells.
        columns: where the parts of a fact stand.
        spaced: whether a space follows each delimiter, which belongs to no cell.
        lines: how many lines the header has.
    """

    delimiter: str
    columns: Columns
    spaced: bool = False
    lines: int = 1

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self.columns.width

    def rows(self, lines: Iterable[str], *, spaced: bool = False) -> Iterator[list[str]]:
        """Return the rows of lines; raises `csv.Error` at a quote in the wrong place.

        Args:
            lines: the lines, each with its end.
            spaced: whether spaces in front of a cell are no part of it, whatever the header shows.
        """
        # Strict, as otherwise a quote in the wrong place changes the text instead of being told.
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=spaced or self.spaced, strict=True
        )

    def lenient_rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Return rows to be counted only. Raises `ValueError` for a cell beyond all bounds."""
        try:
            yield from csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True)
        except csv.Error as error:
            raise ValueError(str(error)) from error


def dialect_of(lines: Sequence[str], options: ReadOptions) -> Dialect | None:
    """Read a header with each delimiter, and take the one with most columns; None if none has the text."""
    dialects = [dialect for mark in DELIMITERS if (dialect := _dialect(lines, mark, options)) is not None]
    return max(dialects, key=lambda dialect: dialect.width, default=None)


def _dialect(lines: Sequence[str], delimiter: str, options: ReadOptions) -> Dialect | None:
    rows = csv.reader(
        [line.rstrip("\r\n") + "\n" for line in lines[:_HEADER_LINES]],
        delimiter=delimiter,
        skipinitialspace=True,
    )
    try:
        header = next(rows, [])
    except csv.Error:
        return None
    columns = columns_of(header, options)
    if columns is None:
        return None
    spaced = lines[0].count(delimiter) == lines[0].count(f"{delimiter} ") > 0
    return Dialect(delimiter, columns, spaced, rows.line_num)


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
            if not self.more():
                return False
        return True

    def more(self) -> bool:
        """Read a block behind what is at hand; False if there is none."""
        try:
            block = next(self._blocks, None)
        except SourceError as error:  # what is still at hand goes first
            self._failure = error
            return False
        if block is not None:
            self._lines.extend(block[1])
        return block is not None

    def check(self) -> None:
        """Raise the `SourceError` that ended the file before its time, if one did."""
        if self._failure is not None:
            raise self._failure

    @property
    def buffered(self) -> bool:
        """Whether a line is at hand without reading."""
        return bool(self._lines)

    def ahead(self, most: int) -> list[str]:
        """Return the lines that come next, as far as they are at hand, without taking them."""
        return [clean(line).decode("utf-8", "replace") for line in islice(self._lines, most)]

    def take(self) -> bytes:
        """Take a line out, one that belongs to no row."""
        self.number += 1
        return self._lines.popleft()

    def begin(self) -> None:
        """Begin a row: what was taken before stays taken."""
        self.row = []
        self.damage = None
        self._size = 0

    def again(self) -> list[str]:
        """Return the lines of the row once more, as they were handed out."""
        return [line.decode("utf-8", "surrogateescape") + "\n" for line in self.row]

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
        if not self.row:  # inside of a cell it would be text
            line = clean(line)
        self.row.append(line)
        self._size += len(line)
        try:
            return decoded(line) + "\n"
        except InvalidFactError as error:
            self.damage = self.damage or error
            return line.decode("utf-8", "surrogateescape") + "\n"


class _Table:
    """The rows below a header."""

    def __init__(self, feed: _Feed, dialect: Dialect, records: Records) -> None:
        self._feed = feed
        self._dialect = dialect
        self._columns = dialect.columns
        self._records = records
        self._rows = dialect.rows(feed)
        self._suspect = 0
        self._header = list(dialect.columns.header)

    def drain(self) -> Batch:
        """Read all rows that begin in the lines at hand."""
        batch: Batch = []
        while self._feed.buffered:
            batch += self._next()
        return batch

    def _next(self) -> Batch:
        feed = self._feed
        feed.begin()
        number = feed.number
        try:
            row = next(self._rows)
            if b' "' in b"".join(feed.row) and any(cell.lstrip(" ")[:1] == '"' != cell[:1] for cell in row):
                # A space in front of a quoted cell would make its quotes, and its commas, part of the text.
                row = next(self._dialect.rows(feed.again(), spaced=True))
        except (csv.Error, _Runaway) as error:
            self._rows = self._dialect.rows(feed)
            return self._broken(_advice(error), number)
        if not any(map(str.strip, row)) and feed.damage is None:
            return []
        return self._refused(row, number) or self._entries(row, number)

    def _entries(self, row: list[str], number: int) -> Batch:
        records, columns = self._records, self._columns
        if row == self._header:  # files joined by `cat` have a header each
            records.leave_out("repeated header")
            return []
        if not columns.wants(row):
            records.leave_out("not chosen by where")
            return []
        try:
            parts = columns.parts_of(row)
            if records.options.plain:
                return [records.fact(parts, number)]
        except InvalidFactError as error:
            if records.options.plain and error.field == "category":
                error = records.bad_category(error, columns.category_from)
            error.record = columns.record_of(row)
            return [records.refuse(error, number)]
        return records.entries(parts, number, columns.record_of(row), category_from=columns.category_from)

    def _refused(self, row: list[str], number: int) -> Batch:
        feed, width = self._feed, self._columns.width
        if feed.damage is not None:
            return [self._records.refuse(feed.damage, number)]
        if any(map(str.strip, row[width:])):  # empty cells too many are a comma at the end of the line
            return self._broken(
                f"has {len(row)} cells below {width} columns; quote a text that holds the delimiter",
                number,
            )
        if number <= self._suspect and (len(row) < width or sum(line.count(b'"') for line in feed.row) % 2):
            return self._broken("is a piece of the broken row above it, or has cells missing", number)
        return []

    def _broken(self, why: str, number: int) -> Batch:
        """Refuse the first line of a row, and read the others again: a stray quote may have eaten them."""
        feed = self._feed
        self._suspect = max(self._suspect, feed.number - 1)
        feed.give_back()
        error = InvalidFactError(why, record=shown(feed.row[0]))
        try:
            decoded(feed.row[0])
        except InvalidFactError as damage:
            error = damage
        return [self._records.refuse(error, number)]


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
