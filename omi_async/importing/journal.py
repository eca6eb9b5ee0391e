"""The journal: what an import has sent and what became of it, on the disk, before anybody relies on it.

One SQLite file. A row stands for the facts that were packed together, with one letter of state for each. It
is written `sending` before their call leaves and settled after the answer, so that at any instant a crash
leaves each fact either untouched, in doubt, or settled; the next run sends the first, looks for the second
and skips the third. Facts are known by a hash of the server and their text, so the input may be reordered,
grow or shrink between runs. The API key is nowhere in it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from sqlite3 import Connection
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

import attrs

from omi_async.errors import JournalError, OmiError
from omi_async.importing.chunks import KEY_BYTES
from omi_async.importing.items import Item
from omi_async.importing.journal_file import Durability, open_file, translated
from omi_async.importing.journal_rows import SCHEMA, Row, Rows, writable
from omi_async.importing.keyindex import PLACES, KeyIndex
from omi_async.importing.outcomes import State

__all__ = ["Journal"]

ROW: Final = 32
"""Places reserved for the facts of a row; a power of two above 25."""

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
    altered: bool
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
        self._database: Connection | None = None
        self._importing = threading.Lock()
        self._opened_by_import = False

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
        database = open_file(self.path, SCHEMA, self._durability)
        self._index = KeyIndex()
        try:
            with translated(self.path, "cannot be read"):
                self._rows = Rows(database)
                for number, keys in self._rows.all_keys():
                    self._add_to_index(number, keys)
        except BaseException:
            database.close()
            raise
        self._database = database

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        database, self._database = self._database, None
        if database is not None:
            self._rows.forget_cached()
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
    def _db(self) -> Connection:
        if self._database is None:
            raise JournalError(f"the journal {self.path} is not open")
        return self._database

    # One import

    def begin(self, server: str) -> None:
        """Begin an import into a server, and open the journal where it is closed: not in the event loop.

        Raises `JournalError`, also where another import is using it.
        """
        if not self._importing.acquire(blocking=False):
            raise JournalError(f"the journal {self.path} is in use by another import of this process")
        self._opened_by_import = not self.is_open
        try:
            self.open()
        except BaseException:
            self._importing.release()
            raise
        self._server = self._named_server or server
        salt = blake2b(self._server.encode(), digest_size=32).digest()
        self._blank = blake2b(digest_size=KEY_BYTES, key=salt)
        self._seen = bytearray()
        self._entering: set[bytes] = set()

    def end(self) -> None:
        """End the import; close the journal where the import has opened it. Twice is fine."""
        if self._importing.locked():
            self._seen = bytearray()
            self._entering = set()
            if self._opened_by_import:
                self.close()
            self._importing.release()

    def key(self, content: str) -> bytes:
        """Return the key of a stripped text at the server of this import."""
        hashed = self._blank.copy()
        hashed.update(content.encode())
        return hashed.digest()

    def recall(self, key: bytes) -> Recalled | Literal["seen"] | None:
        """Say what is known of a pulled fact: ``"seen"`` in this input before, of an earlier run, or nothing.

        From then on the fact counts as seen.
        """
        if key in self._entering:
            return "seen"
        found = self._find(key)
        if found is None:
            self._entering.add(key)
            return None
        place, row = found
        return _recalled(place, row) if self._mark_seen(place) else "seen"

    def _find(self, key: bytes) -> tuple[int, Row] | None:
        for place in self._index.places(key):
            number = place // ROW
            row = self._rows.cached(number) or self._read_row(number)
            if row.key(place % ROW) == key:
                return place, row
        return None

    def _read_row(self, number: int) -> Row:
        with self._reading() as rows:
            return rows.get(number)

    def sending(self, items: Sequence[Item]) -> None:
        """Write down that a call with these items is about to leave. Raises `JournalError`."""
        new = [item for item in items if item.place is None]
        row = self._new_row(new)
        if (row.number + 1) * ROW >= PLACES:
            raise JournalError(f"the journal {self.path} is full: it holds {PLACES // ROW:,} calls")
        with self._transaction():
            if new:
                self._rows.insert(row)
            self._change([(item, SENDING, None, None) for item in items if item.place is not None])
        # Only now, when the row stands on the disk, is it to be found.
        self._add_to_index(row.number, row.keys)
        for at, item in enumerate(new):
            item.place = row.number * ROW + at
            self._mark_seen(item.place)
            self._entering.discard(row.key(at))

    def settled(self, items: Sequence[Item]) -> None:
        """Write down what became of items; what was never about to be sent needs no line. `JournalError`."""
        changes = [
            (item, _letter(item), item.memory_id, item.error) for item in items if item.place is not None
        ]
        if changes:
            with self._transaction():
                self._change(changes)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(self.path, "cannot be written"):
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._rows.forget_cached()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _new_row(self, items: Sequence[Item]) -> Row:
        return Row(
            number=self._rows.next_number() if items else 0,
            server=self._server,
            sent_at=time.time(),
            keys=b"".join([self.key(item.content) for item in items]),
            states=[SENDING] * len(items),
            ids=[None] * len(items),
            facts={str(at): item.payload for at, item in enumerate(items)} if self._texts else {},
            errors={},
        )

    def _change(self, changes: Iterable[tuple[Item, str, str | None, OmiError | None]]) -> None:
        """Note what became of facts; of one that is safely stored, the text is not needed any more."""
        rows: dict[int, Row] = {}  # each once, whether or not it stays cached meanwhile
        for item, letter, memory_id, error in changes:
            assert item.place is not None  # noqa: S101  # both callers see to it
            number, at = divmod(item.place, ROW)
            row = rows[number] if number in rows else rows.setdefault(number, self._rows.get(number))
            row.states[at] = letter
            row.ids[at] = memory_id
            row.errors.pop(str(at), None)
            if letter == SENDING and self._texts:
                row.facts[str(at)] = item.payload  # it may have been mended
            if letter in STORED:
                row.facts.pop(str(at), None)
            elif error is not None and self._texts:
                row.errors[str(at)] = writable(str(error))
        self._rows.update(rows.values())

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
        with self._reading() as rows:
            for server, letters in rows.all_states():
                of_server = counts.setdefault(server, {})
                for letter in letters:
                    state = STATES.get(letter, "unknown")
                    of_server[state] = of_server.get(state, 0) + 1
        return counts

    def unfinished(self) -> Iterator[Entry]:
        """Yield the facts that are not safely stored, in the order of their first sending."""
        with self._reading() as rows:
            for row in rows:
                for at, letter in enumerate(row.states):
                    if letter not in STORED:
                        fact, error = row.facts.get(str(at)), row.errors.get(str(at))
                        yield Entry(row.server, STATES.get(letter, "unknown"), fact, error)

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with translated(self.path, "cannot be read"):
            if self._database is None:
                raise JournalError(f"the journal {self.path} is not open")
            yield self._rows

    def forget(self, *states: State) -> int:
        """Forget facts in these states, so that the next run sends them without looking; return how many.

        To forget `created` and `existing` ones means to send them again. Raises `JournalError` while an
        import is using the journal.
        """
        if unknown := set(states).difference(get_args(State)):
            raise ValueError(f"no state of a fact: {', '.join(sorted(map(repr, unknown)))}")
        if self._importing.locked():
            raise JournalError(f"the journal {self.path} is in use by an import; wait for its end")
        letters = {LETTERS[state] for state in states if state in LETTERS} - {LETTERS["not_sent"]}
        if "unknown" in states:
            letters |= IN_DOUBT
        forgotten = 0
        with self._transaction():
            for row in self._rows:
                for at in [at for at, letter in enumerate(row.states) if letter in letters]:
                    row.states[at], row.ids[at] = LETTERS["not_sent"], None
                    row.errors.pop(str(at), None)
                    forgotten += 1
                self._rows.update([row])
        self._rows.forget_cached()
        return forgotten


def _recalled(place: int, row: Row) -> Recalled:
    at = place % ROW
    letter = row.states[at]
    state = STATES[letter] if letter in SETTLED else None
    return Recalled(
        place=place,
        state=state,
        in_doubt=letter in IN_DOUBT,
        altered=letter == ALTERED,
        memory_id=row.ids[at],
        words=row.errors.get(str(at)),
        fact=row.facts.get(str(at)),
        sent_at=row.sent_at,
    )


def _letter(item: Item) -> str:
    return ALTERED if item.state == "unknown" and item.altered else LETTERS[item.state]
