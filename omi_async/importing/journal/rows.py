"""The journal's table: a row for the facts of one call, with a checksum of its own.

SQLite keeps none for its pages, and one bit that flips in a letter of state can turn a fact in doubt into one
that is stored.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, Final
from zlib import crc32

import attrs

from omi_async._api import json
from omi_async.importing.item import KEY_BYTES, Item
from omi_async.importing.report import State

__all__ = [
    "IN_DOUBT",
    "LETTERS",
    "ROW",
    "SCHEMA",
    "SENDING",
    "STATES",
    "STORED",
    "Entry",
    "Recalled",
    "Row",
    "Rows",
    "letter_of",
    "recalled",
    "writable",
]

SENDING: Final = "s"
LETTERS: Final[dict[State, str]] = {
    "created": "c",
    "existing": "e",
    "rejected": "r",
    "unknown": "u",
    "invalid": "i",
    "not_sent": "n",
}
STATES: Final[dict[str, State]] = {letter: state for state, letter in LETTERS.items()}
STORED: Final = frozenset("ce")
SETTLED: Final = frozenset("cer")
REWORDED: Final = "a"
"""Unknown, and perhaps stored in other words: a look that does not find its text proves nothing."""

IN_DOUBT: Final = frozenset("sua")


@attrs.frozen
class Recalled:
    """What the journal knows of a fact from an earlier run.

    Attributes:
        place: its place in the journal.
        state: what became of it; None if it was not sent, or is in doubt.
        in_doubt: a call carried it, and no answer told whether it was stored.
        maybe_reworded: the server may hold it in other words, so that its absence proves nothing.
        memory_id: the id of its memory, if one is known.
        words: why it was rejected.
        fact: what was sent of it; None once it is safely stored, and always with `texts=False`.
        sent_at: when it was about to be sent for the first time, in epoch seconds.
    """

    place: int
    state: State | None
    in_doubt: bool
    maybe_reworded: bool
    memory_id: str | None
    words: str | None
    fact: dict[str, Any] | None
    sent_at: float


@attrs.frozen
class Entry:
    """A fact that is not safely stored, as `Journal.unfinished` gives it. Without texts, `fact` is None."""

    server: str
    state: State
    fact: dict[str, Any] | None
    error: str | None


def recalled(place: int, row: Row) -> Recalled:
    """Return what a row knows of the fact at a place."""
    at = place % ROW
    letter = row.states[at]
    state = STATES[letter] if letter in SETTLED else None
    return Recalled(
        place=place,
        state=state,
        in_doubt=letter in IN_DOUBT,
        maybe_reworded=letter == REWORDED,
        memory_id=row.ids[at],
        words=row.errors.get(str(at)),
        fact=row.facts.get(str(at)),
        sent_at=row.sent_at,
    )


def letter_of(item: Item) -> str:
    """Return the letter for what became of an item."""
    return REWORDED if item.state == "unknown" and item.maybe_reworded else LETTERS[item.state or "unknown"]


ROW: Final = 32
"""Places reserved for the facts of a row, of which a call carries 25 at most. The row's number follows from a
place, so that the index need not keep both."""

SCHEMA: Final = (
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY,
        server TEXT NOT NULL,   -- its name
        sent_at REAL NOT NULL,  -- epoch seconds of the first sending
        keys BLOB NOT NULL,     -- 16 bytes a fact
        states TEXT NOT NULL,   -- a letter a fact
        ids BLOB,               -- JSON: the memory's id of each fact, or null
        facts BLOB,             -- JSON: the facts that are not safely stored, by their place in the row
        errors BLOB,            -- JSON: why, by their place in the row
        checksum INTEGER NOT NULL
    )
    """,
)

