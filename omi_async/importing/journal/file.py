"""Opening a journal's file, and refusing what is none."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal

from omi_async.errors import JournalError, JournalInUseError

__all__ = ["Durability", "open_file", "translated"]

APPLICATION_ID: Final = 0x4F4D494A  # "OMIJ"
SCHEMA_VERSION: Final = 1

MAGIC: Final = b"SQLite format 3\0"
HEADER: Final = struct.Struct(">16s44xI4xI28x")
"""The first 100 bytes of an SQLite file: the magic, the user version, the application id."""

LOCK_WAIT: Final = 0.2
"""Seconds that opening waits for a lock. An import holds its lock for hours, so a longer wait only delays the
refusal; without any, a process that is just ending (it still writes its WAL back) would count as in use."""

Durability = Literal["normal", "full"]


def open_file(path: Path, schema: str, durability: Durability) -> sqlite3.Connection:
    """Open a journal's file for this process alone, or make it. Raises `JournalError`."""
    path = path.absolute()  # for SQLite, some relative names are no files: ":memory:"
    _check_header(path)
    with translated(path, "cannot be opened"):
        # Opened in a thread of its own, then used in the event loop's only; SQLite would refuse the second.
        database = sqlite3.connect(path, timeout=LOCK_WAIT, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, schema, durability)
        except BaseException:
            database.close()
            raise
    return database


def _check_header(path: Path) -> None:
    """Refuse a foreign file before SQLite may change it."""
    try:
        if not path.parent.is_dir():
            raise JournalError(f"the journal {path} cannot be made: there is no folder {path.parent}")
        if not path.exists():
            return
        if not path.is_file():  # to open a pipe would wait for a writer
            raise JournalError(f"{path} is no journal of omi_async: it is no file")
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise JournalError(f"the journal {path} cannot be opened: no permission to read and write it")
        if path.stat().st_size == 0:
            return
        application, version = _read_header(path)
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be opened: {error.strerror}") from error
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is a database of another program; it was not touched")
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"the journal {path} was written by another version of omi_async (schema {version}, this one "
            f"reads {SCHEMA_VERSION}); it was not touched: update omi_async to use it"
        )


def _read_header(path: Path) -> tuple[int, int]:
    """Return the application id and the user version.

    Through SQLite, and without any lock: if this process has the journal open already, closing a file handle
    of our own would drop SQLite's locks on it (POSIX), and let other processes in.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError:
        return _read_raw_header(path)
    return application, version


def _read_raw_header(path: Path) -> tuple[int, int]:
    """Do the same for a file that SQLite cannot read: damaged, foreign, or cut off when it was made."""
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise JournalError(f"{path} is no journal of omi_async; it was not touched")
    _, version, application = HEADER.unpack(header)
    return application, version


def _prepare(database: sqlite3.Connection, schema: str, durability: Durability) -> None:
    # A row shrinks when its facts are stored and their texts dropped; small pages give the room back. With
    # 4 KiB a million short facts take 164 MB, with 1 KiB 82 MB, in the same time.
    database.execute("PRAGMA page_size = 1024")
    # Exclusive from the first access on: SQLite itself refuses a second process, also one that comes later.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    # A journal without its tables is a damaged one: the number comes with them, in one transaction.
    if database.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        database.execute(schema)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")
    (health,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if health != "ok":
        raise sqlite3.DatabaseError(health)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {durability}")


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
            f"the journal {path} {what}: {error}. It was not overwritten; move it away to begin a new one: "
            f"what it knew is then looked up at the server or sent again"
        ) from error


def _primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's code, not extended; errors that the `sqlite3` module itself raises have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
