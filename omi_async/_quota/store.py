"""The ledger's file: what several processes, and later ones, know together of a key's quotas.

It spares calls, and holds nothing that could be lost: where it cannot be used, each process goes by what it
sees itself. Keys are not in it, only their fingerprints.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

from omi_async._quota.ledger import Ledger

__all__ = ["LedgerFile", "fingerprint"]

T = TypeVar("T")

log: Final = logging.getLogger("omi_async")

MOMENT: Final = 0.005
"""Seconds between two tries to open a file that others are making."""

PATIENCE: Final = 1.0
"""Seconds to wait for another process that is writing; it takes a thousandth of that."""

PAUSE: Final = 10.0
"""Seconds for which a file that was locked for so long is not waited for again."""

FORGOTTEN_AFTER: Final = 40 * 86_400.0
"""Seconds after which a key that made no call is forgotten; longer than any window that is known."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ledgers (
    account TEXT NOT NULL, server TEXT NOT NULL, version INTEGER NOT NULL, updated REAL NOT NULL,
    state TEXT NOT NULL, PRIMARY KEY (account, server)
) WITHOUT ROWID
"""


def fingerprint(api_key: str) -> str:
    """Return what stands for a key in files. Nobody can get the key out of it: that is 128 random bits."""
    return blake2b(str.encode(api_key), digest_size=16, person=b"omi_async quotas").hexdigest()


class LedgerFile:
    """A key's row in the file.

    Args:
        path: of the SQLite file; made, with its directory, where it is missing.
        account: the key's fingerprint.
        server: the base URL.
    """

    def __init__(self, path: str | os.PathLike[str], account: str, server: str) -> None:
        self.path = Path(path)
        self._row = (account, server)
        self._connection: sqlite3.Connection | None = None
        self._usable = True
        self._seen: tuple[Any, ...] | None = None
        self._again = -math.inf

    def within(self, ledger: Ledger, clock: Callable[[], float], work: Callable[[], T]) -> T:
        """Do some work on the ledger as all processes know it, while none of them else does.

        Others may have to be waited for, and what they write meanwhile is later than now: it is the `clock`
        that is handed in.
        """
        begun = self._begin(ledger, clock)
        try:
            return work()
        finally:
            if begun:
                self._end(ledger, clock())

    def close(self) -> None:
        """Close the file; whatever is done later is done in memory."""
        connection, self._connection = self._connection, None
        self._usable = False
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        # Of a Session that was never closed; it says so itself.
        if self._connection is not None:
            self._connection.close()

    def _begin(self, ledger: Ledger, clock: Callable[[], float]) -> bool:
        if not self._usable or clock() < self._again:
            return False
        try:
            connection = self._connection or self._open_patiently(clock())
            connection.execute("BEGIN IMMEDIATE")
            self._read(connection, ledger, clock())
        except (sqlite3.Error, OSError) as error:
            self._give_up(error, clock())
            return False
        return True

    def _open_patiently(self, now: float) -> sqlite3.Connection:
        """Open the file, again where others make it at this moment: SQLite does not wait for them."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._open(now)
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() > until:
                    raise
            time.sleep(MOMENT)

    def _open(self, now: float) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
            connection.execute("DELETE FROM ledgers WHERE updated < ?", (now - FORGOTTEN_AFTER,))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _read(self, connection: sqlite3.Connection, ledger: Ledger, now: float) -> None:
        row: tuple[Any, ...] | None = connection.execute(
            "SELECT version, state, updated FROM ledgers WHERE account = ? AND server = ?", self._row
        ).fetchone()
        if row is None or row == self._seen:
            return
        self._seen = row
        try:
            ledger.load(json.loads(row[1]), now, float(row[2]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            log.warning(
                "%s: what it knows of this key's quotas is unreadable, and will be replaced", self.path
            )

    def _end(self, ledger: Ledger, now: float) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            text = json.dumps(ledger.dump())
            version, seen, _ = self._seen or (0, "", 0.0)
            if text == seen:
                connection.execute("COMMIT")
                return
            row = (version + 1 if isinstance(version, int) else 1, text, now)
            connection.execute(
                "INSERT OR REPLACE INTO ledgers (account, server, version, state, updated) "
                "VALUES (?, ?, ?, ?, ?)",
                (*self._row, *row),
            )
            connection.execute("COMMIT")
            self._seen = row
        except (sqlite3.Error, OSError) as error:
            self._give_up(error, now)

    def _give_up(self, error: Exception, now: float) -> None:
        """Go on without the file; where another process only holds it for too long, come back to it later."""
        if _is_locked(error):
            log.warning("the file of quotas %s is locked by another process; tried again later", self.path)
            self._again = now + PAUSE
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()  # and with it whatever was begun
            return
        log.warning(
            "the file of quotas %s cannot be used (%s); other processes are not told what is spent",
            self.path,
            error,
        )
        self.close()


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
