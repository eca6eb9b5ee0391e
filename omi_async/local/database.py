"""Opens the stand-in server's database file, and refuses what is not one."""

from __future__ import annotations

import sqlite3
from typing import Final

from omi_async.errors import ConfigurationError

__all__ = ["LocalDatabaseError", "connect"]

APPLICATION_ID: Final = 0x4F6D694C
"""Stands in the header of the file ("OmiL"), so that no other program's database is taken for ours."""

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE memories (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    text_hash BLOB NOT NULL,
    content TEXT NOT NULL,
    category TEXT NOT NULL,
    visibility TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    manually_added INTEGER NOT NULL,
    scoring TEXT,
    reviewed INTEGER NOT NULL,
    user_review INTEGER,
    edited INTEGER NOT NULL,
    locked INTEGER NOT NULL
);
CREATE INDEX by_text ON memories (text_hash);
CREATE INDEX newest_first ON memories (updated_at, seq, category, created_at);
CREATE TABLE deleted (id TEXT PRIMARY KEY) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_BUSY: Final = 5.0
"""Seconds to wait for another process that writes to the same file."""


class LocalDatabaseError(ConfigurationError):
    """The file is no database of the stand-in server, is damaged, or cannot be opened. It stays as it was."""


def connect(path: str | None) -> sqlite3.Connection:
    """Open the database, and make it where there is none; None is a database in memory.

    Every statement commits by itself. Raises `LocalDatabaseError`.
    """
    try:
        connection = sqlite3.connect(path or ":memory:", timeout=_BUSY, isolation_level=None)
    except sqlite3.Error as error:
        raise LocalDatabaseError(f"cannot open {path}: {error}") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise LocalDatabaseError(f"{path} cannot be used as a database of memories: {error}") from error
    except LocalDatabaseError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str | None) -> None:
    """Look before anything is written: a foreign file must stay as it is."""
    if _is_empty(connection):
        _create(connection)
    _check_ours(connection, path)
    # WAL with synchronous=NORMAL outlives the death of the process, if not a power cut, without an fsync.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables and _header(connection) == (0, 0)


def _header(connection: sqlite3.Connection) -> tuple[int, int]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _create(connection: sqlite3.Connection) -> None:
    try:
        connection.executescript(_SCHEMA)
    except sqlite3.OperationalError:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if _is_empty(connection):  # not merely another process that was quicker
            raise


def _check_ours(connection: sqlite3.Connection, path: str | None) -> None:
    application, version = _header(connection)
    if application != APPLICATION_ID:
        raise LocalDatabaseError(f"{path} is the database of another program; it is left as it is")
    if version != SCHEMA_VERSION:
        raise LocalDatabaseError(
            f"{path} has version {version} of the stand-in server's schema, this one reads {SCHEMA_VERSION}"
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LocalDatabaseError(f"{path} is damaged: {verdict}")
