"""Opening a journal's file, and refusing what is none."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from omi_async.errors import JournalError, JournalInUseError
from omi_async.importing.journal import wal
from omi_async.importing.journal.rows import MIGRATIONS, SCHEMA

__all__ = ["Database", "Durability", "open_file", "translated"]

APPLICATION_ID: Final = 0x4F4D494A  # "OMIJ"
SCHEMA_VERSION: Final = 2

MAGIC: Final = b"SQLite format 3\0"
HEADER: Final = struct.Struct(">16s44xI4xI28x")
"""The first 100 bytes of an SQLite file: the magic, the user version, the application id."""

LOCK_WAIT: Final = 0.2
"""Seconds that opening waits for a lock. An import holds its lock for hours, so a longer wait only delays the
refusal; without any, a process that is just ending (it still writes its WAL back) would count as in use."""

MARKS: Final = "CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID"

Durability = Literal["normal", "full"]


MODE: Final = 0o600
"""The facts are their user's own. SQLite gives the `-wal` the mode of the file beside it."""


def open_file(path: Path, durability: Durability) -> Database:
    """Open a journal's file for this process alone, or make it; to be marked once it is found sound.

    Raises `JournalError`.
    """
    path = path.absolute()  # for SQLite, some relative names are no files: ":memory:"
    _check_file(path)
    with translated(path, "cannot be opened"):
        # Opened in a thread of its own, then used in the event loop's only; SQLite would refuse the second.
        database = sqlite3.connect(
            path, timeout=LOCK_WAIT, isolation_level=None, check_same_thread=False, factory=Database
        )
        try:
            database.lock(_log_of(path))
            _refuse_damaged_log(path)
            _prepare(database, durability)
        except BaseException:
            database.close_as_it_is()
            raise
    return database


class Database(sqlite3.Connection):
    """A connection to a journal's file, which says in the file itself whether a `-wal` belongs to it.

    SQLite takes a database whose `-wal` was left behind or deleted for what it was some time ago, in silence.
    So the file is marked while a `-wal` holds what it does not; `_check_file` reads the mark.
    """

    _log: Path | None = None  # its `-wal`, once it is locked
    _marked = False

    def lock(self, log: Path) -> None:
        """Keep every other process out, and begin a transaction."""
        # A row shrinks when its facts are stored and their texts dropped; small pages give the room back.
        # With 4 KiB a million short facts take 164 MB, with 1 KiB 82 MB, in the same time.
        self.execute("PRAGMA page_size = 1024")
        # Exclusive from the first access on: SQLite refuses a second process, also one that comes later.
        self.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.execute("BEGIN EXCLUSIVE")
        self._log = log

    def mark(self) -> None:
        """Mark the file, durably, once its `-wal` exists."""
        self.execute("INSERT OR REPLACE INTO marks VALUES ('open', 1)")
        self.execute("PRAGMA wal_checkpoint")  # puts the mark into the file, and leaves the `-wal` there
        self._marked = True

    def close(self) -> None:
        """Put everything into the file, and close it; closing twice is fine."""
        marked, self._marked = self._marked, False
        try:
            if marked:
                self.execute("UPDATE marks SET value = 0 WHERE name = 'open'")
        except sqlite3.Error:  # a full disk: then the `-wal` stays, and the next opening reads it
            self.close_as_it_is()
        else:
            super().close()

    def close_as_it_is(self) -> None:
        """Close the file, and leave it and its `-wal` as they are.

        At the last closing SQLite writes what a `-wal` holds into the file, and deletes it. Of a file that is
        refused because it is damaged, that would destroy what could still be told of it. So the connection is
        interrupted, which keeps SQLite from writing, and what it deletes is out of its way for a moment.
        """
        self._marked = False
        if self._log is None or not wal.is_live(self._log):  # not ours, or empty
            super().close()
            return
        aside = self._log.with_name(f"{self._log.name}-kept")
        self.interrupt()
        with suppress(OSError):  # Windows renames no open file
            self._log.rename(aside)
        super().close()
        with suppress(OSError):
            aside.rename(self._log)

    def __del__(self) -> None:
        # When a program ends without closing it, Python does, and SQLite deletes the `-wal` of a marked file.
        if self._marked:
            self.close()


