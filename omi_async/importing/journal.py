"""The journal: what an import has sent and what became of it, on the disk, before anybody relies on it.

One SQLite file. A row stands for the facts that were packed together, with one letter of state for each. It
is written `sending` before their call leaves and settled after the answer, so that at any instant a crash
leaves each fact either untouched, in doubt, or settled; the next run sends the first, looks for the second
and skips the third. Facts are known by a hash of the server and their text, so the input may be reordered,
grow or shrink between runs. The API key is nowhere in it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import attrs

from omi_async import _json
from omi_async._codec import fact_payload
from omi_async.errors import JournalError, OmiError
from omi_async.importing.chunks import KEY_BYTES
from omi_async.importing.items import Item, Verdict
from omi_async.importing.journal_file import Durability, open_file, translated
from omi_async.importing.keyindex import KeyIndex
from omi_async.importing.outcomes import State

__all__ = ["Journal"]

ROW: Final = 32
"""Places reserved for the facts of a row; a power of two above 25."""

ROWS_CACHED: Final = 64

_SCHEMA: Final = (
    "CREATE TABLE servers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first_started REAL NOT NULL)",
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY,
        server INTEGER NOT NULL REFERENCES servers,
        sent_at REAL NOT NULL,  -- epoch seconds of the first sending
        keys BLOB NOT NULL,     -- 16 bytes a fact
        states TEXT NOT NULL,   -- a letter a fact, see LETTERS
        ids BLOB,               -- JSON: the memory's id of each fact, or null
        facts BLOB,             -- JSON: the facts that are not safely stored, by their place in the row
        errors BLOB             -- JSON: why, by their place in the row
    )
    """,
)

_ROW: Final = "SELECT id, keys, states, ids, facts, errors FROM batches WHERE id = ?"
_UNFINISHED: Final = """
    SELECT name, batches.id, keys, states, ids, facts, errors
    FROM batches JOIN servers ON servers.id = server
    WHERE states GLOB '*[^ce]*' ORDER BY batches.id
"""

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
IN_DOUBT: Final = frozenset("su")


@attrs.define(eq=False)
class _Row:
    """A row in memory, while some of its facts are on their way."""

    number: int
    keys: bytes
    states: list[str]
    ids: list[str | None]
    facts: dict[str, Any]
    errors: dict[str, str]

    def key(self, place: int) -> bytes:
        return self.keys[place * KEY_BYTES : (place + 1) * KEY_BYTES]

    def change(self, place: int, letter: str, memory_id: str | None, words: str | None) -> None:
        """Note what became of a fact; of one that is safely stored, the text is not needed any more."""
        self.states[place] = letter
        self.ids[place] = memory_id or self.ids[place]
        if letter in STORED:
            self.facts.pop(str(place), None)
            self.errors.pop(str(place), None)
        elif words is not None:
            self.errors[str(place)] = words


@attrs.frozen
class Recalled:
    """What the journal knows of a fact from an earlier run.

    Attributes:
        place: where it stands in the journal.
        state: what became of it; None where it was not sent, or is in doubt.
        in_doubt: a call carried it and nobody knows whether it was stored.
        memory_id: the id of its memory, where one is known.
        words: why it was rejected.
    """

    place: int
    state: State | None
    in_doubt: bool
    memory_id: str | None
    words: str | None


@attrs.frozen
class Entry:
    """A fact that is not safely stored, as `Journal.unfinished` tells it. Without texts, `fact` is None."""

    server: str
    state: State
    fact: dict[str, Any] | None
    error: str | None


