"""The importer: workers over the batches of a source, and how an import ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVarTuple

from omi_async import _observing
from omi_async.constants import BATCH_SIZE
from omi_async.errors import ConfigurationError, OmiError, RateLimitError
from omi_async.importing.answers import KnownRefusals, ServerClock
from omi_async.importing.calls import Calls, WindowShut
from omi_async.importing.concurrency import Caution, Concurrency
from omi_async.importing.delivery import Delivery
from omi_async.importing.forecast import Forecast, foresee
from omi_async.importing.intake import Intake
from omi_async.importing.item import Batch, Item
from omi_async.importing.journal.protocol import ImportJournal
from omi_async.importing.lanes import TwoLanes
from omi_async.importing.looks import Looks
from omi_async.importing.options import ImportOptions
from omi_async.importing.reconcile import Reconciler
from omi_async.importing.report import FactOutcome, ImportReport, ImportStoppedError
from omi_async.importing.sender import Sender
from omi_async.importing.stopping import ImportHalted, StopSignal, outlast, to_the_end
from omi_async.importing.tags import Tags
from omi_async.importing.tracker import Tracker
from omi_async.importing.waiting import WaitBudget

__all__ = ["Importer"]

Ts = TypeVarTuple("Ts")

SENDINGS: Final = 4
"""Sendings of a fact at most with ``on_unknown="resend"``, the first one included."""


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

    def __init__(self, sender: Sender, facts: object, options: ImportOptions, caution: Caution) -> None:
        self._sender = sender
        self._options = options
        self._signal = StopSignal()
        self._clock = ServerClock()
        self._tracker = Tracker(
            room=(options.concurrency + 1) * BATCH_SIZE,
            signal=self._signal,
            journal=options.journal,
            clock=self._clock,
            on_outcome=options.on_outcome,
            on_progress=options.on_progress,
        )
        self._budget = WaitBudget(options.max_wait, self._signal, self._tracker.report)
        known_refusals = KnownRefusals()
        calls = Calls(
            sender,
            concurrency=Concurrency(options.concurrency, caution),
            budget=self._budget,
            signal=self._signal,
            tracker=self._tracker,
        )
        self._calls = calls
        self._tags = Tags(
            add=options.on_existing == "add-tags", calls=calls, budget=self._budget, report=self.report
        )
        self._intake = Intake(
            facts,
            tracker=self._tracker,
            signal=self._signal,
            known_refusals=known_refusals,
            journal=options.journal,
            tags=self._tags,
            dedupe=options.dedupe,
            flush_after=options.flush_after,
        )
        self._delivery = Delivery(
            calls=calls,
            tracker=self._tracker,
            clock=self._clock,
            known_refusals=known_refusals,
            tags=self._tags,
        )
        self._looks = Looks(calls=calls, tracker=self._tracker, clock=self._clock, tags=self._tags)
        self._reconciler = Reconciler(
            looks=self._looks, writes=calls.writes, tracker=self._tracker, signal=self._signal
        )
        self._resolving = False
        self._cut_short = False
        self._asked_to_stop = False
        self._started: float | None = None
        self._main: asyncio.Task[None] | None = None

    # What a user sees

    @property
    def report(self) -> ImportReport:
        """The account so far; complete once the import has ended."""
        return self._tracker.report

    def stop(self) -> None:
        """Begin no new call; those on the wire may land within `drain_timeout`. To be called in the loop."""
        self._asked_to_stop = True
        self._signal.stop()

    def forecast(self, facts_left: int) -> Forecast:
        """Foresee what so many facts still take, in full batches, if nothing fails. To be called in the loop.

        Quota windows count as far as they are known by now; single facts (``lanes="both"``) do not, and make
        it sooner.
        """
        now = asyncio.get_running_loop().time()
        busy = 0.0 if self._started is None else now - self._started - self._budget.waited(now)
        return foresee(self._sender.pacing, facts_left, max(0.0, busy) / max(1, self.report.requests))

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
        await self._join(cancelled=kind is not None and issubclass(kind, asyncio.CancelledError))

    def __aiter__(self) -> Self:
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

    # The task that a user waits in

    async def _start(self, *, streaming: bool) -> None:
        if self._started is not None:
            raise ConfigurationError("an importer runs once; make another for another import")
        self._started = asyncio.get_running_loop().time()
        self._tracker.streaming = streaming
        if self._options.journal is not None:
            await self._begin_journal(self._options.journal)
        self._main = asyncio.create_task(self._observed_import(), name="omi_async import")
        self._main.add_done_callback(lambda _task: self._tracker.wake())

    async def _begin_journal(self, journal: ImportJournal) -> None:
        """Open the journal. When cancelled, close it again: it is half open by then."""
        beginning = asyncio.create_task(journal.begin(self._sender.base_url))
        try:
            await asyncio.wait({beginning})
        except asyncio.CancelledError:
            await outlast(beginning)
            if not beginning.cancelled() and beginning.exception() is None:
                await outlast(asyncio.create_task(journal.end()))
            raise
        beginning.result()

    async def _join(self, *, cancelled: bool = False) -> None:
        """Wait for the end. When cancelled, stop first; if it was stopped before, end at once."""
        main = self._main
        assert main is not None  # noqa: S101  # both callers started it
        if cancelled:
            await outlast(main, impatient=main.cancel)
            return
        try:
            await asyncio.wait({main})
        except asyncio.CancelledError:
            if self._asked_to_stop:  # and not: stopped by an error, of which the caller need not know yet
                main.cancel()
            self.stop()
            await outlast(main, impatient=main.cancel)
            raise
        main.result()

    def _raise_failure(self) -> None:
        if self._signal.errors:
            first, *others = self._signal.errors
            error = ImportStoppedError(f"the import was stopped: {first}", self.report)
            for other in others[:1]:
                error.add_note(f"while it was ending: {other}")
            raise error from first

    # The import, in a task of its own: no cancellation of the caller's falls into the middle of its end

    async def _observed_import(self) -> None:
        with _observing.importing(self._sender.base_url, self.report):
            await self._import()

    async def _import(self) -> None:
        """Run the workers, then close everything.

        An import ends in this order, whatever ends it:

        1. `stop` is set; whatever only waits is halted, and no call begins any more.
        2. Calls on the wire land within `drain_timeout`; then they are cancelled, which leaves their facts in
           doubt. With that the task group ends, and nothing of the import runs beside this task.
        3. The source is closed, so that it lets go of its files.
        4. Each fact that is still open gets its state, which the journal and the callbacks are told.
        5. The journal is closed. After it nothing is written, so this comes last.

        A cancellation that falls into 3 to 5 is the caller's impatience. It interrupts what is waited for at
        that moment, a callback or a source, and no step is left out.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with (
                self._signal.ends_after(self._options.drain_timeout) as self._drain,
                asyncio.TaskGroup() as helpers,
            ):
                helpers.create_task(self._tell_of_waits())
                async with asyncio.TaskGroup() as self._tasks:
                    self._begin(self._begin_work)
                await self._guarded(self._tags.finish)
                self._budget.end()
        except ImportHalted:
            self._cut_short = True
        finally:
            self._signal.stop()
            self._budget.end()
            self._tags.close()
            await to_the_end(self._close_source)
            try:
                await to_the_end(self._close_tracker)
                self.report.complete = not (
                    self._cut_short or self.report.not_sent or not self._intake.exhausted
                )
                self.report.elapsed = loop.time() - began
                await to_the_end(self._tracker.progress)
            finally:
                if self._options.journal is not None:
                    await to_the_end(self._options.journal.end)

    def _begin(self, work: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        self._tasks.create_task(self._guarded(work, *arguments))

    async def _guarded(self, work: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Do a task's work. An error stops the import, but not the other tasks' calls on the wire."""
        try:
            await work(*arguments)
        except ImportHalted:
            self._cut_short = True
        except asyncio.CancelledError:
            task = asyncio.current_task()
            self._cut_short = True
            if task is None or task.cancelling():
                raise
            self._signal.fail(OmiError("the source raised CancelledError"))
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # noqa: BLE001  # it is raised at the end, as the cause of the stop
            self._signal.fail(error)
        except BaseException as error:  # noqa: BLE001  # an exception of the source's that is no Exception
            self._signal.fail(OmiError(f"the source raised {type(error).__name__}"))

    async def _tell_of_waits(self) -> None:
        """Tell the caller when the import begins to wait for a quota window."""
        while await self._budget.another_wait():
            await self._tracker.progress()

    async def _close_source(self) -> None:
        """Close the source. One that does not let go must not hold up the end: what it holds is its own."""
        with suppress(asyncio.CancelledError):
            try:
                # It was told of a stop when the calls on the wire were, so it has no longer than they.
                ends = self._drain.when() or asyncio.get_running_loop().time() + self._options.drain_timeout
                async with asyncio.timeout_at(ends) as scope:
                    await self._intake.close()
            except Exception as error:  # noqa: BLE001  # it is raised at the end, as the cause of the stop
                if not scope.expired():
                    self._signal.fail(error)

    async def _close_tracker(self) -> None:
        errors = self._signal.errors
        why = f"the import was stopped ({errors[0]})" if errors else "the import was stopped first"
        error = OmiError(f"not sent: {why}")
        error.__cause__ = errors[0] if errors else None
        await self._tracker.close(error)

    # The workers

    async def _begin_work(self) -> None:
        self._clock.start(time.time())
        if self._options.skip_existing:
            try:
                self._intake.held.update(await self._looks.held())
            except RateLimitError:  # `max_wait` does not last for it
                self._signal.stop()
        for _ in range(self._options.concurrency):
            self._begin(self._work if self._options.lanes == "batch" else self._work_in_both_lanes)

    async def _work(self) -> None:
        while (batch := await self._intake.next_batch()) is not None:
            await self._send(batch)

    async def _work_in_both_lanes(self) -> None:
        lanes = TwoLanes(self._calls, self._intake)
        while await self._intake.has_more():
            lane = await lanes.choose()
            batch = await self._intake.next_batch(1 if lane == "create" else BATCH_SIZE)
            if batch is None:
                return
            batch.single = lane == "create"
            try:
                await self._send(batch, patient=False)
            except WindowShut:
                self._intake.give_back([item for item in batch.items if item.state is None])

    async def _send(self, batch: Batch, *, patient: bool = True) -> None:
        """Send a batch, and decide what happens with the facts of it that are in doubt then."""
        items = batch.items
        if batch.in_doubt:  # by an earlier run
            items = await self._doubtful(items)
        while items:
            if batch.alone:
                with self._calls.one_at_a_time():
                    in_doubt = await self._delivery.deliver_single(*items)
            elif batch.single:
                in_doubt = await self._delivery.deliver_single(*items, patient=patient)
            else:
                in_doubt = await self._delivery.deliver(items, patient=patient)
            items = await self._doubtful(in_doubt)
            await self._tracker.progress()
            await self._tags.between_batches()

    async def _doubtful(self, items: list[Item]) -> list[Item]:
        """Decide what happens with facts that a call may have stored; return those to send again now."""
        if not items:
            return items
        if self._signal.stopped:  # nothing is looked for any more, nor sent: they are settled at the close
            raise ImportHalted
        again: list[Item] = []
        if self._options.on_unknown == "reconcile":
            self._reconciler.add(items)
            if not self._resolving:
                self._resolving = True
                self._begin(self._resolve_doubt)
            return again
        if self._options.on_unknown == "resend":
            again = [item for item in items if item.tries < SENDINGS and not item.maybe_reworded]
        unknown = [item for item in items if item not in again]
        await self._tracker.settle([item.become("unknown", error=item.unknown_because) for item in unknown])
        return again

    async def _resolve_doubt(self) -> None:
        """Look for the facts in doubt, and send again what is certainly absent, until there is no doubt."""
        try:
            while self._reconciler.waiting:
                for batch in await self._reconciler.resolve():
                    self._begin(self._send, batch)
                await self._tracker.progress()
        finally:
            self._resolving = False
