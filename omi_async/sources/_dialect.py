"""The delimiter of a table and the columns of its header."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Final

import attrs

from omi_async.sources._fields import Columns, Fields

__all__ = ["DELIMITERS", "Dialect", "dialect_of", "reads_as_table"]

DELIMITERS: Final = ",;\t|"

_WORDS: Final = 2
"""Words in the name of a column, at most, where nothing but the header says that a file is a table."""


@attrs.frozen
class Dialect:
    """How the rows of a table are written.

    Attributes:
        header: the names of the columns.
        delimiter: what stands between the cells.
        spaced: whether a space follows each delimiter, which belongs to no cell.
        columns: where the parts of a fact stand, or None where nothing is the text.
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
