"""Every pulled fact is open until it is settled, once.

Whatever happens, the importer closes the tracker at its end: what is still open then is `unknown` if a call
may have stored it, and `not_sent` if none can have. So the law of the report holds by construction.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final

from omi_async._api.messages import BatchAnswer
from omi_async.errors import JournalError, OmiError
from omi_async.importing.answers import ServerClock
from omi_async.importing.item import Item
from omi_async.importing.journal.protocol import ImportJournal
from omi_async.importing.report import FAILED, FactOutcome, ImportReport
from omi_async.importing.stopping import ImportHalted, StopSignal

__all__ = ["OnOutcome", "OnProgress", "Tracker"]

MOST_IN_DOUBT: Final = 1000
"""Facts in doubt that may wait to be looked for before nothing more is pulled. Without them, an import whose
looks wait an hour for the list's quota would stand still after a few lost answers; without a bound, memory
would grow with a server that loses every answer."""

MOST_BEYOND_DOUBT: Final = 2500
"""Facts that may be settled while others wait to be looked for. The list shows 5,000 memories, the youngest
first: with more of them in front, those that are looked for would be out of sight."""

OnOutcome = Callable[[FactOutcome], Awaitable[None] | None]
OnProgress = Callable[[ImportReport], Awaitable[None] | None]


class Tracker:
    """Counts, delivers each outcome once, and holds the senders back while the reader is slow.

    Args:
        room: pulled facts that may be without a delivered outcome, not counting those to be looked for.
        signal: is set by an error of a callback or of the journal.
        journal: where outcomes are written before they are told.
        clock: what the journal is told of the server's clock.
        on_outcome: called with each outcome.
        on_progress: called with the report after each settled batch.

    Attributes:
        report: the counts.
        streaming: whether outcomes are read one by one through `next_outcome`.
        in_doubt: how many of the open facts wait to be looked for.
        last_answer: the last one that named memories: what the list must show.
    """

    def __init__(
        self,
        *,
        room: int,
        signal: StopSignal,
        journal: ImportJournal | None,
        clock: ServerClock,
        on_outcome: OnOutcome | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.report = ImportReport()
        self.streaming = False
        self.in_doubt = 0
        self.last_answer: BatchAnswer | None = None
        self._room = room
        self._beyond = 0  # how many were settled when the looking began
        self._signal = signal
        self._journal = journal
        self._clock = clock
        self._on_outcome = on_outcome
        self._on_progress = on_progress
        self._open: set[Item] = set()
        self._stream: deque[FactOutcome] = deque()
        self._owed: deque[FactOutcome] = deque()  # counted, but the callback has not been called yet
        self._changed = asyncio.Event()
        self._calling_back = asyncio.Lock()

    # The facts' way in

    def opened(self, items: Sequence[Item], pulled: int) -> None:
        """Count pulled elements, and keep the items that became of them open until they are settled."""
        self.report.pulled += pulled
        self._open.update(items)

    @property
    def room(self) -> int:
        """How many may be pulled for sure, whatever happens meanwhile."""
        return self._room - len(self._open) - len(self._stream)

    @property
    def full(self) -> bool:
        """Whether nothing more should be pulled for now."""
        if self.in_doubt and self.report.settled - self._beyond >= MOST_BEYOND_DOUBT:
            return True
        room = self.room
        # No more than were settled: if every answer is lost, the bound is the room alone.
        return room <= 0 and room + min(self.in_doubt, MOST_IN_DOUBT, self.report.settled) <= 0

    async def wait_for_room(self) -> None:
        """Wait until something may be pulled again."""
        while self.full:
            self._changed.clear()
            await self._changed.wait()

    def look_for(self, number: int) -> None:
        """Note that so many more of the open facts wait to be looked for, or fewer."""
        if not self.in_doubt or number < 0:
            self._beyond = self.report.settled
        self.in_doubt += number
        self._changed.set()

    async def sending(self, items: Sequence[Item]) -> None:
        """Write down that a call with these items is about to leave. Raises `ImportHalted` if that fails."""
        if self._journal is not None:
            self._journal.clock_offset = self._clock.offset
            try:
                await self._journal.sending(items)
            except JournalError as error:
                self._signal.fail(error)
                raise ImportHalted from None

    # The outcomes' way out

    async def settle(self, items: Sequence[Item]) -> None:
        """Take open items that have their state: first to the journal, then to the report and the caller."""
        if self._journal is not None and items:
            self._journal.clock_offset = self._clock.offset
            try:
                await self._journal.settled(items)
            except JournalError as error:
                self._signal.fail(error)  # and told all the same: the server has them
        self.count(items)
        await self.hand_out()

    def count(self, items: Sequence[Item]) -> None:
        """Take open items that have their state, which the journal knows; `hand_out` is owed."""
        self._open.difference_update(items)
        states = [item.state for item in items]
        if self._on_outcome is not None or self.streaming or not FAILED.isdisjoint(states):
            for item in items:
                self.add(_outcome_of(item))
        else:
            for state in {*states}:
                self.report.count(state or "unknown", states.count(state))
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
        """Call back with what is owed. What a cancelled task leaves owed, the next one hands out."""
        if self._owed and self._on_outcome is not None:
            async with self._calling_back:
                while self._owed:
                    await self._call_back(self._on_outcome, self._owed.popleft())

    async def progress(self) -> None:
        """Tell the caller that a batch is settled."""
        if self._on_progress is not None:
            async with self._calling_back:
                await self._call_back(self._on_progress, self.report)

    async def _call_back(self, callback: Callable[..., Awaitable[None] | None], argument: object) -> None:
        """Call back. An error is kept, and stops the import; it must not cost the account of the facts."""
        try:
            result = callback(argument)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._signal.fail(OmiError("a callback raised CancelledError"))
        except Exception as error:  # noqa: BLE001  # it is raised at the end, as the cause of the stop
            self._signal.fail(error)

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
        """Let the reader look again: the import has ended."""
        self._changed.set()

    # The end

    async def close(self, reason: OmiError) -> None:
        """Settle whatever is open, and check the law.

        A state that is known already stays: its answer came, and only the settling of it was cut short.
        """
        items = sorted(self._open, key=attrgetter("index"))
        for item in items:
            if item.state is None and item.unknown_because is not None:
                item.become("unknown", error=item.unknown_because)
            elif item.state is None:
                item.become("not_sent", error=reason)
        await self.settle(items)
        report = self.report
        if report.settled != report.pulled:
            raise RuntimeError(f"the counts do not add up: {report!r}; please report this")


def _outcome_of(item: Item) -> FactOutcome:
    state = item.state or "unknown"
    return FactOutcome(item.index, item.fact, state, item.memory_id, item.error, item.fact.origin)
