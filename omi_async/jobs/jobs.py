"""`ImportJobs`: the jobs of a folder."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack

from omi_async.importing.stopping import carried_through, outlast
from omi_async.jobs.files import JobFiles, remove_leftovers
from omi_async.jobs.job import ImportJob, SessionFor
from omi_async.jobs.options import JobOptions, checked
from omi_async.jobs.record import JobRecord
from omi_async.jobs.seats import Seat
from omi_async.jobs.spool import as_path, name_for, spool
from omi_async.jobs.turns import Turns

__all__ = ["ImportJobs"]

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What names a folder on every system, and leads out of none."""

_LET_GO: Final = 5.0
"""Seconds that a source has to let go of its reader when the app ends. One that does not, because it swallows
its cancellation, would keep the app from its end."""

_LARGEST_INPUT: Final = 2**30
"""Bytes: ten million facts. An upload without an end would fill the disk of all jobs."""


class ImportJobs:
    """Background imports, kept in a folder: `omi_async.jobs` tells what they are.

    ``async with ImportJobs(folder, session_for) as jobs:`` belongs around the life of the app. Leaving it
    lets calls on the wire land and leaves unfinished jobs to `resume` in the next process.

    Args:
        folder: for the jobs alone; made if there is none, for its owner only.
        session_for: returns the `Session` of an owner, or awaits it. It stays the app's, which closes it
            after the jobs.
        running: jobs that import at the same time, at most; others wait for their turn.
        max_bytes: of one input.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        session_for: SessionFor,
        *,
        running: int = 16,
        max_bytes: int = _LARGEST_INPUT,
    ) -> None:
        if running < 1:
            raise ValueError(f"running is at least 1, not {running}")
        self._folder = Path(folder)
        self._session_for = session_for
        self._running = running
        self._max_bytes = max_bytes
        self._seat = Seat(self._folder)
        self._turns: Turns | None = None
        self._jobs: dict[str, ImportJob] = {}
        self._starting: dict[str, asyncio.Task[ImportJob]] = {}

    def __repr__(self) -> str:
        return f"<ImportJobs in {str(self._folder)!r}>"

    async def __aenter__(self) -> Self:
        """Take a seat in the folder, and read what jobs there are. Raises OSError."""
        await asyncio.to_thread(self._seat.take)
        await asyncio.to_thread(self._all)  # a thousand records would keep the first request waiting
        self._loop = asyncio.get_running_loop()
        self._turns = Turns(self._running)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of all that is at work.

        Whatever happens, nothing of it goes on behind this block, where the sessions are closed: a job that
        finds them closed would have failed.
        """
        self._turns = None
        await carried_through(self._leave(), impatient=self._hurry)

    async def _leave(self) -> None:
        # An input that is still being copied is let go: its job would begin when nothing is there to run it,
        # and keep its lock.
        copying = [*self._starting.values()]
        for making in copying:
            making.cancel()
        await asyncio.gather(*(job.leave() for job in self._jobs.values()))
        if copying:
            await asyncio.wait(copying, timeout=_LET_GO)
        await asyncio.to_thread(self._seat.leave)

    def _hurry(self) -> None:
        for job in self._jobs.values():
            job.hurry()

    async def start(
        self,
        owner: str,
        source: Any,
        id: str | None = None,  # noqa: A002 - what every app calls it
        *,
        name: str | None = None,
        **options: Unpack[JobOptions],
    ) -> ImportJob:
        """Begin an import, and return its job once the input is safely in the folder.

        Args:
            owner: whose memories they become; `session_for` is asked with it.
            source: a path, bytes, a binary file, an upload (anything with a plain or async `read`), or an
                iterable or async iterable of bytes or of facts. A plain iterable is iterated in a thread.
            id: of the job, 1 to 64 letters, digits, "-" and "_"; None makes one. With one that is there,
                nothing is read and the job that has it is returned: so a request may be repeated.
            name: of the input, as far as the source has none; its suffix helps to tell the format.
            options: see `omi_async.jobs.options.JobOptions`. `max_wait` bounds all waits of the job
                for quotas.

        Raises:
            ValueError: an unusable owner, id or option, the id of another owner's job, or too many bytes
                (`InputTooLargeError`). Nothing of the input is kept.
            TypeError: likewise, of another type; or a source that can be none.
            RuntimeError: the app ends before the input is copied; another process copies one for this id.
        """
        self._opened()
        _check_owner(owner)
        wanted = checked(options)
        id = uuid.uuid4().hex if id is None else id  # noqa: A001 - the name of the parameter
        if not _ID.fullmatch(id):
            raise ValueError("the id of a job is 1 to 64 letters, digits, - and _")
        if id not in self._starting:
            work = self._make(id, owner, source, name, wanted)
            self._starting[id] = asyncio.create_task(work, name=id)
            self._starting[id].add_done_callback(self._made)
        making = self._starting[id]
        # Waited for beside it: of two requests with one id, the end of the first must not break the second.
        await asyncio.wait({making})
        if making.cancelled():
            raise RuntimeError("the app ends before the input was copied; nothing of it was kept")
        job = making.result()
        if job.owner != owner:
            raise ValueError(f"the id {id} is that of another owner's job")
        return job

    def _made(self, making: asyncio.Task[ImportJob]) -> None:
        self._starting.pop(making.get_name(), None)
        if not making.cancelled():
            making.exception()  # asked for, or asyncio would log it if the request has gone meanwhile

    async def _make(
        self,
        id: str,  # noqa: A002
        owner: str,
        source: Any,
        name: str | None,
        options: dict[str, Any],
    ) -> ImportJob:
        files = JobFiles(self._folder / id, self._seat)
        # The folder is locked before anything is in it: another process sees no job, and lets it be.
        if not await asyncio.to_thread(files.make):
            await asyncio.to_thread(files.unlock)
            try:
                return self[id]
            except KeyError:
                raise RuntimeError(f"another process is copying the input of job {id}; ask again") from None
        try:
            source = as_path(source)
            wish = name_for(source, name)
            name, facts = await spool(source, files.input, wish, self._max_bytes)
            self._opened()
            record = JobRecord(
                id=id, owner=owner, name=name, options=options, created_at=time.time(), expected=facts
            )
            saving = asyncio.create_task(asyncio.to_thread(files.save, record))
            await outlast(saving)  # a record that is still being written could come after the removal
            saving.result()
            turns = self._opened()
        except BaseException:  # also if the app ends meanwhile: half an input must not be imported
            await asyncio.to_thread(files.remove)
            raise
        job = self._jobs[id] = ImportJob(record, files)
        job.begin(self._session_for, turns)
        return job

    def _opened(self) -> Turns:
        if self._turns is None:
            raise RuntimeError("ImportJobs are not open: use `async with`")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("these ImportJobs belong to another event loop; open others for each loop")
        return self._turns

    def __getitem__(self, id: str) -> ImportJob:  # noqa: A002 - as everywhere here
        """Return a job, also one of another process. Raises KeyError."""
        job = self._jobs.get(id) or self._found(id)
        if job is None:
            raise KeyError(id)
        return job

    def _found(self, id: str) -> ImportJob | None:  # noqa: A002
        """Look for a job that this process has not seen yet."""
        if not _ID.fullmatch(id):
            return None
        files = JobFiles(self._folder / id, self._seat)
        record = files.load()
        if record is None:
            return None
        job = self._jobs[id] = ImportJob(record, files)
        return job

    def of(self, owner: str) -> list[ImportJob]:
        """Return the jobs of an owner, the oldest first."""
        return [job for job in self._all() if job.owner == owner]

    def _all(self) -> list[ImportJob]:
        names = [entry.name for entry in self._folder.iterdir()] if self._folder.is_dir() else []
        jobs = [job for name in names if (job := self._jobs.get(name) or self._found(name)) is not None]
        return sorted(jobs, key=lambda job: job.created_at)

    async def resume(self, id: str | None = None) -> list[ImportJob]:  # noqa: A002
        """Go on with every unfinished job that no process works on; return those jobs.

        Inputs that a killed process had copied in part are deleted.

        With an id, go on with that job, also if it was stopped or has failed. Raises KeyError for an id that
        there is not.
        """
        self._opened()
        if id is None:
            in_use = {*self._jobs, *self._starting}
            await asyncio.to_thread(remove_leftovers, self._folder, self._seat, in_use)
        resumed = []
        for job in self._all() if id is None else [self[id]]:
            await job.let_go()
            if job.at_work or not await asyncio.to_thread(job.files.lock):
                continue
            # Only now is it certain that no other process changes it.
            if await asyncio.to_thread(job.refresh, anyway=id is not None):
                job.begin(self._session_for, self._opened())  # which the app may have left meanwhile
                resumed.append(job)
            else:
                await asyncio.to_thread(job.files.unlock)
        return resumed

    async def forget(self, id: str) -> None:  # noqa: A002
        """Stop a job if it is at work here, and delete all that is kept of it: its input and its journal too.

        What it stored stays stored. Raises KeyError, and RuntimeError if another process works on it.
        """
        job = self[id]
        await job.stop()
        if not await asyncio.to_thread(job.files.lock):
            raise RuntimeError(f"another process works on job {id}")
        # Gone from memory first: a request in between finds nothing, and not a job without files.
        self._jobs.pop(id, None)
        await asyncio.to_thread(job.files.remove)


def _check_owner(owner: str) -> None:
    if not isinstance(owner, str):
        raise TypeError(f"the owner of a job is a string, not {type(owner).__name__}")
    try:
        owner.encode()
    except UnicodeEncodeError:
        raise ValueError("the owner of a job holds half of a surrogate pair") from None
