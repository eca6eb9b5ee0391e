"""The ledger's file: what later processes, and others beside this one, know of a key's quotas.

It spares refused calls, and holds nothing that could be lost. So it is read once at the start and after each
refusal, and written when something was learned and at the end, in a thread: no call waits for it, and whoever
holds it stops no event loop. It is open only meanwhile: a thousand Sessions with one file hold no descriptor.
Keys are not in it, only their fingerprints.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import attrs

from omi_async._quota.kept import load_window
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaState
from omi_async.errors import ConfigurationError

__all__ = ["KeptQuotas", "LedgerFile", "fingerprint", "forget", "kept"]

log: Final = logging.getLogger("omi_async")

PATIENCE: Final = 1.0
"""Seconds for which a thread waits for a file that another process holds; to write takes a thousandth."""

FORGOTTEN_AFTER: Final = 40 * 86_400.0
"""Seconds after which a key that was not used is forgotten: longer than any window that is known, and not so
long that the keys of a web app's former users pile up."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS quotas (
    account TEXT NOT NULL, server TEXT NOT NULL, updated REAL NOT NULL, windows TEXT NOT NULL,
    PRIMARY KEY (account, server)
) WITHOUT ROWID
"""

Windows = dict[str, Any]
"""The windows of a ledger as it dumps them: by their keys."""

NO_DUMP: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a row raises that is no dump: each stands for a kind of garbage."""


def fingerprint(api_key: str) -> str:
    """Return what stands for a key in files. The key, 128 random bits, cannot be had from it."""
    return blake2b(str.encode(api_key), digest_size=16, person=b"omi_async quotas").hexdigest()


class LedgerFile:
    """A key's row in the file.

    Args:
        path: of the SQLite file; made, with its directory, if it is missing.
        account: the key's fingerprint.
        server: the base URL.
    """

    def __init__(self, path: str | os.PathLike[str], account: str, server: str) -> None:
        self.path = Path(path)
        self._row = (account, server)
        self._seen: Windows = {}  # what the file held when it was last looked at
        self._usable = True
        self._warned = False

    async def exchange(self, ledger: Ledger, clock: Callable[[], float], *, only_news: bool = False) -> None:
        """Tell the file what this ledger has learned since the last time, and the ledger what others have.

        With `only_news` the file is left alone if there is nothing to tell it.
        """
        if not self._usable:
            return
        news = {key: fields for key, fields in ledger.dump().items() if fields != self._seen.get(key)}
        if only_news and not news:
            return
        theirs = await asyncio.to_thread(self._exchange, news, clock())
        ledger.load(theirs, clock())

    def _exchange(self, news: Windows, now: float) -> Windows:
        """Write the news, and return those of others. In a thread: SQLite waits for who else is writing."""
        try:
            if not news and not self.path.exists():
                return {}
            with opened(self.path) as connection:
                held = self._read(connection, now)
                theirs = {key: fields for key, fields in held.items() if fields != self._seen.get(key)}
                for key in theirs.keys() & news.keys():
                    # Both have learned of one window: who shut it for longer knows better. Only one of the
                    # two stays, or each process would overwrite the other's in turn.
                    (news if _rank(theirs[key]) > _rank(news[key]) else theirs).pop(key)
                held |= news
                if news:
                    self._write(connection, now, held)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return {}
        self._seen = held
        return theirs

    def _read(self, connection: sqlite3.Connection, now: float) -> Windows:
        row = connection.execute(
            "SELECT windows FROM quotas WHERE account = ? AND server = ?", self._row
        ).fetchone()
        try:
            windows: Windows = {} if row is None else json.loads(row[0])
            # Tried out here, so that what the ledger cannot read is replaced by what is written next.
            Ledger().load(windows, now)
        except NO_DUMP:
            self._warn("knows nothing readable of this key's quotas; that will be replaced")
            return {}
        return windows

    def _write(self, connection: sqlite3.Connection, now: float, windows: Windows) -> None:
        connection.execute("DELETE FROM quotas WHERE updated < ?", (now - FORGOTTEN_AFTER,))
        connection.execute(
            "INSERT OR REPLACE INTO quotas (account, server, updated, windows) VALUES (?, ?, ?, ?)",
            (*self._row, now, json.dumps(windows)),
        )

    def _give_up(self, error: Exception) -> None:
        """Go on without the file: for good, or if another process only holds it, until the next time."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            self._warn("is locked by another process; tried again later")
            return
        self._usable = False
        self._warn(f"cannot be used ({error}); other processes are not told what is spent")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the file of quotas %s %s", self.path, what, extra={"omi_ledger": str(self.path)})


def _rank(fields: Mapping[str, Any]) -> tuple[float, bool]:
    ends = fields.get("ends")
    return (ends if isinstance(ends, int | float) else 0.0, fields.get("state") == "shut")


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file of quotas for one transaction; it is made if it is missing, for its owner alone to read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would make it as the umask says, and others could read whose keys were used when.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
        # IMMEDIATE also to read: one that begins to write later is refused at once, without patience.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SCHEMA)
        yield connection
        connection.execute("COMMIT")


# For a person who wants to know


@attrs.frozen
class KeptQuotas:
    """What a file knows of one key's quotas at one server.

    Attributes:
        account: the key's fingerprint.
        server: the base URL.
        updated: when something was last learned; aware, in UTC.
        quotas: what is known of each policy, at the moment of reading.
    """

    account: str
    server: str
    updated: datetime
    quotas: tuple[QuotaState, ...]


def kept(path: str | os.PathLike[str], now: float) -> tuple[KeptQuotas, ...]:
    """Return what a ledger's file holds, the latest first; nothing if there is no file. It is not changed.

    Raises:
        ConfigurationError: the file is none of quotas, or cannot be read.
    """
    if not Path(path).exists():
        return ()
    try:
        # Read only: to look at a file must neither make one nor wait for who writes.
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT account, server, updated, windows FROM quotas ORDER BY updated DESC, account, server"
            ).fetchall()
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path} is no file of quotas that can be read ({error})") from None
    return tuple([_kept_in(row, now) for row in rows])


def _kept_in(row: tuple[Any, ...], now: float) -> KeptQuotas:
    account, server, updated, text = row
    try:
        windows = [load_window(fields, now) for fields in json.loads(text).values()]
        moment = datetime.fromtimestamp(updated, UTC)
    except (*NO_DUMP, OSError):  # it will be replaced by whoever uses that key next
        windows, moment = [], datetime.fromtimestamp(0, UTC)
    states = [window.to_state(now) for window in windows if window.is_news]
    return KeptQuotas(str(account), str(server), moment, tuple(states))


def forget(path: str | os.PathLike[str], *, account: str | None = None, server: str | None = None) -> int:
    """Forget what a ledger's file holds, of one key or of one server if they are named; return how many rows.

    Raises:
        ConfigurationError: the file is none of quotas, or cannot be written.
    """
    if not Path(path).exists():
        return 0
    try:
        with opened(Path(path)) as connection:
            return connection.execute(
                "DELETE FROM quotas WHERE coalesce(account = ?, TRUE) AND coalesce(server = ?, TRUE)",
                (account, server),
            ).rowcount
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(f"{path} is no file of quotas that can be written ({error})") from None
