"""What happens to an element when it is pulled: it gets its index, and perhaps its state at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any, Final, Literal

import attrs

from omi_async.errors import InvalidFactError, JournalError, OmiError, ResponseLostError
from omi_async.fact import AnyFact, Payload, checked
from omi_async.importing.answers import KnownRefusals
from omi_async.importing.chunks import Chunks
from omi_async.importing.item import Item, content_key
from omi_async.importing.journal.journal import Journal
from omi_async.importing.journal.rows import Recalled
from omi_async.importing.report import FactOutcome
from omi_async.importing.tracker import Tracker

__all__ = ["FactLike", "Intake", "SeenTexts"]

FactLike = AnyFact | FactOutcome
"""What an import takes: a fact, its text, a mapping, or the outcome of a source's broken record.

An outcome that has a fact counts as that fact, so that `ImportReport.failures` can be imported again."""

YIELD_EVERY: Final = 256
"""Facts pulled in a row before other tasks of the event loop get their turn."""


class Intake:
    """Admits pulled elements: makes facts of them, folds the equal ones, recalls those of earlier runs.

    Args:
        account: takes the items and outcomes.
        rules: what the server is known to refuse.
        dedupe: whether to fold equal texts.
        journal: recalls earlier runs, and folds in place of memory.
        doubtful: takes an item that an earlier run left in doubt; gives it back where it is to be sent.

    Attributes:
        held: the ids of memories that the account is known to hold, by content key.
    """

    def __init__(
        self,
        *,
        tracker: Tracker,
        known_refusals: KnownRefusals,
        dedupe: bool,
        journal: Journal | None,
        doubtful: Callable[[Item], Item | None],
    ) -> None:
        self.held: dict[bytes, str] = {}
        self._tracker = tracker
        self._known_refusals = known_refusals
        self._folds = dedupe and journal is None  # which folds by itself
        self._journal = journal
        self._doubtful = doubtful
        self._seen = SeenTexts()
        self._outcome_owed = False

    def chunks_of(self, facts: Iterable[FactLike] | AsyncIterable[FactLike]) -> Chunks[Item]:
        """Return the chunks of a source, as this admits them."""
        return Chunks(facts, self.admit, room=self.room, due=self.due, pause=self.pause)

    def admit(self, elements: Iterator[FactLike]) -> tuple[list[Item], int]:
        """Pull elements; return the items to be sent, and how many were pulled. The others have their state.

        Each is read before the next one is pulled: a source may use one mapping for all of its facts. Where
        the source raises, those that came before are accounted for.
        """
        items: list[Item] = []
        index = first = self._tracker.report.pulled
        try:
            for element in elements:
                try:
                    payload = checked(element)  # type: ignore[arg-type]  # it refuses an outcome
                except InvalidFactError as error:
                    items += self._in_spite_of(error, index, element)
                else:
                    items.append(Item(index, payload, element))
                index += 1
        finally:
            self._tracker.enter(items, index - first)
            wanted = self._wanted(items)
            self._outcome_owed = self._outcome_owed or len(wanted) < index - first
        return wanted, index - first

    def _wanted(self, items: list[Item]) -> list[Item]:
        """Settle what need not be sent, and return the others."""
        if self._folds:
            items = self._folded(items)
        elif self._journal is not None:
            items = self._unsettled(items, self._journal)
        if self.held or self._known_refusals.any:
            items = [item for item in items if not self._settled_by_what_is_known(item)]
        return items

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

    def _folded(self, items: list[Item]) -> list[Item]:
        """Settle those whose text came earlier, and return the others."""
        came_again = self._seen.came_again([item.content for item in items])
        if True not in came_again:
            return items
        first, again = list[Item](), list[Item]()
        for item, came in zip(items, came_again, strict=True):
            (again if came else first).append(item)
        self._tracker.note([item.become("duplicate") for item in again])
        return first

    def room(self) -> int:
        """Return how many facts may be admitted before `due` is to be asked."""
        tracker = self._tracker
        return max(1, min(tracker.room, YIELD_EVERY - tracker.report.pulled % YIELD_EVERY))

    def due(self) -> bool:
        """Whether there is to be a pause before anything more is pulled."""
        tracker = self._tracker
        return self._outcome_owed or tracker.report.pulled % YIELD_EVERY == 0 or tracker.full

    async def pause(self) -> None:
        """Hand out what is owed, wait for room, let others have their turn, as each is due.

        With the element accounted for, whoever waits here may be cancelled.
        """
        if self._outcome_owed:
            self._outcome_owed = False
            await self._tracker.hand_out()
        if self._tracker.full:
            await self._tracker.wait_for_room()
        elif self._tracker.report.pulled % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def _unsettled(self, items: list[Item], journal: Journal) -> list[Item]:
        """Settle those of which the journal knows what became of them, and return the others."""
        known, others = list[Item](), list[Item]()
        try:
            recalled = journal.recall([item.content for item in items])
        except JournalError as error:
            for item in items:  # an earlier run may have stored it
                item.unknown_because = error
            raise
        for item, what in zip(items, recalled, strict=True):
            if what is not None and _becomes(item, what):
                known.append(item)
            elif item.unknown_because is None or self._doubtful(item) is not None:
                others.append(item)
        if known:
            self._tracker.note(known)
        return others

    def _settled_by_what_is_known(self, item: Item) -> bool:
        """Settle an item of which the server, or the account, says that it need not be sent."""
        if item.unknown_because is not None:
            return False  # by a call of an earlier run
        if self.held and (memory_id := self.held.get(content_key(item.content))) is not None:
            self._tracker.record([item.become("existing", memory_id)])
            return True
        if self._known_refusals.any and (refused := self._known_refusals.refuse(item.payload)) is not None:
            self._tracker.record([item.become("invalid", error=refused)])
            return True
        return False


def _forget_frames(error: BaseException) -> None:
    """Let go of what raised an error: failures are kept by the thousand, and frames hold whole chunks."""
    error.__traceback__ = error.__context__ = None
    if error.__cause__ is not None:
        _forget_frames(error.__cause__)


def _becomes(item: Item, recalled: Recalled | Literal["seen"]) -> bool:
    """Let an item be what the journal says; return whether it has its state by that."""
    if recalled == "seen":
        item.become("duplicate")
        return True
    item.place, item.first_sent = recalled.place, recalled.sent_at
    if recalled.state == "rejected" and recalled.fact != _as_kept(item.payload):
        return False  # mended, or nobody can tell: worth another call
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


def _as_kept(payload: Payload) -> dict[str, Any]:
    return {**payload, "tags": list(payload["tags"])}


SHARDS: Final = 2**10
"""Dicts, of which none ever holds so many keys that an event loop would stand still while it grows."""

_ANY_SHARD: Final = SHARDS - 1


class SeenTexts:
    """Remembers stripped texts by 128 bits each, which are worth something within this process.

    They are two of Python's own keyed hashes (SipHash, PEP 456): a cryptographic one costs three times that.
    They stand in dicts, not in sets: the garbage collector leaves a dict alone that holds only numbers.
    """

    def __init__(self) -> None:
        self._shards: list[dict[int, int]] = [{} for _ in range(SHARDS)]

    def came_again(self, contents: Iterable[str]) -> list[bool]:
        """Remember texts, and say of each whether it came before."""
        keys = [(hash(content) << 64) + hash(content + "\0") for content in contents]
        shards = self._shards
        return [shards[key & _ANY_SHARD].setdefault(key, key) is not key for key in keys]
