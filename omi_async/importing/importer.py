"""The importer: workers over the chunks of a source, and how an import ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, get_args

from omi_async._api.retry import Retry
from omi_async.constants import BATCH_SIZE
from omi_async.errors import ConfigurationError, OmiError, RateLimitError
from omi_async.importing.answers import KnownRefusals, ServerClock
from omi_async.importing.calls import Calls
from omi_async.importing.delivery import Delivery, OnUnknown
from omi_async.importing.forecast import CallPace, Forecast, foresee
from omi_async.importing.intake import FactLike, Intake
from omi_async.importing.item import Item
from omi_async.importing.journal.journal import Journal
from omi_async.importing.lanes import Lanes, TwoLanes
from omi_async.importing.reconcile import Reconciler
from omi_async.importing.report import FactOutcome, ImportReport, ImportStoppedError
from omi_async.importing.sender import Sender
from omi_async.importing.stopping import ImportHalted, StopSignal
from omi_async.importing.tracker import OnOutcome, OnProgress, Tracker

__all__ = ["FactLike", "Importer"]


class Importer:
    """One import, outcome by outcome.

    ```python
    async with session.memories.importer(facts) as importer:
        async for outcome in importer:
            print(outcome.index, outcome.state)
    print(importer.report)
    ```

    Outcomes come in the order in which facts are settled. A slow reader slows the senders: at most
    ``(concurrency + 1) * 25`` facts are pulled beyond those whose outcome was read. Leaving the block early
    stops the import as `stop` does. Made by `Memories.importer`, which explains the arguments.

    Attributes:
        report: the account so far.
    """

    def __init__(
        self,
        sender: Sender,
        facts: Iterable[FactLike] | AsyncIterable[FactLike],
        *,
        concurrency: int = 4,
        journal: str | os.PathLike[str] | Journal | None = None,
        dedupe: bool = True,
        skip_existing: bool = False,
        on_unknown: OnUnknown = "reconcile",
        max_wait: float | None = None,
        lanes: Lanes = "batch",
        drain_timeout: float = 30.0,
        on_outcome: OnOutcome | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        if concurrency < 1 or concurrency != int(concurrency):
            raise ValueError(f"concurrency must be a whole number from 1 on, not {concurrency!r}")
        for name, seconds in (("drain_timeout", drain_timeout), ("max_wait", max_wait)):
            if seconds is not None and not seconds >= 0:
                raise ValueError(f"{name} must be a number of seconds from 0 on, not {seconds!r}")
        if on_unknown not in get_args(OnUnknown):
            raise ValueError(f"on_unknown must be one of {get_args(OnUnknown)}, not {on_unknown!r}")
        if lanes not in get_args(Lanes):
            raise ValueError(f"lanes must be one of {get_args(Lanes)}, not {lanes!r}")
        if journal is not None and not dedupe:
            raise ValueError("a journal knows facts by their text; dedupe=False cannot go with it")
        self._sender = sender
        self._journal = journal if isinstance(journal, Journal | None) else Journal(journal)
        self._skip_existing = skip_existing
        self._concurrency = concurrency
        self._max_wait = max_wait
        self._lanes = lanes
        self._drain_timeout = drain_timeout
        self._signal = StopSignal()
        self._tracker = Tracker(
            room=(concurrency + 1) * BATCH_SIZE,
            signal=self._signal,
            on_outcome=on_outcome,
            on_progress=on_progress,
        )
        self._tracker.journal = self._journal
        self._pace = CallPace()
        self._known_refusals = KnownRefusals()
        self._intake = Intake(
            tracker=self._tracker,
            known_refusals=self._known_refusals,
            dedupe=dedupe,
            journal=self._journal,
            doubtful=self._doubtful_from_earlier,
        )
        self._chunks = self._intake.chunks_of(facts)
        self._pulling = asyncio.Lock()
        self._returned: deque[Item] = deque()  # of chunks from which single facts were taken
        self._on_unknown = on_unknown
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[None] | None = None
        self._started = False
        self._failure: Exception | None = None

    # What a user sees

    @property
    def report(self) -> ImportReport:
        """The account so far; complete once the import has ended."""
        return self._tracker.report

    def stop(self) -> None:
        """Begin no new call; those on the wire may land within `drain_timeout`. To be called in the loop."""
        self._signal.stop()

    def forecast(self, facts_left: int) -> Forecast:
        """Foresee what so many facts still take, in full batches, if nothing fails. To be called in the loop.

        Quota windows count as far as they are known by now; single facts (``lanes="both"``) do not, and make
        it sooner.
        """
        seconds = self._pace.seconds(asyncio.get_running_loop().time())
        return foresee(self._sender.pacing, facts_left, seconds / max(1, self.report.requests))

    async def run(self) -> ImportReport:
        """Import everything and return the report.

        Raises:
            ImportStoppedError: the import could not go on.
            asyncio.CancelledError: it was cancelled; calls on the wire had `drain_timeout` to land.
        """
        await self._start(streaming=False)
        await self._join()
        self._raise_failure()
        return self.report

    async def __aenter__(self) -> Self:
        await self._start(streaming=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await self._join()

    def __aiter__(self) -> AsyncIterator[FactOutcome]:
        return self

    async def __anext__(self) -> FactOutcome:
        main = self._main
        if main is None:
            raise ConfigurationError("iterate over an importer inside `async with`")
        outcome = await self._tracker.next_outcome(main.done)
        if outcome is not None:
            return outcome
        main.result()
        self._raise_failure()
        raise StopAsyncIteration

    # The run

    async def _start(self, *, streaming: bool) -> None:
        if self._main is not None or self._started:
            raise ConfigurationError("an importer runs once; make another for another import")
        self._started = True
        self._tracker.streaming = streaming
        if self._journal is not None:
            await self._begin_journal(self._journal)
        self._main = asyncio.create_task(self._import(), name="omi_async import")
        self._main.add_done_callback(lambda _task: self._tracker.wake())

    async def _begin_journal(self, journal: Journal) -> None:
        """Open the journal in a thread: a large one takes seconds. When cancelled, close it again."""
        beginning = asyncio.ensure_future(asyncio.to_thread(journal.begin, self._sender.base_url))
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await _to_the_end(lambda: asyncio.wait({beginning}))
            if not beginning.cancelled() and beginning.exception() is None:
                journal.end()
            raise

    async def _join(self) -> None:
        """Wait for the end; when cancelled, stop first, and when stopped or cancelled before, at once."""
        assert self._main is not None  # noqa: S101  # both callers started it
        try:
            await asyncio.wait({self._main})
        except asyncio.CancelledError:
            if self._signal.stopped.is_set():
                self._main.cancel()
            self.stop()
            while not self._main.done():
                try:
                    await asyncio.wait({self._main})
                except asyncio.CancelledError:
                    self._main.cancel()
            raise
        self._main.result()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            error = ImportStoppedError(f"the import was stopped: {self._failure}", self.report)
            if (trouble := self._tracker.trouble) not in {None, self._failure}:
                error.add_note(f"while it was ending: {trouble}")
            raise error from self._failure

    async def _import(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._pace.begin(started)
        report = self.report
        self._wire_up(ServerClock(time.time()))
        try:
            self._spawn(self._begin_work())
            await self._until_done()
        finally:
            await _to_the_end(self._end_tasks)
            await self._close_source()
            report.complete = self._chunks.exhausted
            report.elapsed = loop.time() - started
            self._failure = self._failure or self._tracker.trouble
            try:
                await _to_the_end(self._close_books)
            finally:
                self._failure = self._failure or self._tracker.trouble
                if self._journal is not None:
                    self._journal.end()

    def _wire_up(self, start: ServerClock) -> None:
        calls = Calls(
            self._sender,
            concurrency=self._concurrency,
            retry=Retry(),
            max_wait=self._max_wait,
            signal=self._signal,
            report=self.report,
            on_leave=self._tracker.sending,
            on_park=self._park,
        )
        self._delivery = Delivery(
            calls=calls,
            tracker=self._tracker,
            start=start,
            known_refusals=self._known_refusals,
            on_unknown=self._on_unknown,
            set_aside=self._set_aside,
            fatal=self._fail,
        )
        self._two_lanes = TwoLanes(calls, self._delivery, lambda: self._chunks.drained, self._returned.extend)
        self._reconciler = Reconciler(
            calls=calls,
            tracker=self._tracker,
            start=start,
            signal=self._signal,
            delivery=self._delivery,
            spawn=self._spawn,
        )

    def _park(self) -> None:
        now = asyncio.get_running_loop().time()
        self._pace.park(now, self._sender.pacing.wait("batch", live=False))
        self._spawn(self._tracker.progress())

    def _set_aside(self, items: list[Item]) -> None:
        self._reconciler.set_aside(items)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _until_done(self) -> None:
        """Wait for all tasks; once stopped, at most for `drain_timeout`."""
        stopped = asyncio.create_task(self._signal.stopped.wait())
        try:
            while self._tasks and not stopped.done():
                done, _ = await asyncio.wait({*self._tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
                self._collect(done)
            deadline = asyncio.get_running_loop().time() + self._drain_timeout
            while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
                done, _ = await asyncio.wait(self._tasks, timeout=left)
                self._collect(done)
        finally:
            stopped.cancel()

    def _collect(self, done: Iterable[asyncio.Task[Any]]) -> None:
        for task in done:
            if task in self._tasks:
                self._tasks.discard(task)
                if task.cancelled():
                    if not self._signal.stopped.is_set():
                        self._fail(OmiError("the source raised CancelledError"))
                    continue
                error = task.exception()
                if isinstance(error, Exception):
                    if not isinstance(error, ImportHalted):
                        self._fail(error)
                elif error is not None:
                    self._fail(OmiError(f"the source raised {type(error).__name__}"))

    async def _end_tasks(self) -> None:
        """Cancel what did not land in time; a cancelled call gives its connection back."""
        self._signal.stop()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            done, _ = await asyncio.wait(self._tasks)
            self._collect(done)

    async def _close_source(self) -> None:
        try:
            await self._chunks.close()
        except asyncio.CancelledError:  # nobody waits for it any longer; the books are still to be closed
            pass
        except Exception as error:  # noqa: BLE001  # it is raised at the end, as the cause of the stop
            self._failure = self._failure or error

    async def _close_books(self) -> None:
        await self._tracker.close(self._why_not_sent())
        await self._tracker.progress()

    def _fail(self, error: Exception) -> None:
        """End the import because of an error: the first one is the cause."""
        self._failure = self._failure or self._tracker.trouble or error
        self._signal.stop()

    def _why_not_sent(self) -> OmiError:
        if self._failure is None:
            return OmiError("not sent: the import was stopped first")
        return OmiError(f"not sent: the import was stopped ({self._failure})")

    # The workers

    async def _begin_work(self) -> None:
        if self._skip_existing:
            try:
                self._intake.held.update(await self._reconciler.held())
            except RateLimitError:  # `max_wait` does not last for it
                self._signal.stop()
        for _ in range(self._concurrency):
            self._spawn(self._work())

    async def _work(self) -> None:
        while True:
            chunk = self._chunk_at_once()
            if chunk is None:
                chunk = await self._signal.wait_for(self._next_chunk())
            if not chunk:
                return
            if self._lanes == "batch":
                await self._delivery.deliver(chunk)
            elif not await self._two_lanes.bring(chunk):
                self._returned.extend(chunk)
            if self._tracker.trouble is not None:
                self._fail(self._tracker.trouble)

    def _chunk_at_once(self) -> list[Item] | None:
        """Return what `_next_chunk` would, if there is nothing to wait for."""
        if self._signal.stopped.is_set() or self._returned or self._pulling.locked():
            return None
        return self._chunks.at_once()

    async def _next_chunk(self) -> list[Item]:
        async with self._pulling:
            chunk = [self._returned.popleft() for _ in range(min(BATCH_SIZE, len(self._returned)))]
            if len(chunk) < BATCH_SIZE:
                chunk += await self._chunks.next(BATCH_SIZE - len(chunk))
            return chunk

    def _doubtful_from_earlier(self, item: Item) -> Item | None:
        """Look for what an earlier run left in doubt; or send it, where the user trusts the server."""
        if self._on_unknown == "resend":
            return item  # still in doubt, until a call with it is answered
        if self._on_unknown == "reconcile":
            self._reconciler.set_aside([item])
        else:
            self._tracker.record([item.become("unknown", error=item.unknown_because)])
        return None


async def _to_the_end(step: Callable[[], Awaitable[Any]]) -> None:
    """Take a step of the ending, again where a cancellation broke into it: the books must be closed."""
    while True:
        try:
            await step()
        except asyncio.CancelledError:
            continue
        return
