"""One part of an import, by one worker: from its lease to what is left for the next worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import attrs

from omi_async.errors import OmiError
from omi_async.importing.importer import Importer
from omi_async.importing.intake import FactLike
from omi_async.importing.options import Lanes, OnExisting, OnUnknown
from omi_async.importing.report import ImportReport, ImportStoppedError, settled_for_good
from omi_async.importing.stopping import outlast
from omi_async.importing.tracker import OnOutcome, OnProgress
from omi_async.session import Session
from omi_async.workers.errors import LeaseLost, QuotaShut, StoreError, may_pass
from omi_async.workers.journal import PartJournal
from omi_async.workers.lease import Lease, LeasedSender, Taken
from omi_async.workers.names import PartName
from omi_async.workers.progress import PartState, account_of, in_json, read_report
from omi_async.workers.split import of_part
from omi_async.workers.store import RedisStore
from omi_async.workers.words import why

__all__ = ["import_part"]

MAX_WAIT: Final = 30.0
"""Seconds that a task waits for quota windows, in all. A short wait is cheaper than to begin again; in one of
an hour, the task would hold a place that another import could use."""

RENEWALS: Final = 3
"""How often a lease is renewed while it lasts: two answers may be late, and it is still held."""

FAILURES_SHOWN: Final = 100
"""Failures in the account of a part that is running; more of them would be written each second."""

TOLD_EVERY: Final = 1.0
"""Seconds between two renewals at most: so old is what a watcher sees, and so late a stop is heard."""


async def import_part(
    session: Session,
    facts: Iterable[FactLike] | AsyncIterable[FactLike],
    /,
    *,
    store: RedisStore,
    part: str,
    parts: int | None = None,
    redelivered: bool = False,
    last_try: bool = True,
    concurrency: int = 4,
    skip_existing: bool = False,
    on_existing: OnExisting = "keep",
    on_unknown: OnUnknown = "reconcile",
    max_wait: float = MAX_WAIT,
    lanes: Lanes = "batch",
    flush_after: float | None = None,
    drain_timeout: float = 30.0,
    on_outcome: OnOutcome | None = None,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import a part, as far as its quotas and the other workers let; to be run again until it is done.

    May be run by any engine that delivers a task at least once: twice at the same time, again after a crash,
    again when it is done. Each fact is stored once, also by a server that does not know memories by their
    text; the package's docstring says how, and what is not guaranteed.

    Args:
        session: with the key of the account. Unless it has a ledger, its quotas are counted in the store
            from now on.
        facts: any iterable or async iterable, as for `Memories.import_facts`; each time the same ones, in any
            order.
        store: which all workers share.
        part: the name: ``"dana/3"`` is part 3 (from 0) of the import ``dana``. A part belongs to one account.
        parts: how many the import has, if `facts` are those of all parts: only those of this one are taken
            (`part_of`). None if they are this part's alone; then equal texts must be in the same part.
        redelivered: whether the engine has delivered it before. If the store does not know the part then, it
            may have lost its data: each fact is looked for before it is sent.
        last_try: whether the engine does not run it again after an outage, or if facts stay in doubt. Until
            then the part is "waiting"; then it has "failed".
        concurrency: as for `Memories.import_facts`; so are the others.
        skip_existing: likewise.
        on_existing: likewise.
        on_unknown: likewise.
        max_wait: seconds to wait for quota windows, in all, before `QuotaShut` is raised.
        lanes: likewise.
        flush_after: likewise.
        drain_timeout: likewise.
        on_outcome: likewise, in each run, also for facts that were settled in an earlier one. The `index` of
            an outcome counts the facts of this part.
        on_progress: likewise.

    Returns:
        The account of the part, over all of its runs: it is done, or was stopped (`RedisStore.stop`), or
        facts stay in doubt. A part that is done or stopped gives its report again, without a call; the
        failures in it are without their facts then.

    Raises:
        QuotaShut: a window opens later than `max_wait` allows; run it again at `resume_at`.
        LeaseLost: another worker holds the part or has taken it over; there is nothing to do before
            `resume_at`, and nothing at all if that one ends the part.
        ImportStoppedError: it could not go on: the key was refused, the server is down, the source raised.
            So it is if the store stays away for minutes (`__cause__` is a `StoreError`).
        StoreError: the store cannot be used; nothing was sent. Or the import has begun in another shape.
        ValueError: the name is none, or an option is no value.
        asyncio.CancelledError: it was cancelled; calls on the wire had `drain_timeout` to land.
    """
    name = PartName.parse(part, parts)
    options = {
        "concurrency": concurrency,
        "skip_existing": skip_existing,
        "on_existing": on_existing,
        "on_unknown": on_unknown,
        "max_wait": max_wait,
        "lanes": lanes,
        "flush_after": flush_after,
        "drain_timeout": drain_timeout,
        "on_outcome": on_outcome,
        "on_progress": on_progress,
    }
    session.share_quotas(store)  # else workers side by side would each spend the windows of the key
    own_facts = facts if parts is None else of_part(facts, name.number, parts)
    lease = Lease(store, name, session.longest_call)
    run = _Run(session, own_facts, lease, options, last_try=last_try)
    # In a task that the caller's cancellation does not reach: no matter when it comes, the lease that was
    # taken is given back, and the calls on the wire are recorded.
    work = asyncio.create_task(run.work(parts, redelivered=redelivered), name=f"omi_async part {name}")
    try:
        await asyncio.wait({work})
    except asyncio.CancelledError:
        run.leave()
        await outlast(work, impatient=work.cancel)
        if not work.cancelled():
            work.exception()  # the caller has his own reason to end
        raise
    return work.result()


