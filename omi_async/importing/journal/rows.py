"""The journal's table: a row for the facts of one call, with a checksum of its own.

SQLite keeps none for its pages, and one bit that flips in a letter of state can turn a fact in doubt into one
that is stored.
"""

from __future__ import annotations

import json as plain_json
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import NoneType
from typing import Any, Final
from zlib import crc32

from omi_async._api import json
from omi_async.importing.journal.row import Row, state_of
from omi_async.importing.report import State

__all__ = ["MIGRATIONS", "ROWS_CACHED", "SCHEMA", "Rows"]

SCHEMA: Final = """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY,
        server TEXT NOT NULL,   -- its name
        sent_at REAL NOT NULL,  -- epoch seconds of the first sending
        keys BLOB NOT NULL,     -- 16 bytes a fact
        states TEXT NOT NULL,   -- a letter a fact
        ids BLOB,               -- JSON: the memory's id of each fact, or null
        facts BLOB,             -- JSON: the facts that are not safely stored, by their place in the row
        errors BLOB,            -- JSON: why, by their place in the row
        clock_offset REAL,      -- seconds that the server's clock was ahead, once an answer told
        settled_at REAL,        -- epoch seconds of the last settling
        checksum INTEGER NOT NULL
    )
"""

MIGRATIONS: Final = {
    1: (
        "ALTER TABLE batches ADD COLUMN clock_offset REAL",
        "ALTER TABLE batches ADD COLUMN settled_at REAL",
    )
}
"""What makes of an earlier version's table the next one's."""

_SELECT: Final = """
    SELECT id, server, sent_at, keys, states, ids, facts, errors, clock_offset, settled_at, checksum
    FROM batches
"""
_INSERT: Final = """
    INSERT INTO batches
    (id, server, sent_at, keys, states, ids, facts, errors, clock_offset, settled_at, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE: Final = """
    UPDATE batches
    SET states = ?, ids = ?, facts = ?, errors = ?, clock_offset = ?, settled_at = ?, checksum = ?
    WHERE id = ?
