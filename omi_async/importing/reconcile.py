"""Finding out what became of facts whose call had no usable answer.

The only evidence is the list. A text that stands there is stored. A text that does not is stored nowhere only
if the list was read as far back as it could stand, nothing in it was hidden, and a second look some seconds
later agrees: the list may lag behind the writes, and the server may still be working on a call whose answer
was lost. The package's docstring draws it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from enum import Enum, auto
from math import sqrt
from typing import Final

import attrs

from omi_async._api import endpoints
from omi_async._api.messages import ListedMemory, Page, Request
from omi_async._api.paging import Paginator
from omi_async.constants import BATCH_SIZE, PAGE_LIMIT
from omi_async.errors import OmiError, ResponseLostError, ServerError
from omi_async.importing.answers import ServerClock, may_be_locked, moment_of
from omi_async.importing.calls import Calls
from omi_async.importing.item import Batch, Held, Item, content_key
from omi_async.importing.report import State
from omi_async.importing.stopping import StopSignal
from omi_async.importing.tags import Tags, shown_tags
from omi_async.importing.tracker import Tracker

__all__ = ["FallingOrder", "Reconciler"]

FIRST_LOOK: Final = 1.0
"""Seconds from the first doubt to the first look; batches that fail meanwhile share it. At once, a burst of
failures would cost a look each."""

SECOND_LOOK: Final = 5.0
"""Seconds between two looks if the server gave an answer of its own: its work is over, and only the list may
lag. With less, a list that lags makes stored facts look absent, and they would be stored twice."""

GATEWAY_ERRORS: Final = frozenset({502, 503, 504})

SECOND_LOOK_AFTER_LOSS: Final = 10.0
"""Seconds between two looks if the answer was lost: the server may still be at work on the call."""

MOST_LOOKS: Final = 6
"""Looks for the same facts before those still in doubt stay `unknown`: a minute of a list that lags."""

BLIND_LOOKS: Final = 2
"""Looks in a row that could not see enough, after which it is pointless to look again."""

LIST_CALLS: Final = 1000
"""Calls of the list in one import, at most: eight hours of the service's quota for them."""

BATCH_TRIES: Final = 2
"""Sendings in company after which a fact goes alone: one that makes the server fail harms no other fact."""

MOST_TRIES: Final = 8
"""Sendings of a fact in one import. After them it is `rejected` if that is proven; if not, a rerun tries it
again."""

ALONE_TRIES: Final = 3
"""Failures of a fact that was sent alone before it can be proven that the server refuses it."""

CHANCE: Final = 1e-5
"""How improbable it must be that a fact failed each time by the server's troubles alone, before the fact is
blamed: with a hundred times more, a server that fails every fourth call gets some good facts of a large
import rejected for good, since the journal remembers it."""


