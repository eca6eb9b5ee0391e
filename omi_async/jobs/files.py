"""The folder of one job: its record, its input, its journal, and who works on it."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Final

from omi_async.jobs.record import JobRecord
from omi_async.jobs.seats import Seat, make_private_folder

__all__ = ["JobFiles", "open_private", "remove_leftovers"]

_AT: Final = "seat."
"""Begins the name of the file that says on which seat somebody works on the job. A file is renamed by one of
all that try, and a full disk does not keep it from it; what is written can be written by two."""

_NOBODY: Final = "none"

_HIDDEN: Final = ".job-"
"""Begins the name of a folder that is being made or deleted."""

_JUST_MADE: Final = 60.0
"""Seconds in which a folder without a job is left alone: whoever has just made it is still at it."""


def open_private(path: Path) -> int:
    """Make an empty file that only its owner reads, and return its descriptor. Raises OSError."""
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)


class JobFiles:
    """The files of one job. All methods block, and raise OSError; they are called in threads.

    Attributes:
        folder: of the job alone.
        journal: where the import keeps its journal.
    """

    def __init__(self, folder: Path, seat: Seat) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self._record = folder / "job.json"
        self._seat = seat

    def make(self) -> bool:
        """Make the folder and lock it; False if there is a job in it, or another process makes one there."""
        new = _out_of_sight(self.folder)
        make_private_folder(new)
        try:
            os.close(open_private(new / f"{_AT}{self._seat.number}"))
            # With the lock in it: else another process could believe that nobody works on it. What a killed
            # process had copied stands in the way, and is gone on with.
            new.rename(self.folder)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            if not self.folder.is_dir():
                raise
        return self.lock() and not self._record.exists()

    def input(self, name: str) -> Path:
        """Return the path of the input, in a folder of its own: so it cannot be named like another file."""
        folder = self.folder / "input"
        make_private_folder(folder)
        return folder / name

    def lock(self) -> bool:
        """Work on the job, unless another process or another object does."""
        mine, last = self.folder / f"{_AT}{self._seat.number}", self._worker()
        if last is None or last == mine:
            return last is not None
        number = last.name.removeprefix(_AT)
        if number != _NOBODY and self._seat.is_taken(number):
            return False
        try:
            last.rename(mine)
        except FileNotFoundError:  # another was faster
            return False
        return True

    def unlock(self) -> None:
        """Let others work on the job."""
        with suppress(FileNotFoundError):  # it was forgotten, or not locked
            (self.folder / f"{_AT}{self._seat.number}").rename(self.folder / f"{_AT}{_NOBODY}")

    def _worker(self) -> Path | None:
        return next(self.folder.glob(f"{_AT}*"), None)

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

    def remove(self) -> None:
        """Delete the job with all that it holds, unless another process works on it."""
        if self.lock():
            _delete(self.folder)

    def remove_if_half_copied(self) -> None:
        """Delete it if it is what a killed process had copied of an input; nobody could forget that."""
        # Only with a seat named in it: any other folder is not ours, whatever it does here.
        if not self._record.exists() and self.lock():
            _delete(self.folder)


def remove_leftovers(folder: Path, seat: Seat, in_use: Container[str]) -> None:
    """Delete what killed processes had made or deleted in part, in the folder of all jobs."""
    for entry in [*folder.iterdir()]:
        if entry.name in in_use or _was_just_made(entry):
            continue
        if entry.name.startswith(_HIDDEN):
            shutil.rmtree(entry, ignore_errors=True)
        else:
            JobFiles(entry, seat).remove_if_half_copied()


def _was_just_made(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime < _JUST_MADE
    except FileNotFoundError:
        return True  # and is gone already


def _delete(folder: Path) -> None:
    gone = _out_of_sight(folder)
    with suppress(FileNotFoundError):
        folder.rename(gone)  # what is deleted in part must not be taken for a job
    shutil.rmtree(gone, ignore_errors=True)


def _out_of_sight(folder: Path) -> Path:
    """Return a path beside it that is no job's."""
    return folder.with_name(f"{_HIDDEN}{uuid.uuid4().hex}")