class Journal:
    """A file that makes an import resumable: `import_facts(facts, journal=Journal("facts.journal"))`.

    A path in place of a Journal gives one with these defaults. It is opened by the import and closed at its
    end; a Journal that was opened with ``with`` stays open, for several imports one after the other. One
    process may have it open at a time.

    Args:
        path: the file; made where it does not exist.
        durability: ``"normal"`` survives the death of the process at any instant. ``"full"`` survives the
            death of the machine too, at the price of two disk flushes a batch.
        texts: whether the texts of facts that are not safely stored (yet) are written down, so that
            `unfinished` can show them. Without, the file holds hashes only.
        server: the name under which the server is remembered; its base URL where None. A fact stored at one
            server counts as new at another.

    Raises:
        JournalError: (when opened) the file is no journal, is corrupt, comes from a newer version, is in use
            by another process, or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "normal",
        texts: bool = True,
        server: str | None = None,
    ) -> None:
        if durability not in {"normal", "full"}:
            raise ValueError(f"durability must be 'normal' or 'full', not {durability!r}")
        self.path = Path(path)
        self._durability = durability
        self._texts = texts
        self._named_server = server
        self._database: sqlite3.Connection | None = None
        self._index = KeyIndex()
        self._importing = False

    def __repr__(self) -> str:
        return f"<omi_async.Journal {str(self.path)!r}>"

    # Life

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._database is not None

    def open(self) -> None:
        """Open the file, or make it. Opening an open journal changes nothing. Raises `JournalError`."""
        if self._database is not None:
            return
        database = open_file(self.path, _SCHEMA, self._durability)
        self._index = KeyIndex()
        with translated(self.path, "cannot be read"):
            for number, keys in database.execute("SELECT id, keys FROM batches ORDER BY id"):
                self._add_to_index(number, keys)
        self._database = database

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise JournalError(f"the journal {self.path} is not open")
        return self._database

    # One import

    def begin(self, server: str) -> float:
        """Begin an import into a server; return when the first import of this journal into it began.

        Epoch seconds. Raises `JournalError` where another import is using it.
        """
        if self._importing:
            raise JournalError(f"the journal {self.path} is in use by another import of this process")
        name = self._named_server or server
        with translated(self.path, "cannot be written"):
            self._db.execute(
                "INSERT OR IGNORE INTO servers (name, first_started) VALUES (?, ?)", (name, time.time())
            )
            found = self._db.execute("SELECT id, first_started FROM servers WHERE name = ?", (name,))
            self._server, started = found.fetchone()
        self._salt = blake2b(name.encode(), digest_size=32).digest()
        self._seen = bytearray()
        self._entering: set[bytes] = set()
        self._rows: OrderedDict[int, _Row] = OrderedDict()
        self._importing = True
        return float(started)

    def end(self) -> None:
        """End the import; the journal stays open."""
        self._importing = False
        self._rows = OrderedDict()
        self._entering = set()

    def key(self, content: str) -> bytes:
        """Return the key of a stripped text at the server of this import."""
        return blake2b(content.encode(), digest_size=KEY_BYTES, key=self._salt).digest()

    def recall(self, key: bytes) -> Recalled | Literal["seen"] | None:
        """Say what is known of a pulled fact: ``"seen"`` in this input before, of an earlier run, or nothing.

        From then on the fact counts as seen.
        """
        if key in self._entering:
            return "seen"
        place = self._find(key)
        if place is None:
            self._entering.add(key)
            return None
        return self._recalled(place) if self._mark_seen(place) else "seen"

    def _find(self, key: bytes) -> int | None:
        for place in self._index.places(key):
            if self._row(place).key(place % ROW) == key:
                return place
        return None

    def _recalled(self, place: int) -> Recalled:
        row, at = self._row(place), place % ROW
        letter = row.states[at]
        state = STATES[letter] if letter in SETTLED else None
        return Recalled(place, state, letter in IN_DOUBT, row.ids[at], row.errors.get(str(at)))

    def sending(self, items: Sequence[Item]) -> None:
        """Write down that a call with these items is about to leave. Raises `JournalError`."""
        new = [item for item in items if item.place is None]
        known = [item for item in items if item.place is not None]
        with self._transaction():
            if new:
                self._insert(new)
            self._update([(item, SENDING, None, None) for item in known])

    def settled(self, verdicts: Sequence[Verdict]) -> None:
        """Write down what became of items; what was never about to be sent needs no line. `JournalError`."""
        with self._transaction():
            self._update(
                [
                    (verdict.item, LETTERS[verdict.state], verdict.memory_id, verdict.error)
                    for verdict in verdicts
                    if verdict.item.place is not None
                ]
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(self.path, "cannot be written"):
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _insert(self, items: list[Item]) -> None:
        keys = [self.key(item.fact.content) for item in items]
        facts = {str(at): fact_payload(item.fact) for at, item in enumerate(items)} if self._texts else {}
        row = _Row(0, b"".join(keys), [SENDING] * len(items), [None] * len(items), facts, {})
        cursor = self._db.execute(
            "INSERT INTO batches (server, sent_at, keys, states, facts) VALUES (?, ?, ?, ?, ?)",
            (self._server, time.time(), row.keys, "".join(row.states), _dump(facts)),
        )
        row.number = cursor.lastrowid or 0
        self._remember(row)
        self._add_to_index(row.number, row.keys)
        for at, (item, key) in enumerate(zip(items, keys, strict=True)):
            item.place = row.number * ROW + at
            self._mark_seen(item.place)
            self._entering.discard(key)

    def _update(self, changes: Iterable[tuple[Item, str, str | None, OmiError | None]]) -> None:
        rows: dict[int, _Row] = {}
        for item, letter, memory_id, error in changes:
            assert item.place is not None  # noqa: S101  # both callers see to it
            row = self._row(item.place)
            rows[row.number] = row
            row.change(item.place % ROW, letter, memory_id, str(error) if error and self._texts else None)
        for row in rows.values():
            self._db.execute(
                "UPDATE batches SET states = ?, ids = ?, facts = ?, errors = ? WHERE id = ?",
                ("".join(row.states), _dump(row.ids), _dump(row.facts), _dump(row.errors), row.number),
            )

    def _row(self, place: int) -> _Row:
        number = place // ROW
        row = self._rows.get(number)
        if row is None:
            with translated(self.path, "cannot be read"):
                row = _read_row(self._db.execute(_ROW, (number,)).fetchone())
            self._remember(row)
        return row

    def _remember(self, row: _Row) -> None:
        """Keep a row at hand; rows on their way are used again soon, and are read anew where they are not."""
        self._rows[row.number] = row
        if len(self._rows) > ROWS_CACHED:
            self._rows.popitem(last=False)

    def _add_to_index(self, number: int, keys: bytes) -> None:
        for at in range(len(keys) // KEY_BYTES):
            self._index.add(keys[at * KEY_BYTES : (at + 1) * KEY_BYTES], number * ROW + at)

    def _mark_seen(self, place: int) -> bool:
        """Mark a place as seen in this input; return whether that is new."""
        byte, bit = place >> 3, 1 << (place & 7)
        if byte >= len(self._seen):
            self._seen.extend(bytes(byte + 1 - len(self._seen) + 4096))
        if self._seen[byte] & bit:
            return False
        self._seen[byte] |= bit
        return True

    # What a person asks

    def counts(self) -> dict[str, dict[State, int]]:
        """Count the facts of each server by state; a fact whose call was cut off counts as `unknown`."""
        counts: dict[str, dict[State, int]] = {}
        with translated(self.path, "cannot be read"):
            rows = self._db.execute(
                "SELECT servers.name, batches.states FROM batches JOIN servers ON servers.id = server"
            )
            for name, letters in rows:
                of_server = counts.setdefault(name, {})
                for letter in letters:
                    state = STATES.get(letter, "unknown")
                    of_server[state] = of_server.get(state, 0) + 1
        return counts

    def unfinished(self) -> Iterator[Entry]:
        """Yield the facts that are not safely stored, in the order of their first sending."""
        with translated(self.path, "cannot be read"):
            for name, *columns in self._db.execute(_UNFINISHED):
                row = _read_row(columns)
                for at, letter in enumerate(row.states):
                    if letter not in STORED:
                        fact, error = row.facts.get(str(at)), row.errors.get(str(at))
                        yield Entry(name, STATES.get(letter, "unknown"), fact, error)

    def forget(self, *states: State) -> int:
        """Forget facts in these states, so that the next run sends them without looking; return how many.

        To forget `created` and `existing` ones means to send them again.
        """
        letters = {LETTERS[state] for state in states}
        if "unknown" in states:
            letters.add(SENDING)
        forgotten = 0
        with self._transaction():
            for number, before in self._db.execute("SELECT id, states FROM batches").fetchall():
                after = "".join("n" if letter in letters else letter for letter in before)
                if after != before:
                    forgotten += sum(one != other for one, other in zip(before, after, strict=True))
                    self._db.execute("UPDATE batches SET states = ? WHERE id = ?", (after, number))
        self._rows = OrderedDict()
        return forgotten


def _dump(value: list[Any] | dict[str, Any]) -> bytes | None:
    return _json.dumps(value) if value else None


def _read_row(columns: Sequence[Any]) -> _Row:
    number, keys, states, ids, facts, errors = columns
    return _Row(
        number,
        keys,
        list(states),
        _json.loads(ids) if ids else [None] * len(states),
        _json.loads(facts) if facts else {},
        _json.loads(errors) if errors else {},
    )
