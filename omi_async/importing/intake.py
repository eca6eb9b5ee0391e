"""The facts' way in: pulled when they are needed, checked, folded, and recalled from earlier runs.

Nothing is pulled ahead of the room that the tracker has, and each element is read before the next one is
pulled: a source may use one mapping for all of its facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Final, Literal

import attrs

from omi_async.constants import BATCH_SIZE
from omi_async.errors import InvalidFactError, JournalError, OmiError, ResponseLostError
from omi_async.fact import AnyFact, Payload, checked, refuse_table
from omi_async.importing.answers import KnownRefusals
from omi_async.importing.item import Batch, Held, Item, content_key, fingerprint
from omi_async.importing.journal.protocol import ImportJournal
from omi_async.importing.journal.row import Recalled
from omi_async.importing.pump import Pump
from omi_async.importing.report import FactOutcome
from omi_async.importing.stopping import ImportHalted, StopSignal
from omi_async.importing.tags import Tags
from omi_async.importing.tracker import Tracker

__all__ = ["FactLike", "Intake", "SeenTexts", "iterator_of"]

FactLike = AnyFact | FactOutcome
"""What an import takes: a fact, its text, a mapping, or the outcome of a source's broken record.

An outcome that has a fact counts as that fact, so that `ImportReport.failures` can be imported again."""

YIELD_EVERY: Final = 256
"""Facts pulled in a row before other tasks of the event loop get their turn: some milliseconds. A source that
never waits would otherwise keep the loop for itself while its facts need no call."""


class Intake:
    """Makes batches of what a source gives.

    Args:
        facts: the source. A TypeError is raised for what is none.
        tracker: takes the items, and what is settled on the way in.
        signal: stops the waiting.
        known_refusals: what the server is known to refuse.
        journal: recalls earlier runs, and folds in place of memory.
        tags: learns of the facts that are settled on the way in, and of tags that the account shows.
        dedupe: whether to fold equal texts.
        flush_after: seconds after which a batch is given out although it is not full; None for never.

    Attributes:
        exhausted: whether the source has ended; one that raised has not, but nothing more is pulled from it.
        held: the memories that the account is known to hold, by content key.
    """

    def __init__(
        self,
        facts: object,
        *,
        tracker: Tracker,
        signal: StopSignal,
        known_refusals: KnownRefusals,
        journal: ImportJournal | None,
        tags: Tags,
        dedupe: bool,
        flush_after: float | None = None,
    ) -> None:
        self.exhausted = False
        self.held: dict[bytes, Held] = {}
        source = iterator_of(facts)
        if isinstance(source, AsyncIterator):
            self._source: Iterator[FactLike] | Pump[FactLike] = Pump(
                source, read=self._read_one, signal=signal
            )
        else:
            self._source = source
        self._tracker = tracker
        self._signal = signal
        self._known_refusals = known_refusals
        self._journal = journal
        self._tags = tags
        self._seen = SeenTexts() if dedupe and journal is None else None  # a journal folds by itself
        self._part: list[Item] = []  # of the next batch
        self._doubtful: list[Item] = []  # by calls of an earlier run
        self._flush_after = flush_after
        self._oldest = 0.0  # when the first fact of the next batch was pulled, by the loop's clock
        self._due = False  # the next batch has waited long enough
        self._broken = False
        self._pulled = 0  # since the loop had its turn
        self._pulling = asyncio.Lock()

    @property
    def left(self) -> int | None:
        """How many facts are yet to be given out; None while that is unknown."""
        return len(self._part) if self.exhausted else None

    async def next_batch(self, size: int = BATCH_SIZE) -> Batch | None:
        """Return the next batch, of which only the last is smaller; None at the end.

        Raises what the source raises, and `ImportHalted` once stopped.
        """
        async with self._pulling:
            await self._fill(size)
            if self._doubtful:
                doubtful, self._doubtful = self._doubtful, []
                return Batch(doubtful, in_doubt=True)
            items, self._part = self._part[:size], self._part[size:]
            return Batch(items) if items else None

    async def has_more(self) -> bool:
        """Whether there is another batch. Raises as `next_batch`."""
        async with self._pulling:
            await self._fill(1)
            return bool(self._part or self._doubtful)

    async def _fill(self, size: int) -> None:
        self._due = False
        while len(self._part) < size and not self._doubtful and not self.exhausted and not self._broken:
            if self._due and self._part:
                return
            self._due = False
            await self._make_room()
            items = await self._pull(size - len(self._part))
            self._part += await self._wanted(items)
            await self._tracker.hand_out()  # before more is pulled, which may take its time

    async def _make_room(self) -> None:
        """Wait until something may be pulled, and let other tasks have their turn if that is due."""
        if self._tracker.full:
            await self._signal.wait_for(self._tracker.wait_for_room())
        elif self._pulled >= YIELD_EVERY:
            self._pulled = 0
            await asyncio.sleep(0)
        if self._signal.stopped:
            raise ImportHalted
        await self._tags.make_room()

    # Pulling and checking

    async def _pull(self, most: int) -> list[Item]:
        """Pull elements, at most so many; return the items among them. What is none has its state."""
        most = max(1, min(most, self._tracker.room))
        before = self._tracker.report.pulled
        items: list[Item] = []
        try:
            if isinstance(self._source, Pump):
                await self._signal.wait_for(self._wait_for(self._source, most))
                items = self._source.take()
            else:
                self._read(self._source, most, items)
        except BaseException:
            self._broken = True  # an iterator that raised, or was cancelled, has come to its end
            self._fold_broken(items)
            raise
        self._pulled += self._tracker.report.pulled - before
        return items

    def _read(self, elements: Iterator[FactLike], most: int, items: list[Item]) -> None:
        index = first = self._tracker.report.pulled
        try:
            for element in islice(elements, most):
                try:
                    items.append(Item(index, checked(element), element))  # type: ignore[arg-type]  # as below
                except InvalidFactError as error:
                    items += self._in_spite_of(error, index, element)
                index += 1
            self.exhausted = index - first < most
        finally:
            self._tracker.opened(items, index - first)

    async def _wait_for(self, pump: Pump[FactLike], most: int) -> None:
        """Wait for items of a source that gives them when it likes."""
        if self._flush_after is None:
            await pump.hold(most)
        else:
            if not self._part:
                await pump.hold(1)
                self._oldest = pump.since
            if self._part or pump.items:
                self._due = not await pump.hold(most, until=self._oldest + self._flush_after)
        self.exhausted = pump.exhausted

    def _read_one(self, element: FactLike) -> Item | None:
        """Read what the pump has pulled. None if its outcome is to be told before the next one is."""
        index = self._tracker.report.pulled
        try:
            items = [Item(index, checked(element), element)]  # type: ignore[arg-type]  # refuses outcomes
        except InvalidFactError as error:
            items = self._in_spite_of(error, index, element)
        self._tracker.opened(items, 1)
        return items[0] if items else None

    def _in_spite_of(self, error: InvalidFactError, index: int, element: FactLike) -> list[Item]:
        """Return the item of an outcome that has a fact; count anything else as what it is."""
        if isinstance(element, FactOutcome):
            if element.fact is None:
                self._tracker.add(attrs.evolve(element, index=index))
                return []
            try:
                return [Item(index, checked(element.fact), element.fact)]
            except InvalidFactError as another:
                error = another
        _forget_frames(error)
        self._tracker.add(FactOutcome(index, None, "invalid", error=error))
        return []

    # What need not be sent

    async def _wanted(self, items: list[Item]) -> list[Item]:
        """Settle what need not be sent, set aside what is in doubt, and return the others."""
        if self._seen is not None:
            items = self._folded(items, self._seen)
        elif self._journal is not None and items:
            items = await self._recalled(items, self._journal)
        if self.held or self._known_refusals.any:
            items = [item for item in items if not await self._settled_by_what_is_known(item)]
        return items

    def _folded(self, items: list[Item], seen: SeenTexts) -> list[Item]:
        """Settle those whose text came earlier, and return the others."""
        came_again = seen.came_again([item.content for item in items])
        if True not in came_again:
            return items
        pairs = [*zip(items, came_again, strict=True)]
        duplicates = [item.become("duplicate") for item, again in pairs if again]
        self._tags.settled_without_call(duplicates)
        self._tracker.count(duplicates)
        return [item for item, again in pairs if not again]

    async def _recalled(self, items: list[Item], journal: ImportJournal) -> list[Item]:
        """Settle those of which the journal knows what became of them, and return the others."""
        try:
            recalled = await journal.recall([item.content for item in items])
        except JournalError as error:
            for item in items:  # an earlier run may have stored it
                item.unknown_because = error
            raise
        known, others = list[Item](), list[Item]()
        for item, what in zip(items, recalled, strict=True):
            if what is not None and _becomes(item, what):
                known.append(item)
            elif item.unknown_because is not None:
                self._doubtful.append(item)
            else:
                others.append(item)
        self._tags.settled_without_call(known)
        self._tracker.count(known)
        return others

    async def _settled_by_what_is_known(self, item: Item) -> bool:
        """Settle an item of which the server, or the account, says that it need not be sent."""
        if self.held and (held := self.held.get(key := content_key(item.content))) is not None:
            self._tags.compare_one(item.become("existing", held.memory_id), held.tags)
            if self._tags.add:  # what was read is not true any more for an equal fact that comes later
                self.held[key] = Held(held.memory_id, None)
            await self._tracker.settle([item])
            return True
        if (refused := self._known_refusals.refuse(item.payload)) is not None:
            await self._tracker.settle([item.become("invalid", error=refused)])
            return True
        return False

    def give_back(self, items: list[Item]) -> None:
        """Take back items that were not sent; they are in the next batches."""
        self._part[:0] = items

    async def close(self) -> None:
        """Close an async source that was not read to its end, so that it can let go of its files now."""
        if isinstance(self._source, Pump):
            try:
                await self._source.close()
            finally:
                self._fold_broken(self._source.take())

    def _fold_broken(self, items: list[Item]) -> None:
        """Fold what was pulled when the source broke off: a stored text must not count as `not_sent` too."""
        if self._seen is not None:
            self._folded(items, self._seen)


def iterator_of(facts: object) -> Iterator[FactLike] | AsyncIterator[FactLike]:
    """Return what the facts are pulled from. Raises TypeError for what holds no facts."""
    refuse_table(facts)
    if isinstance(facts, AsyncIterable):
        return aiter(facts)
    if isinstance(facts, Iterable) and not isinstance(facts, str | bytes):
        return iter(facts)
    raise TypeError(f"facts must be an iterable of facts, not {type(facts).__name__}")


def _forget_frames(error: BaseException) -> None:
    """Let go of what raised an error: failures are kept by the thousand, and frames hold whole batches."""
    error.__traceback__ = error.__context__ = None
    if error.__cause__ is not None:
        _forget_frames(error.__cause__)


def _becomes(item: Item, recalled: Recalled | Literal["seen"]) -> bool:
    """Let an item be what the journal says; return whether it has its state by that."""
    if recalled == "seen":
        item.become("duplicate")
        return True
    item.place, item.first_sent, item.clock_offset = recalled.place, recalled.sent_at, recalled.clock_offset
    item.by_own_clock = recalled.by_own_clock
    if recalled.state == "rejected" and not _is_as_sent(recalled, item.payload):
        return False  # fixed, or nothing is known of how it was: worth another call
    if recalled.state is not None:
        error = OmiError(recalled.words or "refused by the server in an earlier run")
        rejected = recalled.state == "rejected"
        item.become(recalled.state, recalled.memory_id, error if rejected else None)
        return True
    if recalled.in_doubt:
        item.unknown_because = ResponseLostError("an earlier run ended while the call was on its way")
        item.tries = 1
        item.maybe_reworded = recalled.maybe_reworded
    return False


def _is_as_sent(recalled: Recalled, payload: Payload) -> bool:
    if recalled.fingerprint is not None:
        return recalled.fingerprint == fingerprint(payload)
    return recalled.fact == {**payload, "tags": list(payload["tags"])}


SHARDS: Final = 2**8
"""Dicts, of which none ever holds so many texts that the event loop would stand still while it grows: with
ten million of them, that takes a millisecond. With many more dicts, a small import is busy making them."""

_ANY_SHARD: Final = SHARDS - 1


class SeenTexts:
    """Remembers stripped texts by 128 bits each, which are worth something within this process.

    They are two of Python's own keyed hashes (SipHash, PEP 456), which is as safe here as a cryptographic
    one; in one number, since two would take a quarter more memory. The numbers stand in dicts, not in sets:
    the garbage collector leaves a dict alone that holds only numbers.
    """

    def __init__(self) -> None:
        self._shards: list[dict[int, int]] = [{} for _ in range(SHARDS)]

    def came_again(self, contents: Iterable[str]) -> list[bool]:
        """Remember texts, and say of each whether it came before."""
        keys = [(hash(content) << 64) + hash(content + "\0") for content in contents]
        shards = self._shards
        # A key that is there stays, so it is another object than the one that was made just now.
        return [shards[key & _ANY_SHARD].setdefault(key, key) is not key for key in keys]