_SELECT: Final = "SELECT id, server, sent_at, keys, states, ids, facts, errors, checksum FROM batches"
_INSERT: Final = (
    "INSERT INTO batches (server, sent_at, keys, states, facts, checksum, id) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE: Final = "UPDATE batches SET states = ?, ids = ?, facts = ?, errors = ?, checksum = ? WHERE id = ?"

ROWS_CACHED: Final = 64
"""Rows kept in memory. A row is written twice within seconds, before its call and after it, and mostly never
again: a few more than calls can be in flight save the reading before the second time."""

_TYPES: Final = {kind: kind.__name__.encode() for kind in (int, float, str, bytes, NoneType)}


@attrs.define(eq=False)
class Row:
    """A row in memory; its columns by fact.

    Attributes:
        facts: by the place in the row, which is a string, as JSON wants its keys.
        errors: likewise.
        sum_of_fixed: the checksum of the columns that never change.
    """

    number: int
    server: str
    sent_at: float
    keys: bytes
    states: list[str]
    ids: list[str | None]
    facts: dict[str, Any]
    errors: dict[str, str]
    sum_of_fixed: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sum_of_fixed = _checksum((self.number, self.server, self.sent_at, self.keys))

    def key(self, at: int) -> bytes:
        """Return the content key of a fact."""
        return self.keys[at * KEY_BYTES : (at + 1) * KEY_BYTES]

    @property
    def places(self) -> list[int]:
        """The places of its facts in the journal."""
        return [*range(self.number * ROW, self.number * ROW + len(self.states))]


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
            _check(columns)
            yield columns[0], columns[3]

    def all_states(self) -> Iterator[tuple[str, str]]:
        """Yield the server and the letters of every row."""
        yield from self._database.execute("SELECT server, states FROM batches")

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
        """Write a new row; it has neither ids nor errors yet."""
        states, _, facts, _ = columns = _columns(row)
        checksum = _checksum(columns, row.sum_of_fixed)
        self._database.execute(
            _INSERT, (row.server, row.sent_at, row.keys, states, facts, checksum, row.number)
        )
        self._cache(row)

    def _cache(self, row: Row) -> None:
        self._cached[row.number] = row
        if len(self._cached) > ROWS_CACHED:
            self._cached.popitem(last=False)

    def update(self, row: Row) -> None:
        """Write what has changed in a row: anything but its keys, server and time."""
        columns = _columns(row)
        try:
            self._database.execute(_UPDATE, (*columns, _checksum(columns, row.sum_of_fixed), row.number))
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


def _columns(row: Row) -> tuple[str, bytes | None, bytes | None, bytes | None]:
    """Return the columns that change."""
    ids = row.ids if any(row.ids) else None
    return "".join(row.states), _dump(ids), _dump(row.facts), _dump(row.errors)


def _dump(value: list[Any] | dict[str, Any] | None) -> bytes | None:
    # All of it was checked when it was made or read: facts, ids that an answer held, words that are writable.
    return json.dumps_checked(value) if value else None


def _read(columns: Sequence[Any]) -> Row:
    number, server, sent_at, keys, states, ids, facts, errors, _ = columns
    return Row(
        number,
        server,
        sent_at,
        keys,
        list(states),
        json.loads(ids) if ids else [None] * len(states),
        json.loads(facts) if facts else {},
        json.loads(errors) if errors else {},
    )


def _check(columns: Sequence[Any]) -> None:
    if _checksum(columns[:-1]) != columns[-1]:
        raise sqlite3.DatabaseError(f"row {columns[0]} is damaged")


def _checksum(columns: Iterable[Any], checksum: int = 0) -> int:
    """Go on with a checksum over further columns."""
    for column in columns:
        # Type and length go in too: a bit that flips in a record's header makes another value of equal bytes,
        # or moves a byte from one column to the next.
        data = column if isinstance(column, bytes) else str(column).encode()
        checksum = crc32(data, crc32(b"%b %d " % (_TYPES[type(column)], len(data)), checksum))
    return checksum


def writable(words: str) -> str:
    """Replace what is no Unicode text; a file's name may hold half of a surrogate pair."""
    return words.encode(errors="replace").decode()