def _check_file(path: Path) -> None:
    """Refuse a foreign file before SQLite may change it, and make a new one."""
    try:
        if not path.parent.is_dir():
            raise JournalError(f"the journal {path} cannot be made: there is no folder {path.parent}")
        if not path.exists():
            _refuse_log_without_file(path, "is gone")
            with suppress(FileExistsError):  # made by another process just now
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
            return
        if not path.is_file():  # to open a pipe would wait for a writer
            raise JournalError(f"{path} is no journal of omi_async: it is no file")
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise JournalError(f"the journal {path} cannot be opened: no permission to read and write it")
        if path.stat().st_size == 0:
            _refuse_log_without_file(path, "is empty")
            return
        application, version, marked = _read_header(path)
        if application == APPLICATION_ID and marked and not wal.is_live(_log_of(path)):
            raise JournalError(
                f"the journal {path} is incomplete: its import was cut off, and its last writes are in "
                f"{_log_of(path).name}, which is missing or cut off. Put it back beside the journal. If that "
                f"cannot be: {_START_AGAIN}",
                remembers=True,
            )
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be opened: {error.strerror}") from error
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is a database of another program; it was not touched")
    if not 1 <= version <= SCHEMA_VERSION:
        raise JournalError(
            f"the journal {path} was written by another version of omi_async (schema {version}, this one "
            f"reads {SCHEMA_VERSION}); it was not touched: update omi_async to use it",
            remembers=True,
        )


_START_AGAIN: Final = (
    "move it away, with what lies beside it, and import with a new journal and skip_existing=True "
    "(--skip-existing), which reads what the account holds before anything is sent"
)


def _log_of(path: Path) -> Path:
    return Path(f"{path.resolve()}-wal")  # a link's `-wal` lies beside the file that it leads to


def _refuse_log_without_file(path: Path, what: str) -> None:
    """Refuse to begin a new journal beside what a killed import left; SQLite would delete it, in silence."""
    if wal.is_live(log := _log_of(path)):
        raise JournalError(
            f"the journal {path} {what}, and {log.name} beside it holds the last writes of an import that "
            f"was cut off. It was not touched; put the journal back beside it. If that cannot be: "
            f"{_START_AGAIN}",
            remembers=True,
        )


def _read_header(path: Path) -> tuple[int, int, bool]:
    """Return the application id, the user version, and whether the file is marked.

    Through SQLite, and without any lock: if this process has the journal open already, closing a file handle
    of our own would drop SQLite's locks on it (POSIX), and let other processes in.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            try:
                marked = database.execute("SELECT value FROM marks WHERE name = 'open'").fetchone()
            except (sqlite3.DatabaseError, UnicodeDecodeError):  # of an earlier version, or damaged
                marked = None
    except sqlite3.DatabaseError:
        return *_read_raw_header(path), False
    return application, version, marked == (1,)


def _read_raw_header(path: Path) -> tuple[int, int]:
    """Do the same for a file that SQLite cannot read: damaged, foreign, or cut off when it was made."""
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise JournalError(f"{path} is no journal of omi_async; it was not touched")
    _, version, application = HEADER.unpack(header)
    return application, version


def _refuse_damaged_log(path: Path) -> None:
    """See that SQLite reads all that was written. Only a locked file's log is not written to meanwhile."""
    if damage := wal.damage(_log_of(path)):
        raise JournalError(
            f"the journal {path} is damaged: of {_log_of(path).name}, which holds its last writes, {damage}. "
            f"It was not touched. What stands before the damage is sound; for what came after it there is no "
            f"copy. To go on: {_START_AGAIN}",
            remembers=True,
        )


def _prepare(database: Database, durability: Durability) -> None:
    """Make the tables, or those of this version from an earlier one's; ends the transaction."""
    if database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
        (health,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if health != "ok":
            raise sqlite3.DatabaseError(health)
        database.execute("SELECT 1 FROM batches LIMIT 0")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        changes = [change for since in range(version, SCHEMA_VERSION) for change in MIGRATIONS[since]]
    else:  # a journal without its table is a damaged one: the number comes with it, in one transaction
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        changes = [SCHEMA]
    for change in changes:
        database.execute(change)
    if changes:
        database.execute(MARKS)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {durability}")
    # A log that begins again loses what is stale in it; then its last frame is the last one of the file, and
    # damage to it can be told from a write that was cut off.
    database.execute("PRAGMA journal_size_limit = 0")


@contextmanager
def translated(path: Path, what: str) -> Iterator[None]:
    """Turn SQLite's errors into a `JournalError` that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise JournalInUseError(
                f"the journal {path} is in use by another import; wait for its end, or stop it"
            ) from error
        raise JournalError(f"the journal {path} {what}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes what is damaged
        raise JournalError(
            f"the journal {path} {what}: {error}. It was not overwritten. To go on: {_START_AGAIN}",
            remembers=True,
        ) from error


def _primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's code, not extended; errors that the `sqlite3` module itself raises have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