class Reconciler:
    """Takes items in doubt, looks for them, and returns those that are certainly absent, to be sent again.

    Args:
        calls: makes the calls of the list.
        tracker: takes what is found, and what cannot be found out.
        clock: tells existing from created, and how far back a look has to read.
        signal: stops the waiting; what is in doubt then is settled when the import is closed.
        tags: learns what tags the memories have that are found.
    """

    def __init__(
        self, *, calls: Calls, tracker: Tracker, clock: ServerClock, signal: StopSignal, tags: Tags
    ) -> None:
        self._calls = calls
        self._tracker = tracker
        self._clock = clock
        self._signal = signal
        self._tags = tags
        self._groups: list[list[Item]] = []  # what one call carried together
        self._list_calls = LIST_CALLS

    @property
    def waiting(self) -> bool:
        """Whether there are items to look for."""
        return bool(self._groups)

    def add(self, items: list[Item]) -> None:
        """Take the items of one call, all in doubt; they will be looked for together with others."""
        self._groups.append(items)
        self._tracker.look_for(len(items))

    async def held(self) -> dict[bytes, Held]:
        """Read the whole list; return its memories by content key. Raises what the calls raise."""
        held: dict[bytes, Held] = {}
        reading = Paginator[ListedMemory](endpoints.list_for_import, PAGE_LIMIT)
        while (request := reading.next_request()) is not None:
            page = await self._calls.make("list", request)
            for memory in reading.take(page):
                held[content_key(memory.content.strip())] = Held(memory.id, shown_tags(memory.tags))
            if page.unreadable:
                raise OmiError(
                    f"{page.unreadable} memories of the list cannot be read, so it cannot be told what the "
                    f"account holds; import without skip_existing"
                )
        return held

    async def resolve(self) -> list[Batch]:
        """Look for all items in doubt; settle what is found and what cannot be; return what goes again."""
        await self._signal.wait_for(asyncio.sleep(FIRST_LOOK))
        groups, self._groups = self._groups, []
        items = [item for group in groups for item in group]
        absent = await self._look_until_sure(items)
        self._tracker.look_for(-len(items))
        again: list[Batch] = []
        together: list[Item] = []
        for group in groups:
            for place, item in enumerate([item for item in group if item in absent]):
                if item.tries >= MOST_TRIES or self._is_refused(item):
                    await self._give_up(item)
                # Batches are stored in their order: what fails the server is the first that is absent.
                elif item.tries > BATCH_TRIES or (item.tries == BATCH_TRIES and place == 0):
                    again.append(Batch([item], alone=True))
                else:
                    together.append(item)
        for item in absent:
            item.unknown_because = None
        starts = range(0, len(together), BATCH_SIZE)
        return again + [Batch(together[start : start + BATCH_SIZE]) for start in starts]

    async def _give_up(self, item: Item) -> None:
        state: State = "rejected" if self._is_refused(item) else "not_sent"
        await self._tracker.settle([item.become(state, error=item.unknown_because)])

    def _is_refused(self, item: Item) -> bool:
        """Whether it is proven that the server refuses this fact, although it only ever fails.

        It is if the fact failed alone, the server took others meanwhile, and the chance that the server's
        own troubles, as frequent as they are with the others, hit this one each time is next to nothing.
        """
        writes = self._calls.writes
        if item.alone < ALONE_TRIES or writes.stored_alone <= item.stored_before:
            return False
        failed = max(0, writes.failed - (item.tries - item.alone + 1))  # not counting its own calls
        # A little too high while there are few calls to estimate it from: the doubt is in the fact's favour.
        share = (failed + sqrt(failed) + 0.5) / (failed + writes.stored + 1)
        return share**item.tries < CHANCE

    async def _look_until_sure(self, items: list[Item]) -> set[Item]:
        """Settle what is found and what cannot be found out; return what is certainly stored nowhere.

        Certain is what two looks in a row agree on. A look at a list that does not show yet what the server
        has confirmed proves nothing, and does not mean either that looking is pointless.
        """
        missing = {*items}
        before: set[Item] | None = None  # what the last look did not find
        blind = 0  # looks in a row that could not see enough
        absent = set[Item]()
        for number in range(MOST_LOOKS):
            if number:
                await self._signal.wait_for(asyncio.sleep(max(map(_seconds_to_next_look, missing))))
            look = await self._look(missing, only_front=number == 0)
            missing = look.missing
            if look.sight is Sight.WHOLE and not look.lags and missing == before:
                absent = {item for item in missing if not item.maybe_reworded}
                break
            before = missing if look.sight in {Sight.WHOLE, Sight.FRONT} and not look.lags else None
            blind = blind + 1 if look.sight is Sight.BLIND else 0
            if not missing or blind == BLIND_LOOKS or look.sight is Sight.HOPELESS:
                break
        unknown = sorted(missing - absent, key=_index)
        await self._tracker.settle([item.become("unknown", error=item.unknown_because) for item in unknown])
        return absent

    async def _look(self, items: set[Item], *, only_front: bool) -> _Look:
        """Read the list once, as far back as the items can stand, and settle those that are found.

        The first look reads `only_front`, one page: what is stored stands there, as a rule, and what does not
        is looked for again anyway. All the others go as far as they must.
        """
        wanted: dict[str, list[Item]] = {}
        for item in sorted(items, key=_index):
            wanted.setdefault(item.content, []).append(item)
        reading = Paginator[ListedMemory](endpoints.list_for_import, PAGE_LIMIT)
        order = FallingOrder()
        answer = self._tracker.last_answer
        confirmed = {} if answer is None else dict(zip(answer.ids, answer.created, strict=True))
        hidden, reached, sight = False, False, Sight.WHOLE
        try:
            while wanted and not reached and (request := reading.next_request()) is not None:
                page = await self._page(request)
                hidden = hidden or page.truncated or page.unreadable > 0
                fresh = reading.take(page)
                order.read(fresh)
                for memory in fresh:
                    confirmed.pop(memory.id, None)
                    await self._compare(memory, wanted)
                reached = order.reaches(self._horizon(items))
                if reading.divided and order.holds and not reached:
                    sight = Sight.HOPELESS
                    break
                if only_front and fresh and not reached:
                    sight = Sight.FRONT
                    break
        except OmiError:  # no right to list, a list too deep to read, a failing server, calls used up
            sight = Sight.BLIND
        if hidden or not reading.steady:
            sight = Sight.BLIND
        missing = {item for group in wanted.values() for item in group}
        # What was confirmed must stand in the part that was read, or else that part is not up to date.
        ended = sight is Sight.WHOLE and not reached
        lags = any(ended or order.reaches(moment_of(created)) for created in confirmed.values())
        return _Look(missing, sight, lags=lags and sight is not Sight.BLIND)

    def _horizon(self, items: set[Item]) -> datetime | None:
        """Return the moment, by the server's clock, before which none of the items can have been stored."""
        moments = [self._clock.before(item) for item in items]
        return None if None in moments else min((moment for moment in moments if moment), default=None)

    async def _page(self, request: Request[Page[ListedMemory]]) -> Page[ListedMemory]:
        if self._list_calls <= 0:
            raise OmiError(f"looked through the list with {LIST_CALLS} calls already")
        self._list_calls -= 1
        page = await self._calls.make("list", request)
        if page.answer is not None:
            self._clock.learn(page.answer)
        return page

    async def _compare(self, memory: ListedMemory, wanted: dict[str, list[Item]]) -> None:
        """Settle the item that a memory is. One memory is one fact, however many have the same text."""
        content = memory.content.strip()
        if (same := wanted.pop(content, None)) is not None:
            mine = next((item for item in same if memory.id not in (item.others or ())), None)
            others = [item for item in same if item is not mine]
            for item in others:
                item.others = (item.others or set()) | {memory.id}
            if others:
                wanted[content] = others
            if mine is not None:
                state = self._clock.state_of(memory.created_at, mine.first_sent, mine.clock_offset)
                self._tags.compare_one(mine.become(state, memory.id), shown_tags(memory.tags))
                await self._tracker.settle([mine])
        if content.endswith("..."):
            for group in wanted.values():
                for item in group:
                    item.maybe_reworded = item.maybe_reworded or may_be_locked(item, content)


