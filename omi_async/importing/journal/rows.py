"""The journal's table: a row for the facts that were packed together, with a checksum of its own.

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
ALTERED: Final = "a"  # unknown, and perhaps stored in other words
IN_DOUBT: Final = frozenset("sua")


@attrs.frozen
class Recalled:
    """What the journal knows of a fact from an earlier run.

    Attributes:
        place: where it stands in the journal.
        state: what became of it; None where it was not sent, or is in doubt.
        in_doubt: a call carried it and nobody knows whether it was stored.
        altered: it may stand at the server in other words, so that its absence proves nothing.
        memory_id: the id of its memory, where one is known.
        words: why it was rejected.
        fact: what was sent of it, where that is kept: of one that is not safely stored, unless `texts=False`.
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
    """A fact that is not safely stored, as `Journal.unfinished` tells it. Without texts, `fact` is None."""

    server: str
    state: State
    fact: dict[str, Any] | None
    error: str | None


def recalled(place: int, row: Row) -> Recalled:
    """Read from a row what is known of the fact at a place."""
    at = place % ROW
    letter = row.states[at]
    state = STATES[letter] if letter in SETTLED else None
    return Recalled(
        place=place,
        state=state,
        in_doubt=letter in IN_DOUBT,
        maybe_reworded=letter == ALTERED,
        memory_id=row.ids[at],
        words=row.errors.get(str(at)),
        fact=row.facts.get(str(at)),
        sent_at=row.sent_at,
    )


def letter_of(item: Item) -> str:
    """Return the letter for what became of an item."""
    return ALTERED if item.state == "unknown" and item.maybe_reworded else LETTERS[item.state]


ROW: Final = 32
"""Places reserved for the facts of a row; a power of two above 25."""

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
        checksum INTEGER NOT NULL
    )
"""

_SELECT: Final = "SELECT id, server, sent_at, keys, states, ids, facts, errors, checksum FROM batches"
_INSERT: Final = (
    "INSERT INTO batches (server, sent_at, keys, states, facts, checksum, id) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE: Final = "UPDATE batches SET states = ?, checksum = ?, ids = ?, facts = ?, errors = ? WHERE id = ?"
_UPDATE_STORED: Final = _UPDATE.replace("facts = ?, errors = ?", "facts = NULL, errors = NULL")
"""What is mostly NULL is so by the words: `sqlite3` looks for an adapter for each None that it binds."""

ROWS_CACHED: Final = 64

_TYPES: Final = {kind: kind.__name__.encode() for kind in (int, float, str, bytes, NoneType)}


@attrs.define(eq=False)
class Row:
    """A row in memory; its columns by fact.

    Attributes:
        facts: by the place in the row, as JSON wants its keys: a string.
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
        """Where its facts stand in the journal."""
        return [*range(self.number * ROW, self.number * ROW + len(self.states))]


class Rows:
    """Reads and writes rows, and keeps a few at hand: those on their way are used again soon.

    Every method raises `sqlite3.Error`, also where a row is damaged.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._cached: OrderedDict[int, Row] = OrderedDict()
        (last,) = database.execute("SELECT ifnull(max(id), 0) FROM batches").fetchone()
        self._last: int = last

    def __iter__(self) -> Iterator[Row]:
        """Give all, in the order in which they were made."""
        last = 0
        while some := self._database.execute(
            f"{_SELECT} WHERE id > ? ORDER BY id LIMIT {ROWS_CACHED}", (last,)
        ).fetchall():
            yield from map(_read, some)
            last = some[-1][0]

    def all_keys(self) -> Iterator[tuple[int, bytes]]:
        """Give the number and the keys of every row, once, and see that every row is sound."""
        for columns in self._database.execute(_SELECT):
            _check(columns)
            yield columns[0], columns[3]

    def all_states(self) -> Iterator[tuple[str, str]]:
        """Give the server and the letters of every row."""
        yield from self._database.execute("SELECT server, states FROM batches")

    def cached(self, number: int) -> Row | None:
        """Give a row that is at hand."""
        row = self._cached.get(number)
        if row is not None:
            self._cached.move_to_end(number)
        return row

    def get(self, number: int) -> Row:
        """Give a row, the same object as long as it is cached."""
        row = self.cached(number)
        if row is None:
            columns = self._database.execute(f"{_SELECT} WHERE id = ?", (number,)).fetchone()
            if columns is None:
                raise sqlite3.DatabaseError(f"row {number} is missing")
            row = _read(columns)
            self._cache(row)
        return row

    def next_number(self) -> int:
        """Give the number of a row to be made; no number is given twice, whatever becomes of the row."""
        self._last += 1
        return self._last

    def insert(self, row: Row) -> None:
        """Write a new row; it has neither ids nor errors yet."""
        states, _, facts, _ = columns = _columns(row)
        checksum = _checksum(columns, row.sum_of_fixed)
        self._database.execute(
            _INSERT, (row.server, row.sent_at, _blob(row.keys), states, _blob(facts), checksum, row.number)
        )
        self._cache(row)

    def _cache(self, row: Row) -> None:
        self._cached[row.number] = row
        if len(self._cached) > ROWS_CACHED:
            self._cached.popitem(last=False)

    def update(self, row: Row) -> None:
        """Write what has changed in a row: anything but its keys, server and time."""
        states, ids, facts, errors = columns = _columns(row)
        changed = [states, _checksum(columns, row.sum_of_fixed), _blob(ids)]
        try:
            if facts is errors is None:
                self._database.execute(_UPDATE_STORED, (*changed, row.number))
            else:
                self._database.execute(_UPDATE, (*changed, _blob(facts), _blob(errors), row.number))
        except BaseException:
            self.forget_cached()
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write several rows or, where something goes wrong, none. A single one needs no transaction."""
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


def _blob(data: bytes | None) -> bytearray | None:
    """Make of bytes what `sqlite3` binds as it is; for bytes, too, it looks for an adapter."""
    return None if data is None else bytearray(data)


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
        data = column if isinstance(column, bytes) else str(column).encode()
        checksum = crc32(data, crc32(b"%b %d " % (_TYPES[type(column)], len(data)), checksum))
    return checksum


def writable(words: str) -> str:
    """Replace what is no Unicode text; a file's name may hold half surrogate pairs."""
    return words.encode(errors="replace").decode()
