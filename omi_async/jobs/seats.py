"""Who is at work in a folder of jobs: each process sits on a seat, and its jobs name that seat.

A lock for each job would cost an open file for each, also while it waits for hours. So there is one for each
process, a job says by the name of a file in its folder whose it is, and whoever finds that seat empty may
take the job over.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

__all__ = ["Seat", "make_private_folder"]

_SEATS: Final = ".seats"
"""The folder of the seats' files, beside those of the jobs; no job can have such an id."""


def make_private_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder that only its owner may enter, unless it is there. Raises OSError."""
    path.mkdir(mode=0o700, parents=parents, exist_ok=True)


class Seat:
    """The seat of a process, or of one of several `ImportJobs` in it. All methods block.

    The lock is SQLite's, which every system has; it ends with the process that holds it, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _SEATS
        self._number: str | None = None
        self._lock: sqlite3.Connection | None = None

    @property
    def number(self) -> str:
        """Its number. Raises RuntimeError while there is none."""
        if self._number is None:
            raise RuntimeError("ImportJobs are not open: use `async with`")
        return self._number

    def take(self) -> None:
        """Take the first seat that is empty, with the jobs of whoever was killed on it. Raises OSError."""
        make_private_folder(self._folder.parent, parents=True)
        make_private_folder(self._folder)
        for number in map(str, itertools.count()):
            path = self._folder / number
            # Not opened if it is there: closing it again would end a lock that this process has on it.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            lock = _connection(path)
            try:
                # Nothing is written, so nothing need be rolled back: no second file is held open beside it.
                lock.execute("PRAGMA journal_mode = MEMORY")
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as error:
                lock.close()
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise OSError(f"{path} cannot be locked: {error}") from error
            else:
                self._lock, self._number = lock, number
                return

    def leave(self) -> None:
        """Leave it to others; twice is fine."""
        lock, self._lock, self._number = self._lock, None, None
        if lock is not None:
            lock.close()

    def is_taken(self, number: str) -> bool:
        """Whether anybody sits on a seat, as far as can be told."""
        path = self._folder / number
        if not path.exists():
            return False
        try:
            # Reading does not keep others from reading: of several that look at once each sees the truth.
            with closing(_connection(path)) as connection:
                connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.Error:
            return True  # perhaps nobody does; but a job with two at work would be doubled
        return False


def _connection(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