class Sight(Enum):
    """How much a look has seen of the places where its items could stand.

    Attributes:
        WHOLE: all of them.
        FRONT: the newest of them, and it was not to look at more.
        BLIND: not enough: something was hidden, or the list could not be read.
        HOPELESS: not enough, and the next look will not see more: the server does not show the list so far.
    """

    WHOLE = auto()
    FRONT = auto()
    BLIND = auto()
    HOPELESS = auto()


@attrs.frozen
class _Look:
    """What a look has shown.

    Attributes:
        missing: the items that it did not find.
        sight: how much it has seen.
        lags: whether it did not show yet what the server has confirmed.
    """

    missing: set[Item]
    sight: Sight
    lags: bool


class FallingOrder:
    """How far back the pages reach that were read so far, if the list is in falling order of time.

    It may be ordered by the creation or by the last change; what the pages so far contradict is not believed
    any longer. An older server orders by `scoring`, and shows it: there a young memory may stand anywhere.
    """

    def __init__(self) -> None:
        self._oldest: dict[str, datetime | None] = {"created_at": None, "updated_at": None}

    def read(self, memories: list[ListedMemory]) -> None:
        """Read the next memories of the list."""
        for name in [*self._oldest]:
            oldest = self._oldest[name]
            for memory in memories:
                moment = moment_of(getattr(memory, name))
                if moment is None or memory.scored or (oldest is not None and moment > oldest):
                    del self._oldest[name]
                    break
                oldest = moment
            else:
                self._oldest[name] = oldest

    @property
    def holds(self) -> bool:
        """Whether nothing contradicts that the list is in falling order."""
        return bool(self._oldest)

    def reaches(self, moment: datetime | None) -> bool:
        """Whether all that comes later in the list is older than a moment."""
        return moment is not None and any(
            oldest is not None and oldest < moment for oldest in self._oldest.values()
        )


def _index(item: Item) -> int:
    return item.index


def _seconds_to_next_look(item: Item) -> float:
    """Return more if the server may go on working on the call: a lost answer, or a gateway spoke for it."""
    error = item.unknown_because
    gone = isinstance(error, ResponseLostError)
    gateway = isinstance(error, ServerError) and error.status in GATEWAY_ERRORS
    return SECOND_LOOK_AFTER_LOSS if gone or gateway else SECOND_LOOK