@attrs.frozen
class _End:
    """How a run has ended.

    Attributes:
        state: of the part from now on.
        report: the account of the part.
        error: to be raised; None to return the report.
        resume_at: when the window opens that is waited for.
        words: why it failed.
    """

    state: PartState
    report: ImportReport
    error: OmiError | None = None
    resume_at: datetime | None = None
    words: str = ""


class _Run:
    """A worker's run of a part."""

    def __init__(
        self, session: Session, facts: Any, lease: Lease, options: dict[str, Any], *, last_try: bool
    ) -> None:
        self._session = session
        self._facts = facts
        self._lease = lease
        self._options = options
        self._last_try = last_try
        self._before = ImportReport()  # of the runs before this one
        self._importer: Importer | None = None
        self._left = False

    async def work(self, parts: int | None, *, redelivered: bool) -> ImportReport:
        """Take the part, import it, and give it back."""
        taken = await self._lease.take(self._session.base_url, parts, redelivered=redelivered)
        self._before = read_report(taken.report)
        if taken.state != "taken":
            return self._before
        end = _End("waiting", self._before)  # as it is left if something comes up that nobody foresaw
        try:
            end = await self._import(taken)
        finally:
            await self._give_back(end)
        if end.error is not None:
            raise end.error
        return end.report

    def leave(self) -> None:
        """End soon: calls on the wire may land, and nothing is waited for beside them."""
        self._left = True
        self._lease.hurry.set()
        if self._importer is not None:
            self._importer.stop()

    async def _import(self, taken: Taken) -> _End:
        journal = PartJournal(self._lease, rows=taken.rows, suspect=taken.suspect)
        memories = self._session.memories.through(LeasedSender(self._session, self._lease))
        self._importer = importer = memories.importer(self._facts, journal=journal, **self._options)
        if self._left:
            importer.stop()
        keeping = asyncio.create_task(self._keep(importer), name="omi_async lease")
        failure = None
        try:
            await importer.run()
        except ImportStoppedError as error:
            failure = error
        finally:
            keeping.cancel()
            await outlast(keeping)
        report = account_of(importer.report, self._before)
        if self._lease.lost is not None:
            return _End("running", report, self._lease.lost)
        return self._end(report, failure)

    def _end(self, report: ImportReport, failure: ImportStoppedError | None) -> _End:
        """Decide what a run has come to."""
        if failure is not None:
            failure.report = report
            state: PartState = "failed" if self._last_try or not may_pass(failure) else "waiting"
            return _End(state, report, failure, words=why(failure))
        if report.complete and not report.unknown and not report.not_sent:
            return _End("done", report)
        if self._lease.stop_asked:
            return _End("stopped", report)
        if report.resume_at is not None:
            words = f"a quota window is shut until {report.resume_at:%H:%M:%S}"
            shut = QuotaShut(words, resume_at=report.resume_at, report=report)
            return _End("waiting", report, shut, resume_at=report.resume_at)
        if self._left:
            return _End("waiting", report)
        # With "report", the caller has asked not to look for facts in doubt: another run would tell the same.
        hopeless = self._last_try or self._options["on_unknown"] == "report"
        return _End("failed" if hopeless else "waiting", report, words=_what_is_left(report))

    async def _give_back(self, end: _End) -> None:
        if self._lease.lost is not None:
            return
        if isinstance(end.error, ImportStoppedError) and isinstance(end.error.__cause__, StoreError):
            self._lease.hurry.set()  # it was waited for long enough
        resume_at = "" if end.resume_at is None else end.resume_at.isoformat()
        try:
            await self._lease.release(end.state, in_json(end.report), end.words, resume_at)
        except StoreError:
            if end.error is None and not self._left:
                raise  # all is settled, but nobody would know

    async def _keep(self, importer: Importer) -> None:
        """Renew the lease, tell how far the import is, stop it if somebody asks or the lease is lost."""
        lease, told = self._lease, settled_for_good(self._before)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(TOLD_EVERY, lease.length / RENEWALS)):
                    await lease.news.wait()
            lease.news.clear()
            if lease.stop_asked or lease.lost is not None:
                importer.stop()
            if lease.lost is not None:
                return
            # A run counts from the beginning of its input: the last one had come further, at first.
            settled = settled_for_good(importer.report)
            news = ""
            if settled > told:
                shown = attrs.evolve(importer.report, failures=importer.report.failures[:FAILURES_SHOWN])
                news, told = in_json(account_of(shown, self._before)), settled
            with suppress(LeaseLost, StoreError):  # the former is news; the latter meets whoever has to write
                await lease.write(report=news)


def _what_is_left(report: ImportReport) -> str:
    if report.unknown:
        return f"{report.unknown:,} facts are in doubt: they may be stored, and were not found"
    return f"{report.not_sent:,} facts were not sent"
