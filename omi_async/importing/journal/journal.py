"""The journal: what an import has sent and what became of it, in a file."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from omi_async.errors import JournalError, JournalInUseError
from omi_async.importing.item import KEY_BYTES, Item
from omi_async.importing.journal.file import Database, Durability, open_file, translated
from omi_async.importing.journal.index import PLACES, KeyIndex
from omi_async.importing.journal.row import (
    ALL_LETTERS,
    NOT_SENT,
    ROW,
    SENDING,
    SUSPECTED,
    Entry,
    Recalled,
    Row,
    state_of,
)
from omi_async.importing.journal.rows import Rows
from omi_async.importing.report import State

__all__ = ["Entry", "Journal", "Recalled"]


class Journal:
    """A file that makes an import resumable: `import_facts(facts, journal=Journal("facts.journal"))`.

    A path in place of a Journal gives one with these defaults. It is opened by the import and closed at its
    end; a Journal that was opened with ``with`` stays open, for several imports one after the other. One
    process may have it open at a time.

    Args:
        path: the file; made if it does not exist.
        durability: ``"normal"`` survives the death of the process at any instant. ``"full"`` survives the
            death of the machine too, at the price of two disk flushes a batch.
        texts: whether the texts of facts that are not safely stored (yet) are written down, so that
            `unfinished` can show them. Without, the file holds hashes only.
        server: the name under which the server is remembered; its base URL if None. A fact stored at one
            server counts as new at another. A journal does not know accounts: with several accounts at one
            server, each has a journal of its own, or a name of its own here.
        remember: seconds after which a settled fact is forgotten, so that it counts as new when it comes
            again; forever if None. What is in doubt is never forgotten.

    Attributes:
        path: the file.
        remember: as given.
        clock_offset: seconds that the server's clock is ahead of this machine's, once an answer of this
            import told. It is written down with the facts, because either clock may be set until the next.
        suspected: texts that another process may have sent: they are in doubt, also if this journal knows
            nothing of them.

    Raises:
        JournalError: (when opened) the file is no journal, is corrupt, comes from a newer version, or cannot
            be written.
        JournalInUseError: (when opened) another import has it open.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "normal",
        texts: bool = True,
        server: str | None = None,
        remember: float | None = None,
    ) -> None:
        if durability not in {"normal", "full"}:
            raise ValueError(f"durability must be 'normal' or 'full', not {durability!r}")
        if remember is not None and not remember >= 0:
            raise ValueError(f"remember must be a number of seconds, at least 0, not {remember!r}")
        self.path = Path(path)
        self.remember = remember
        self.clock_offset: float | None = None
        self.suspected: Collection[str] = ()
        self._durability = durability
        self._texts = texts
        self._named_server = server
        self._database: Database | None = None
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
        database = open_file(self.path, self._durability)
        self._index = KeyIndex()
        try:
            with translated(self.path, "cannot be read"):
                self._rows = Rows(database)
                for number, keys in self._rows.all_keys():
                    self._index.add(keys, number * ROW)
                database.mark()
        except BaseException:
            database.close_as_it_is()
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

    def _using(self, cannot: str) -> AbstractContextManager[None]:
        if self._database is None:
            raise JournalError(f"the journal {self.path} is not open")
        return translated(self.path, cannot)

    # One import

    async def begin(self, server: str) -> None:
        """Begin an import into a server, and open the journal if it is closed.

        Raises `JournalError`, and `JournalInUseError` while another import is using it.
        """
        # In a thread, since a large one takes seconds to read; the other four take microseconds.
        await asyncio.to_thread(self._begin, server, time.time())

    def _begin(self, server: str, now: float) -> None:
        if not self._importing.acquire(blocking=False):
            raise JournalInUseError(f"the journal {self.path} is in use by another import of this process")
        self._opened_by_import = not self.is_open
        try:
            self.open()
            with self._using("cannot be written"), self._rows.transaction():
                for row in self._rows.expire(self._forgotten_before(now)):
                    self._index.remove(row.keys, row.number * ROW)
        except BaseException:
            if self._opened_by_import:
                self.close()
            self._importing.release()
            raise
        self._server = self._named_server or server
        salt = blake2b(self._server.encode(errors="surrogatepass"), digest_size=32).digest()
        self._blank = blake2b(digest_size=KEY_BYTES, key=salt)
        self._first_row = self._rows.last + 1  # what this import writes down has a row from here on
        self._seen: dict[int, int] = {}  # of the rows before: their facts, in a bit each
        self._entering: set[bytes] = set()  # recalled, and not yet written down
        self.clock_offset = None

    async def end(self) -> None:
        """End the import; close the journal if the import has opened it. Twice is fine."""
        if self._importing.locked():
            self._seen, self._entering = {}, set()
            self._rows.forget_cached()  # they hold facts as they were given, not as they are read again
            if self._opened_by_import:
                self.close()
            self._importing.release()

    async def recall(self, contents: Sequence[str]) -> list[Recalled | Literal["seen"] | None]:
        """Return what earlier runs did with these stripped texts, ``"seen"`` for one earlier in this input.

        From then on they count as seen. Raises `JournalError`.
        """
        keys = self._keys(contents)
        places = self._index.places(b"".join(keys))
        with self._using("cannot be read"):
            return list(map(self._recall, contents, keys, places))

    def _recall(self, content: str, key: bytes, places: Iterable[int]) -> Recalled | Literal["seen"] | None:
        moment = self._forgotten_before(time.time())
        for place in places:
            number, at = divmod(place, ROW)
            row = self._rows.get(number)
            if row.key(at) == key and not row.was_settled_before(moment, at):
                of_this_import = number >= self._first_row or not self._see(number, 1 << at)
                return "seen" if of_this_import else row.recall(at)
        if key in self._entering:
            return "seen"
        self._entering.add(key)
        return SUSPECTED if content in self.suspected else None

    def _see(self, number: int, fact: int) -> bool:
        """Mark a fact of a row as seen in this input; return whether it was not yet."""
        before = self._seen.get(number, 0)
        self._seen[number] = before | fact
        return not before & fact

    def _forgotten_before(self, now: float) -> float:
        return -math.inf if self.remember is None else now - self.remember

    def _keys(self, contents: Iterable[str]) -> list[bytes]:
        """Return the keys of stripped texts at the server of this import."""
        keys, blank = [], self._blank
        for content in contents:
            hashed = blank.copy()
            hashed.update(content.encode())
            keys.append(hashed.digest())
        return keys

    async def sending(self, items: Sequence[Item]) -> None:
        """Write down that a call with these items is about to leave. Raises `JournalError`."""
        new = [item for item in items if item.place is None]
        keys = self._keys(item.content for item in new)
        row = self._new_row(new, b"".join(keys))
        if (row.number + 1) * ROW >= PLACES:
            raise JournalError(f"the journal {self.path} is full: it holds {PLACES // ROW:,} calls")
        with self._using("cannot be written"), self._rows.transaction():
            if new:
                self._rows.insert(row)
            self._update(items)
        # Only now that the row is on the disk may it be found: if the writing failed, an equal fact of this
        # input would be called a duplicate of one that is nowhere.
        self._index.add(row.keys, row.number * ROW)
        self._entering.difference_update(keys)
        for place, item in enumerate(new, row.number * ROW):
            item.place = place

    def _new_row(self, items: Sequence[Item], keys: bytes) -> Row:
        return Row(
            number=self._rows.next_number() if items else 0,
            server=self._server,
            sent_at=time.time(),
            keys=keys,
            states=[SENDING] * len(items),
            ids=[None] * len(items),
            facts={str(at): item.payload for at, item in enumerate(items)} if self._texts else {},
            errors={},
            clock_offset=self.clock_offset,
        )

    async def settled(self, items: Sequence[Item]) -> None:
        """Write down what became of items, but for those that were never about to be sent.

        Raises `JournalError`.
        """
        with self._using("cannot be written"), self._rows.transaction():
            self._update(items)

    def _update(self, items: Sequence[Item]) -> None:
        """Write down what the items are by now that have a place."""
        # Row by row: of two objects for one row, which may leave the cache in between, the one that is
        # written last would undo what the other wrote.
        rows: dict[int, dict[int, Item]] = {}
        for item in items:
            if item.place is not None:
                rows.setdefault(item.place // ROW, {})[item.place % ROW] = item
        for number, by_place in rows.items():
            row = self._rows.get(number)
            for at, item in by_place.items():
                row.become(at, item, texts=self._texts)
            if number >= self._first_row:  # in an earlier run the clocks may have been others
                row.clock_offset = self.clock_offset
            self._rows.update(row)

    # What a user asks

    def counts(self) -> dict[str, dict[State, int]]:
        """Count the facts of each server by state; a fact whose call was cut off counts as `unknown`."""
        with self._using("cannot be read"):
            return self._rows.counts()

    def unfinished(self) -> Iterator[Entry]:
        """Yield the facts that are not safely stored, in the order of their first sending."""
        with self._using("cannot be read"):
            for row in self._rows:
                yield from row.unfinished()

    def forget(self, *states: State) -> int:
        """Forget facts in these states, so that the next run sends them without looking; return how many.

        To forget `created` and `existing` ones means to send them again. Raises `JournalError` while an
        import is using the journal.
        """
        if unknown := set(states).difference(get_args(State)):
            raise ValueError(f"no state of a fact: {', '.join(sorted(map(repr, unknown)))}")
        if self._importing.locked():
            raise JournalInUseError(f"the journal {self.path} is in use by an import; wait for its end")
        letters = {letter for letter in ALL_LETTERS if state_of(letter) in states} - {NOT_SENT}
        with self._using("cannot be written"), self._rows.transaction():
            return self._rows.forget(letters)
