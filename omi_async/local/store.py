"""The memories in SQLite: a file that lasts, or `:memory:`.

Every write is committed by itself, so that what was acknowledged survives the death of the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from os import PathLike, fspath
from typing import Any, Final

from omi_async.errors import ConfigurationError

__all__ = [
    "NO_FILES",
    "LocalDatabaseError",
    "Memories",
    "Row",
    "connect",
    "database_id",
    "id_of",
    "timestamp",
]

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


NO_FILES: Final = (None, "", ":memory:")
"""Databases that SQLite keeps nowhere."""


class LocalDatabaseError(ConfigurationError):
    """The file is no database of the stand-in server, is damaged, or cannot be opened. It stays as it was."""


def connect(path: str | None) -> sqlite3.Connection:
    """Open the database, and make it if there is none; None is a database in memory.

    Every statement commits by itself. Raises `LocalDatabaseError`.
    """
    try:
        _make_private(path)
        connection = sqlite3.connect(path or ":memory:", timeout=_BUSY, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
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


def _make_private(path: str | None) -> None:
    """Make a file that only its owner reads: it holds what people said about themselves.

    SQLite would make it with the umask's mode; its -wal and -shm take the mode of the file.
    """
    if path not in NO_FILES:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare(connection: sqlite3.Connection, path: str | None) -> None:
    """Look before anything is written: a foreign file must stay as it is."""
    if _is_empty(connection):
        _create(connection)
    _check_ours(connection, path)
    # Not in the schema, whose version stays: databases of older versions have no id, and get one here.
    connection.execute("CREATE TABLE IF NOT EXISTS about (id TEXT NOT NULL)")
    connection.execute(
        "INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT 1 FROM about)", (secrets.token_hex(8),)
    )
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


_COLUMNS: Final = (
    "id", "content", "category", "visibility", "tags", "created_at", "updated_at",
    "manually_added", "reviewed", "user_review", "edited", "scoring", "locked",
)  # fmt: skip
_FLAGS: Final = ("manually_added", "reviewed", "edited", "locked")

_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM memories"  # noqa: S608 - constants
_INSERT: Final = (
    f"INSERT INTO memories (text_hash, {', '.join(_COLUMNS)}) "  # noqa: S608 - constants
    f"SELECT ?1, {', '.join(f'?{place}' for place in range(2, len(_COLUMNS) + 2))} "
    "WHERE NOT EXISTS (SELECT 1 FROM deleted WHERE id = ?2) ON CONFLICT (id) DO NOTHING"
)
_NEWEST_FIRST: Final = "ORDER BY updated_at DESC, seq DESC"

_VISIBLE: Final = "FROM memories INDEXED BY newest_first WHERE created_at <= ?"

_EVER: Final = "9999"
"""Sorts after every timestamp."""

Row = dict[str, Any]


def timestamp(seconds: float) -> str:
    """Write epoch seconds as ISO 8601 with microseconds and `Z`. Such strings sort by time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def id_of(text: str) -> str:
    """Return the id that a new memory with this text gets: a formula of the backend."""
    return str(uuid.UUID(bytes=_digest(text), version=4))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _row(values: Sequence[Any]) -> Row:
    row = dict(zip(_COLUMNS, values, strict=True))
    tags = row["tags"]
    row["tags"] = [] if tags == "[]" else json.loads(tags)
    for name in _FLAGS:
        row[name] = row[name] == 1
    if row["user_review"] is not None:
        row["user_review"] = row["user_review"] == 1
    return row


def _written(tags: Sequence[str]) -> str:
    return json.dumps(tags) if tags else "[]"


def database_id(path: str) -> str:
    """Return the id of a database, which is made if there is none. Raises `LocalDatabaseError`."""
    with contextlib.closing(connect(path)) as connection:
        return _id_of_database(connection)


def _id_of_database(connection: sqlite3.Connection) -> str:
    (found,) = connection.execute("SELECT id FROM about").fetchone()
    return str(found)


