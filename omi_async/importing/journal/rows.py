"""The journal's table: a row for the facts of one call, with a checksum of its own.

SQLite keeps none for its pages, and one bit that flips in a letter of state can turn a fact in doubt into one
that is stored.
"""

from __future__ import annotations

import json as plain_json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import NoneType
from typing import Any, Final
from zlib import crc32

import attrs

from omi_async._api import json
from omi_async.errors import OmiError
from omi_async.fact import Payload
from omi_async.importing.item import KEY_BYTES, Item
from omi_async.importing.report import State

__all__ = [
    "ALL_LETTERS",
    "IN_DOUBT",
    "MIGRATIONS",
    "NOT_SENT",
    "ROW",
    "SCHEMA",
    "SENDING",
    "SUSPECTED",
    "Entry",
    "Recalled",
    "Row",
    "Rows",
    "kept_words",
    "letter_of",
    "recalled",
    "state_of",
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
NOT_SENT: Final = LETTERS["not_sent"]
ALL_LETTERS: Final = frozenset({*STATES, *IN_DOUBT})


@attrs.frozen
class Recalled:
    """What the journal knows of a fact from an earlier run.

    Attributes:
        place: its place in the journal; None if it has none.
        state: what became of it; None if it was not sent, or is in doubt.
        in_doubt: a call carried it, and no answer told whether it was stored.
        maybe_reworded: the server may hold it in other words, so that its absence proves nothing.
        memory_id: the id of its memory, if one is known.
        words: why it was rejected.
        fact: what was sent of it; None once it is safely stored, and always with `texts=False`.
        sent_at: when it was about to be sent for the first time, in epoch seconds of the client's clock then;
            None if that is not known.
        clock_offset: seconds that the server's clock was ahead of that one; None if no answer had told.
    """

    place: int | None
    state: State | None
    in_doubt: bool
    maybe_reworded: bool
    memory_id: str | None
    words: str | None
    fact: dict[str, Any] | None
    sent_at: float | None
    clock_offset: float | None


SUSPECTED: Final = Recalled(
    place=None,
    state=None,
    in_doubt=True,
    maybe_reworded=False,
    memory_id=None,
    words=None,
    fact=None,
    sent_at=None,
    clock_offset=None,
)
"""What is known of a fact that another process may have sent, whose journal is another one."""


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
        clock_offset=row.clock_offset,
    )


def state_of(letter: str) -> State:
    """Return the state that a letter is told as: `unknown` for all that is in doubt."""
    return STATES.get(letter, "unknown")


def letter_of(item: Item) -> str:
    """Return the letter for what became of an item."""
    return REWORDED if item.state == "unknown" and item.maybe_reworded else LETTERS[item.state or "unknown"]


ROW: Final = 32
"""Places reserved for the facts of a row, of which a call carries 25 at most. The row's number follows from a
place, so that the index need not keep both."""

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
    INSERT INTO batches (server, sent_at, keys, states, facts, clock_offset, checksum, id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
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
    clock_offset: float | None = None
    settled_at: float | None = None
    sum_of_fixed: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sum_of_fixed = _checksum((self.number, _stored_name(self.server), self.sent_at, self.keys))

    def key(self, at: int) -> bytes:
        """Return the content key of a fact."""
        return self.keys[at * KEY_BYTES : (at + 1) * KEY_BYTES]

    def become(  # what is known of a fact
        self,
        at: int,
        letter: str,
        memory_id: str | None,
        *,
        fact: Payload | None,
        error: OmiError | None,
        texts: bool,
    ) -> None:
        """Note what became of a fact; of one that is safely stored, the text is not needed any more."""
        place = str(at)
        self.states[at], self.ids[at] = letter, memory_id
        self.errors.pop(place, None)
        if letter in STORED:
            self.facts.pop(place, None)
        elif texts and fact is not None:
            self.facts[place] = fact
        elif texts and error is not None:
            self.errors[place] = kept_words(error)

    def forget(self, letters: AbstractSet[str]) -> int:
        """Let the facts with these letters count as not sent; return how many there are."""
        found = [at for at, letter in enumerate(self.states) if letter in letters]
        for at in found:
            self.states[at], self.ids[at] = NOT_SENT, None
            self.errors.pop(str(at), None)
        return len(found)

    def forget_settled(self) -> bool:
        """Let all but the facts in doubt count as not sent; return whether there are any in doubt."""
        self.settled_at = None
        self.forget(ALL_LETTERS - IN_DOUBT)
        return not IN_DOUBT.isdisjoint(self.states)

    def unfinished(self) -> Iterator[Entry]:
        """Yield the facts that are not safely stored."""
        for at, letter in enumerate(self.states):
            if letter not in STORED:
                yield Entry(self.server, state_of(letter), self.facts.get(str(at)), self.errors.get(str(at)))


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
            if _checksum(_summed(columns[:-1])) != columns[-1]:
                raise sqlite3.DatabaseError(f"row {columns[0]} is damaged")
            yield columns[0], columns[3]

    def all_states(self) -> Iterator[tuple[str, str]]:
        """Yield the server and the letters of every row."""
        for server, letters in self._database.execute("SELECT server, states FROM batches"):
            yield _name(server), letters

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
        columns = _columns(row)
        checksum = _checksum(_summed(columns), row.sum_of_fixed)
        states, _, facts, *_ = columns
        self._database.execute(
            _INSERT,
            (
                *(_stored_name(row.server), row.sent_at, row.keys, states, facts, row.clock_offset),
                *(checksum, row.number),
            ),
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
            checksum = _checksum(_summed(columns), row.sum_of_fixed)
            self._database.execute(_UPDATE, (*columns, checksum, row.number))
        except BaseException:
            self.forget_cached()
            raise

    def delete(self, number: int) -> None:
        """Delete a row; its room in the file is used again."""
        self._cached.pop(number, None)
        self._database.execute("DELETE FROM batches WHERE id = ?", (number,))

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


def _columns(row: Row) -> tuple[Any, ...]:
    """Return the columns that change."""
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


def _summed(columns: Sequence[Any]) -> Sequence[Any]:
    """Return what the checksum is over; the rows of schema 1 had no clock and no time of settling."""
    return columns[:-2] if columns[-2:] == (None, None) else columns


def _checksum(columns: Iterable[Any], checksum: int = 0) -> int:
    """Go on with a checksum over further columns."""
    for column in columns:
        # Type and length go in too: a bit that flips in a record's header makes another value of equal bytes,
        # or moves a byte from one column to the next.
        data = column if isinstance(column, bytes) else str(column).encode()
        checksum = crc32(data, crc32(b"%b %d " % (_TYPES[type(column)], len(data)), checksum))
    return checksum


LONGEST_WORDS: Final = 500
"""Characters of an error that are kept. They may be a server's, and fill a disk or a screen."""


def kept_words(error: OmiError) -> str:
    """Return what an error says in one line of bounded length, without the escapes of terminals."""
    words = str(error)
    kept = "".join(sign if sign.isprintable() or _is_half(sign) else " " for sign in words[:LONGEST_WORDS])
    return f"{kept}..." if len(words) > LONGEST_WORDS else kept


def _is_half(sign: str) -> bool:
    """Return whether it is half of a surrogate pair: a byte of a file's name that is no UTF-8."""
    return "\ud800" <= sign <= "\udfff"
