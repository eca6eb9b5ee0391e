"""One job: its import, run as often as it takes, and what its users see of it meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from omi_async.importing.importer import Importer
from omi_async.importing.report import ImportReport, ImportStoppedError, settled_for_good
from omi_async.importing.stopping import ImportHalted, StopSignal
from omi_async.jobs.files import JobFiles
from omi_async.jobs.options import parted
from omi_async.jobs.record import JobRecord, JobSnapshot
from omi_async.jobs.turns import Turns
from omi_async.jobs.verdict import Verdict, after, in_words
from omi_async.session import Session
from omi_async.sources import Facts, SourceError, open_facts

__all__ = ["ImportJob", "SessionFor"]

SessionFor = Callable[[str], Session | Awaitable[Session]]

_PATIENCE: Final = 30.0
"""Seconds that one run waits for quotas while it keeps its turn. With hours of it, sixteen imports that
wait for a window would keep all other jobs waiting; with none, each short wait would read the input again."""

_SAVED_EVERY: Final = 1.0
"""Seconds between two records of a running job, which are for other processes to see."""

_LOOKED_EVERY: Final = 1.0
"""Seconds between two looks at a job of another process."""

_FAILURES_SHOWN: Final = 100
"""Failures in the snapshots of a running job; more of them would be copied at each progress."""


class ImportJob:
    """A background import. Made by `ImportJobs`, which explains it.

    Attributes:
        id: the job's.
        owner: whose job it is.
    """

    def __init__(self, record: JobRecord, files: JobFiles) -> None:
        self.id = record.id
        self.owner = record.owner
        self.files = files
        self._record = record
        self._snapshot = record.snapshot
        self._changed = asyncio.Event()
        self._signal = StopSignal()
        self._importer: Importer | None = None
        self._task: asyncio.Task[None] | None = None
        self._before = record.report
        self._failure: Exception | None = None
        self._stopped = False
        self._left = False
        self._saved_at = 0.0

    def __repr__(self) -> str:
        return f"<ImportJob {self.id} of {self.owner!r}: {self.snapshot.state}>"

    # What its users see

    @property
    def snapshot(self) -> JobSnapshot:
        """How far it is at this moment. That of a job of another process is a second old at most."""
        # Another process may be at work: what it writes down is all that is known here.
        if not self.at_work and not self._snapshot.finished and (record := self.files.load()) is not None:
            self._record, self._snapshot = record, record.snapshot
        return self._snapshot

    async def watch(self) -> AsyncIterator[JobSnapshot]:
        """Yield a snapshot now and after each change; a slow reader gets the latest only.

        It ends with the snapshot of a job that is done, stopped or failed, or when the app ends.
        """
        shown: JobSnapshot | None = None
        while True:
            changed, snapshot = self._changed, self.snapshot
            if snapshot != shown:
                shown = snapshot
                yield snapshot
            # Left, but still at work: what is on the wire may land, and makes one more snapshot.
            if snapshot.finished or (self._left and not self.at_work):
                return
            timeout = None if self.at_work else _LOOKED_EVERY
            try:
                async with asyncio.timeout(timeout):
                    await changed.wait()
            except TimeoutError:
                continue

    async def result(self) -> ImportReport:
        """Wait for the end and return the report.

        Raises:
            ImportStoppedError: the job failed; its `report` says how far it came.
            RuntimeError: the app ends before the job. It goes on when it is resumed.
        """
        async for _ in self.watch():
            pass
        snapshot = self.snapshot
        if not snapshot.finished:
            raise RuntimeError(f"the app ends before job {self.id}, which goes on when it is resumed")
        if snapshot.state == "failed":
            raise ImportStoppedError(snapshot.error or "the job failed", snapshot.report) from self._failure
        return snapshot.report

    async def stop(self) -> JobSnapshot:
        """Stop the job: calls on the wire may land, no other is made. Returns the snapshot of its end.

        What was stored stays stored; `ImportJobs.resume` with its id goes on with the rest. Raises
        RuntimeError for a job that another process works on.
        """
        if self._task is not None:
            self._stopped = True
            self._interrupt()
            await asyncio.wait({self._task})
        elif not self.snapshot.finished:
            await self._stop_at_rest()
        return self.snapshot

    async def _stop_at_rest(self) -> None:
        """Stop a job that an earlier process left, and that was not resumed."""
        if not await asyncio.to_thread(self.files.lock):
            raise RuntimeError(f"another process works on job {self.id}")
        try:
            await self._note(state="stopped", error=None, eta=None)
        finally:
            await asyncio.to_thread(self.files.unlock)

    # Its life in this process

    @property
    def created_at(self) -> float:
        """When it was started, epoch seconds."""
        return self._record.created_at

    def refresh(self, *, anyway: bool) -> bool:
        """Read what an earlier or another process has written; return whether the job can be gone on with.

        A finished one can `anyway`. Its lock must be held. To be called in a thread.
        """
        record = self.files.load()
        if record is None:
            return False
        self._record, self._snapshot = attrs.evolve(record, tries=0), record.snapshot
        return anyway or not self._snapshot.finished

    @property
    def at_work(self) -> bool:
        """Whether this process works on it, or waits with it."""
        return self._task is not None and not self._task.done()

    def begin(self, session_for: SessionFor, turns: Turns) -> None:
        """Work on the job in a task of its own. Its lock must be held."""
        self._stopped = self._left = False
        self._signal = StopSignal()
        # At once: else `result` would return what the last run came to.
        self._show(state="waiting", error=None)
        self._task = asyncio.create_task(self._work(session_for, turns), name=f"import job {self.id}")

    async def let_go(self) -> None:
        """Wait until a job whose end is known has put its tools away too."""
        if self._task is not None and self._snapshot.finished:
            await asyncio.wait({self._task})

    async def leave(self) -> None:
        """End the work, and leave the job unfinished for the next process; calls on the wire may land."""
        self._left = True
        self._interrupt()
        if self._task is not None:
            await asyncio.wait({self._task})
        self._show()

    def hurry(self) -> None:
        """Wait for no call on the wire any longer; the next process looks for what it has sent."""
        if self._task is not None:
            self._task.cancel()

    def _interrupt(self) -> None:
        self._signal.stop()
        if self._importer is not None:
            self._importer.stop()

    async def _work(self, session_for: SessionFor, turns: Turns) -> None:
        """Run the import until the job is finished or left; whatever happens, let others work on it then."""
        try:
            await self._note()
            with suppress(ImportHalted):
                await self._run_until_finished(session_for, turns)
            if self._stopped and not self._snapshot.finished:  # while it waited
                await self._interrupted(self._record.report)
        except Exception as error:  # noqa: BLE001 - whoever waits for the job must not wait forever
            # The disk of the jobs is full, or gone. In memory at least, the job must not seem to be at work.
            self._failure = error
            self._show(state="failed", error=in_words(error))
        finally:
            with suppress(OSError):  # then it can be worked on again once this process has ended
                await asyncio.to_thread(self.files.unlock)
            # Not "running", if this task was cancelled in the middle of a run.
            self._show(state=self._snapshot.state if self._snapshot.finished else "waiting")

    async def _run_until_finished(self, session_for: SessionFor, turns: Turns) -> None:
        seconds: float | None = 0.0
        while seconds is not None:
            await self._signal.wait_for(asyncio.sleep(seconds))
            # The turn is given back before the job sleeps: others import while it waits for its window.
            async with turns.of(self.owner, self._signal):
                seconds = await self._run(session_for)

    async def _run(self, session_for: SessionFor) -> float | None:
        """Run the import once; return the seconds until it is to be run again, None if it is not."""
        await self._note(state="running", error=None)
        self._before = self._record.report  # for the calls of earlier runs, of earlier processes too
        failure: Exception | None = None
        try:
            await self._count()
            report = self._with_earlier_runs(await self._import(session_for))
        except ImportStoppedError as error:
            report, failure = self._with_earlier_runs(error.report), error
        except Exception as error:  # noqa: BLE001 - the app's own, of its sessions, among them: the job tells it
            report, failure = self._record.report, error
        self._failure = failure
        if self._signal.stopped:
            await self._interrupted(report)
            return None
        # What settles more of the input is worth any number of runs; only those for nothing are counted.
        tries = 0 if settled_for_good(report) > settled_for_good(self._before) else self._record.tries
        record = self._record
        verdict = after(
            report, failure, record.options, waited=record.waited, tries=tries, now=datetime.now(UTC)
        )
        await self._note(report=report, **_changes(verdict, record, tries))
        return verdict.seconds

    async def _interrupted(self, report: ImportReport) -> None:
        """Note a run that was stopped by the user, or left to the next process."""
        await self._note(report=report, state="stopped" if self._stopped else "waiting", error=None, eta=None)

    async def _count(self) -> None:
        """Count the facts of the input, once. It costs a reading of the file, and gives percentages."""
        if self._record.expected is not None:
            return
        counted = 0
        try:
            async with self._facts() as facts:
                async for _ in facts:
                    counted += 1
                    if self._signal.stopped:
                        return
        except SourceError:
            return  # the import comes to the same place, and tells it
        await self._note(expected=counted)

    def _facts(self) -> Facts:
        reading, _ = parted(self._record.options)
        name = self._record.name
        return open_facts(self.files.input(name), **reading, name=name)

    async def _import(self, session_for: SessionFor) -> ImportReport:
        session = await self._signal.wait_for(_session_of(self.owner, session_for))
        _, options = parted(self._record.options)
        allowed = options.pop("max_wait", None)
        left = _PATIENCE if allowed is None else max(0.0, allowed - self._record.waited)
        async with self._facts() as facts:
            self._importer = session.memories.importer(
                facts,
                **options,
                journal=self.files.journal,
                max_wait=min(_PATIENCE, left),
                on_progress=self._progress,
            )
            try:
                if self._signal.stopped:  # while the input was opened, when there was no importer to stop
                    self._importer.stop()
                return await self._importer.run()
            finally:
                self._importer = None

    def _with_earlier_runs(self, report: ImportReport, **changes: Any) -> ImportReport:
        """Return a copy that counts the calls, seconds and tags of all runs; its facts are those of all."""
        # What an earlier run found is settled by the journal now, and not compared again to be kept.
        kept = self._record.options.get("on_existing", "keep") == "keep"
        return attrs.evolve(
            report,
            other_tags=(self._before.other_tags if kept else 0) + report.other_tags,
            tags_added=self._before.tags_added + report.tags_added,
            requests=self._before.requests + report.requests,
            retries=self._before.retries + report.retries,
            elapsed=self._before.elapsed + report.elapsed,
            **changes,
        )

    async def _progress(self, report: ImportReport) -> None:
        """Show a report that is still being changed: as a copy, with a few of its failures."""
        copy = self._with_earlier_runs(report, failures=report.failures[:_FAILURES_SHOWN])
        changes: dict[str, Any] = {"report": copy}
        if self._importer is not None and self._record.expected is not None:
            left = max(0, self._record.expected - settled_for_good(report))
            changes["eta"] = self._importer.forecast(left).done_at
        now = time.monotonic()
        if now - self._saved_at < _SAVED_EVERY:
            self._show(**changes)
            return
        self._saved_at = now
        await self._note(**changes)

    async def _note(self, **changes: Any) -> None:
        """Show changes, and write them down."""
        self._show(**changes)
        await asyncio.to_thread(self.files.save, self._record)

    def _show(self, **changes: Any) -> None:
        self._record = attrs.evolve(self._record, **changes)
        self._snapshot = self._record.snapshot
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _session_of(owner: str, session_for: SessionFor) -> Session:
    session = session_for(owner)
    return await session if inspect.isawaitable(session) else session


def _changes(verdict: Verdict, record: JobRecord, tries: int) -> dict[str, Any]:
    """Return what a verdict changes of the record."""
    changes: dict[str, Any] = {"state": verdict.state, "error": verdict.error, "tries": tries}
    if verdict.opens is not None:
        waited = record.waited + (verdict.seconds or 0.0)
        return changes | {"waited": waited, "eta": max(verdict.opens, record.eta or verdict.opens)}
    return changes | {"tries": tries + 1, "eta": None}