class Memories:
    """The stored memories, as dicts with the API's fields and `locked`.

    Texts are kept as they are passed: the caller strips them.

    Attributes:
        database_id: made at random with the file, and kept in it: another file at the same path has another.
    """

    def __init__(self, database: str | PathLike[str] | None) -> None:
        self._connection = connect(None if database is None else fspath(database))
        self.database_id = _id_of_database(self._connection)
        self._now = 0.0  # of the last write
        self._made_now = 0  # how many memories were made at that very moment, but for the first

    def close(self) -> None:
        """Close the file. It can be opened again, also after no close at all."""
        self._connection.close()

    def add(self, text: str, *, now: float, text_identity: bool, **fields: Any) -> Row:
        """Store a new memory. Its id is made of the text, unless that was used or `text_identity` is off."""
        digest = _digest(text)
        memory_id = id_of(text) if text_identity else str(uuid.uuid4())
        row = _new_row(memory_id, text, self._moment(now, made=1), fields)
        # The id of the text may be taken: by a memory whose text was changed, or by a deleted one forever.
        if not self._insert(digest, row):
            row["id"] = f"mem_{uuid.uuid4().hex}"
            self._insert(digest, row)
        return row

    def _insert(self, digest: bytes, row: Row) -> bool:
        values = [*row.values()]
        values[4] = _written(row["tags"])
        return self._connection.execute(_INSERT, (digest, *values)).rowcount == 1

    def _moment(self, now: float, *, made: int = 0) -> str:
        """Return the moment of a write. No two memories have the same one: the backend makes them one by one.

        A virtual clock stands still meanwhile; then clients could not tell what was there before.
        """
        self._made_now = self._made_now + made if now == self._now else 0
        self._now = now
        return timestamp(now + self._made_now * 1e-6)

    def by_id(self, memory_id: str) -> Row | None:
        """Return the memory with this id."""
        found = self._connection.execute(f"{_SELECT} WHERE id = ?", (memory_id,)).fetchone()
        return None if found is None else _row(found)

    def was_deleted(self, memory_id: str) -> bool:
        """Return whether there was a memory with this id."""
        return (
            self._connection.execute("SELECT 1 FROM deleted WHERE id = ?", (memory_id,)).fetchone()
            is not None
        )

    def documents(self) -> int:
        """Return how many memories were ever stored, those that were deleted included."""
        found = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'memories'").fetchone()
        return 0 if found is None else int(found[0])

    def change(self, memory_id: str, *, now: float, **fields: Any) -> None:
        """Change fields of a memory; with a new text it counts as reviewed, not as edited (backend)."""
        if "content" in fields:
            fields |= {"text_hash": _digest(fields["content"]), "reviewed": 1, "user_review": 1}
        if "tags" in fields:
            fields["tags"] = _written(fields["tags"])
        fields["updated_at"] = self._moment(now)
        changes = ", ".join(f"{name} = ?" for name in fields)
        query = f"UPDATE memories SET {changes} WHERE id = ?"  # noqa: S608 - the names are our own
        self._connection.execute(query, (*fields.values(), memory_id))

    def delete(self, memory_id: str) -> None:
        """Delete a memory for good. Its id is never given out again."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.execute("DELETE FROM memories WHERE id = ?", (memory_id,))
            self._connection.execute("INSERT OR IGNORE INTO deleted VALUES (?)", (memory_id,))

    def page(
        self,
        *,
        limit: int,
        offset: int,
        categories: Sequence[str] = (),
        until: float | None = None,
        within: int = -1,
    ) -> list[Row]:
        """Return a page of memories, the newest change first.

        `until` hides what was created after it; `within` looks at no more memories than so many (-1: at all).
        """
        only = f" AND category IN ({', '.join('?' * len(categories))})" if categories else ""
        visible = _VISIBLE
        if within >= 0:  # else it would have to be sorted, which takes its time for a page far back
            newest = f"SELECT seq, category, updated_at {_VISIBLE} {_NEWEST_FIRST} LIMIT {within:d}"
            visible = f"FROM ({newest}) WHERE TRUE"
        page = f"SELECT seq {visible}{only} {_NEWEST_FIRST} LIMIT ? OFFSET ?"
        query = f"{_SELECT} WHERE seq IN ({page}) {_NEWEST_FIRST}"
        latest = _EVER if until is None else timestamp(until)
        found = self._connection.execute(query, (latest, *categories, limit, offset))
        return [_row(values) for values in found]

    def __iter__(self) -> Iterator[Row]:
        """Iterate over every memory, oldest first."""
        for values in self._connection.execute(f"{_SELECT} ORDER BY seq"):
            yield _row(values)


def _new_row(memory_id: str, text: str, moment: str, fields: Row) -> Row:
    """Make a row whose keys stand in the order of `_COLUMNS`."""
    row = {
        "id": memory_id,
        "content": text,
        "category": "interesting",
        "visibility": "private",
        "tags": [],
        "created_at": moment,
        "updated_at": moment,
        "manually_added": True,
        "reviewed": False,
        "user_review": None,
        "edited": False,
        "scoring": None,
        "locked": False,
    }
    if unknown := fields.keys() - row.keys():
        raise TypeError(f"a memory has no field {', '.join(sorted(unknown))}")
    return row | fields
