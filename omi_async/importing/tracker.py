"""The books of an import: every pulled fact is open until it is settled, once.

Whatever happens, the importer closes the books at its end: what is still open then is `unknown` where a call
may have stored it, and `not_sent` where none can have. So the conservation law holds by construction.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final

from omi_async.errors import JournalError, OmiError
from omi_async.importing.item import Item
from omi_async.importing.journal.journal import Journal
from omi_async.importing.report import FAILED, FactOutcome, ImportReport, State
from omi_async.importing.stopping import ImportHalted, StopSignal

__all__ = ["Item", "OnOutcome", "OnProgress", "Tracker"]

CONFIRMED_KEPT: Final = 25

MOST_ASIDE: Final = 1000
"""Facts in doubt that may wait to be looked for, before nothing more is pulled."""

OnOutcome = Callable[[FactOutcome], Awaitable[None] | None]
OnProgress = Callable[[ImportReport], Awaitable[None] | None]


class Tracker:
    """Counts, delivers each outcome once, and holds the senders back while the reader is slow.

    Args:
        room: pulled facts that may be without a delivered outcome, not counting those set aside.
        signal: stops the import, but no callback in the middle.
        on_outcome: called with each outcome.
        on_progress: called with the report after each settled batch.

    Attributes:
        report: the counts.
        streaming: whether outcomes are read one by one through `next_outcome`.
        heard: whether anybody is called with outcomes.
        watched: whether anybody is called with the report.
        open: items without a state.
        confirmed: ids that answers have named, the last few: what the list must show.
        set_aside: how many of them are in doubt and wait to be looked for.
        journal: where verdicts are written before anybody hears of them.
        trouble: the first error of a callback or of the journal, which must end the import.
    """

    def __init__(
        self,
        *,
        room: int,
        signal: StopSignal,
        on_outcome: OnOutcome | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.report = ImportReport()
        self.streaming = False
        self.heard = on_outcome is not None
        self.watched = on_progress is not None
        self.open: set[Item] = set()
        self.set_aside = 0
        self.confirmed: deque[str] = deque(maxlen=CONFIRMED_KEPT)
        self.journal: Journal | None = None
        self.trouble: Exception | None = None
        self._room = room
        self._signal = signal
        self._on_outcome = on_outcome
        self._on_progress = on_progress
        self._stream: deque[FactOutcome] = deque()
        self._changed = asyncio.Event()
        self._calling_back = asyncio.Lock()
        self._owed: deque[FactOutcome] = deque()  # counted, but the callback has not been called yet

    # The facts' way in

    def enter(self, items: Sequence[Item], pulled: int) -> None:
        """Count pulled elements, and open the items that became of them, until they are settled."""
        self.report.pulled += pulled
        self.open.update(items)

    @property
    def room(self) -> int:
        """How many may be pulled for sure, whatever happens meanwhile."""
        return self._room - len(self.open) - len(self._stream)

    @property
    def full(self) -> bool:
        """Whether nothing more should be pulled for now."""
        room = self._room - len(self.open) - len(self._stream)
        # As many as were settled: where every answer is lost, the bound is the room alone.
        return room <= 0 and room + min(self.set_aside, MOST_ASIDE, self.report.settled) <= 0

    async def wait_for_room(self) -> None:
        """Wait until something may be pulled again."""
        while self.full:
            self._changed.clear()
            await self._changed.wait()

    def sending(self, items: Sequence[Item]) -> None:
        """Write down that a call with these items is about to leave. Raises `ImportHalted` if that fails."""
        if self.journal is not None:
            try:
                self.journal.sending(items)
            except JournalError as error:
                self._stop_for(error)
                raise ImportHalted from None

    # The outcomes' way out

    async def settle(
        self,
        item: Item,
        state: State,
        *,
        memory_id: str | None = None,
        error: OmiError | None = None,
    ) -> None:
        """Give an open item its one state."""
        await self.settle_all([item.become(state, memory_id, error)])

    async def settle_all(self, items: Sequence[Item]) -> None:
        """Take open items that have become something, and hand their outcomes out."""
        self.record(items)
        if self.heard:
            await self.hand_out()

    def record(self, items: Sequence[Item]) -> None:
        """Take what open items have become, first to the journal, then to the report; `hand_out` is owed."""
        if self.journal is not None:
            try:
                self.journal.settled(items)
            except JournalError as error:
                self._stop_for(error)
        self.note(items)

    def note(self, items: Sequence[Item]) -> None:
        """Take what open items have become, as the journal knows already; `hand_out` is owed."""
        self.open.difference_update(items)
        states = [item.state for item in items]
        if self.heard or self.streaming or not FAILED.isdisjoint(states):
            for item in items:
                self.add(
                    FactOutcome(
                        item.index, item.fact, item.state, item.memory_id, item.error, item.fact.origin
                    )
                )
        else:
            for state in {*states}:
                self.report.count(state, states.count(state))
        self._changed.set()

    def add(self, outcome: FactOutcome) -> None:
        """Count an outcome; `hand_out` is owed."""
        self.report.add(outcome)
        if self.streaming:
            self._stream.append(outcome)
        if self._on_outcome is not None:
            self._owed.append(outcome)
        self._changed.set()

    async def hand_out(self) -> None:
        """Call back with what is owed. What a cancelled task leaves owed, the next one hands out.

        An error of the callback is kept; it must not cost the books.
        """
        if self._on_outcome is not None:
            with self._signal.uninterrupted():
                async with self._calling_back:
                    while self._owed:
                        await self._call_back(self._on_outcome, self._owed.popleft())

    async def progress(self) -> None:
        """Tell whoever watches that a batch is settled."""
        if self._on_progress is not None:
            with self._signal.uninterrupted():
                async with self._calling_back:
                    await self._call_back(self._on_progress, self.report)

    async def _call_back(self, callback: Callable[..., Awaitable[None] | None], argument: object) -> None:
        try:
            result = callback(argument)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._stop_for(OmiError("a callback raised CancelledError"))
        except Exception as error:  # noqa: BLE001  # it is raised at the end, as the cause of the stop
            self._stop_for(error)

    def _stop_for(self, trouble: Exception) -> None:
        self.trouble = self.trouble or trouble
        self._signal.stop()

    async def next_outcome(self, ended: Callable[[], bool]) -> FactOutcome | None:
        """Return the next outcome for the reader, or None when the import has `ended` and all are read."""
        while not self._stream:
            if ended():
                return None
            self._changed.clear()
            await self._changed.wait()
        outcome = self._stream.popleft()
        self._changed.set()
        return outcome

    def wake(self) -> None:
        """Let the reader and the senders look again: the import has ended."""
        self._changed.set()

    # The end

    async def close(self, reason: OmiError) -> None:
        """Settle whatever is open, and check the law."""
        await self.settle_all(
            [
                item.become("unknown", error=item.unknown_because)
                if item.unknown_because is not None
                else item.become("not_sent", error=reason)
                for item in sorted(self.open, key=attrgetter("index"))
            ]
        )
        report = self.report
        if report.settled != report.pulled:
            raise RuntimeError(f"the books do not balance: {report!r}; please report this")