"""

ROWS_CACHED: Final = 64
"""Rows kept in memory. A row is written twice within seconds, before its call and after it, and mostly never
again: a few more than calls can be in flight save the reading before the second time."""

_TYPES: Final = {kind: kind.__name__.encode() for kind in (int, float, str, bytes, NoneType)}


class Rows:
    """Reads and writes rows, and keeps a few in memory.

    Every method raises `sqlite3.Error`, also if a row is damaged.

    Attributes:
        last: the highest number of a row so far.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._cached: OrderedDict[int, Row] = OrderedDict()
        (last,) = database.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()
        self.last: int = last

    def __iter__(self) -> Iterator[Row]:
        """Yield all, in the order in which they were made."""
        last = 0
        # By numbers and not by one cursor: `Journal.forget` changes rows between two steps, and what an open
        # cursor shows then is undefined.
        while some := self._database.execute(
            f"{_SELECT} WHERE id > ? ORDER BY id LIMIT {ROWS_CACHED}", (last,)
        ).fetchall():
            yield from map(_read, some)
            last = some[-1][0]

    def all_keys(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the keys of every row, and check that every row is sound."""
        for columns in self._database.execute(_SELECT):
            if _checksum(columns[:-1]) != columns[-1]:
                raise sqlite3.DatabaseError(f"row {columns[0]} is damaged")
            yield columns[0], columns[3]

    def counts(self) -> dict[str, dict[State, int]]:
        """Count the facts of each server by state."""
        letters: dict[str, Counter[str]] = {}
        for server, states in self._database.execute("SELECT server, states FROM batches"):
            letters.setdefault(_name(server), Counter()).update(states)
        counts: dict[str, dict[State, int]] = {}
        for server, of_server in letters.items():
            by_state = Counter[State]()
            for letter, count in of_server.items():
                by_state[state_of(letter)] += count
            counts[server] = dict(by_state)
        return counts

    def forget(self, letters: AbstractSet[str]) -> int:
        """Let the facts with these letters count as not sent; return how many there are."""
        forgotten = 0
        for row in self:
            forgotten += row.forget(letters)
            self.update(row)
        self.forget_cached()
        return forgotten

    def expire(self, before: float) -> Iterator[Row]:
        """Forget what was settled before a moment; yield the rows that are gone with that."""
        for row in self:
            if row.settled_at is None:
                continue
            if row.settled_at >= before:
                break  # later rows were settled later, but for some that were in doubt
            if row.forget_settled():
                self.update(row)
            else:
                self._cached.pop(row.number, None)
                self._database.execute("DELETE FROM batches WHERE id = ?", (row.number,))
                yield row

    def get(self, number: int) -> Row:
        """Return a row, the same object as long as it is cached."""
        row = self._cached.get(number)
        if row is not None:
            self._cached.move_to_end(number)
            return row
        columns = self._database.execute(f"{_SELECT} WHERE id = ?", (number,)).fetchone()
        if columns is None:
            raise sqlite3.DatabaseError(f"row {number} is missing")
        row = _read(columns)
        self._cache(row)
        return row

    def next_number(self) -> int:
        """Return the number for a new row; none is returned twice, whatever becomes of the row.

        If a row could not be written, items may still carry its places; they must never mean other facts.
        """
        self.last += 1
        return self.last

    def insert(self, row: Row) -> None:
        """Write a new row."""
        fixed, changing = _fixed_columns(row), _changing_columns(row)
        checksum = _checksum((*fixed, *changing))
        self._database.execute(_INSERT, (*fixed, *changing, checksum))
        self._cache(row)

    def _cache(self, row: Row) -> None:
        self._cached[row.number] = row
        if len(self._cached) > ROWS_CACHED:
            self._cached.popitem(last=False)

    def update(self, row: Row) -> None:
        """Write what has changed in a row: anything but its keys, server and time."""
        changing = _changing_columns(row)
        checksum = _checksum((*_fixed_columns(row), *changing))
        try:
            self._database.execute(_UPDATE, (*changing, checksum, row.number))
        except BaseException:
            self.forget_cached()
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write several rows or, if something goes wrong, none. A single one needs no transaction."""
        self._database.execute("BEGIN")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self.forget_cached()
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def forget_cached(self) -> None:
        """Read rows from the disk again: what is cached may never have got there."""
        self._cached.clear()


def _fixed_columns(row: Row) -> tuple[Any, ...]:
    return row.number, _stored_name(row.server), row.sent_at, row.keys


def _changing_columns(row: Row) -> tuple[Any, ...]:
    ids = row.ids if any(row.ids) else None
    # Words may hold half of a surrogate pair, as a file's name does that is no UTF-8; only the standard
    # library writes and reads those, as escapes.
    errors = plain_json.dumps(row.errors).encode() if row.errors else None
    return "".join(row.states), _dump(ids), _dump(row.facts), errors, row.clock_offset, row.settled_at


def _dump(value: list[Any] | dict[str, Any] | None) -> bytes | None:
    # All of it was checked when it was made or read: facts, and ids that an answer held.
    return json.dumps_checked(value) if value else None


def _read(columns: Sequence[Any]) -> Row:
    number, server, sent_at, keys, states, ids, facts, errors, clock_offset, settled_at, _ = columns
    return Row(
        number,
        _name(server),
        sent_at,
        keys,
        list(states),
        json.loads(ids) if ids else [None] * len(states),
        json.loads(facts) if facts else {},
        plain_json.loads(errors) if errors else {},
        clock_offset,
        settled_at,
    )


def _stored_name(server: str) -> str | bytes:
    """Return a server's name as it is stored: SQLite's texts hold no half of a surrogate pair."""
    try:
        server.encode()
    except UnicodeEncodeError:
        return server.encode(errors="surrogatepass")
    return server


def _name(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode(errors="surrogatepass")


def _checksum(columns: Sequence[Any]) -> int:
    """Return the checksum over the columns of a row."""
    # The rows of schema 1 had no clock and no time of settling.
    summed = columns[:-2] if columns[-2:] == (None, None) else columns
    checksum = 0
    for column in summed:
        # Type and length go in too: a bit that flips in a record's header makes another value of equal bytes,
        # or moves a byte from one column to the next.
        data = column if isinstance(column, bytes) else str(column).encode()
        checksum = crc32(data, crc32(b"%b %d " % (_TYPES[type(column)], len(data)), checksum))
    return checksum
