"""The folder of one job: its record, its input, its journal, and the lock of whoever works on it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from omi_async.jobs.record import JobRecord

__all__ = ["JobFiles", "make_private_folder"]


_JUST_MADE: Final = 60.0
"""Seconds in which a folder without a job is left alone: whoever has just made it is about to lock it."""


def make_private_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder that only its owner may enter. Raises OSError."""
    path.mkdir(mode=0o700, parents=exist_ok, exist_ok=exist_ok)


def open_private(path: Path) -> int:
    """Make an empty file that only its owner reads, and return its descriptor. Raises OSError."""
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)


class JobFiles:
    """The files of one job. All methods block, and raise OSError; they are called in threads.

    Attributes:
        folder: of the job alone.
        journal: where the import keeps its journal.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self._record = folder / "job.json"
        self._lock: sqlite3.Connection | None = None

    @property
    def locked(self) -> bool:
        """Whether the lock is held by this object."""
        return self._lock is not None

    def make(self) -> bool:
        """Make the folder and lock it; False if there is a job in it, or another process makes one there."""
        with suppress(FileExistsError):  # a process that was killed may have left it empty
            make_private_folder(self.folder)
        return self.lock() and not self._record.exists()

    def input(self, name: str) -> Path:
        """Return the path of the input, in a folder of its own: so it cannot be named like another file."""
        folder = self.folder / "input"
        make_private_folder(folder, exist_ok=True)
        return folder / name

    def lock(self) -> bool:
        """Take the lock, unless another process or another object has it.

        It is SQLite's, which every system has, and ends with the process that holds it.
        """
        if self._lock is not None:
            return True
        path = self.folder / "lock"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except FileNotFoundError:  # the job was forgotten meanwhile
            return False
        try:
            # Nothing is written, so nothing need be rolled back: no second file is held open beside it.
            lock.execute("PRAGMA journal_mode = MEMORY")
            # Not EXCLUSIVE: of several that try at once, each would keep the others from it, and none had it.
            lock.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            lock.close()
            return False
        self._lock = lock
        return True

    def unlock(self) -> None:
        """Let others work on the job."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def save(self, record: JobRecord) -> None:
        """Replace the record as a whole: a reader sees the old one or the new one, also after a crash."""
        new = self._record.with_suffix(".new")
        with open(open_private(new), "wb") as file:
            file.write(record.to_json())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._record)

    def load(self) -> JobRecord | None:
        """Return the record; None if there is none, or one that cannot be read."""
        try:
            return JobRecord.from_json(self._record.read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove_half_copied(self) -> None:
        """Delete what a killed process had copied of an input; it is no job, and nobody could forget it."""
        if (
            not self.folder.is_dir()
            or time.time() - self.folder.stat().st_mtime < _JUST_MADE
            or not self.lock()
        ):
            return
        if self._record.exists():
            self.unlock()
        else:
            self.remove()

    def remove(self) -> None:
        """Delete the job with all that it holds."""
        self.unlock()
        shutil.rmtree(self.folder, ignore_errors=True)
