"""A look: reading the list once for facts in doubt, as far back as they can stand.

What is found is found; how much its absence is worth is told by the sight that the look had. The package's
docstring draws where a look ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import Enum, auto
from typing import Final, NamedTuple

from omi_async._api import endpoints
from omi_async._api.messages import BatchAnswer, ListedMemory, Page, Request
from omi_async._api.paging import Paginator
from omi_async.constants import PAGE_LIMIT
from omi_async.errors import OmiError
from omi_async.importing.answers import ServerClock, may_be_locked, moment_of
from omi_async.importing.calls import Calls
from omi_async.importing.item import Held, Item, content_key
from omi_async.importing.tags import Tags, shown_tags
from omi_async.importing.tracker import Tracker

__all__ = ["FallingOrder", "Looks", "Seen", "Sight", "by_index"]

LIST_CALLS: Final = 1000
"""Calls of the list in one import, at most: eight hours of the service's quota for them."""


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


class Seen(NamedTuple):
    """What a look has shown.

    Attributes:
        missing: the items that it did not find.
        sight: how much it has seen.
        lags: whether it did not show yet what the server has confirmed.
    """

    missing: set[Item]
    sight: Sight
    lags: bool

    @property
    def conclusive(self) -> bool:
        """Whether what is missing was stored nowhere at this moment."""
        return self.sight is Sight.WHOLE and not self.lags

    @property
    def comparable(self) -> bool:
        """Whether the next look may confirm this one: what is missing was not where it mostly is."""
        return self.conclusive or (self.sight is Sight.FRONT and not self.lags)


class Looks:
    """Reads the list of memories for an import.

    Args:
        calls: makes the calls.
        tracker: takes what is found; knows what the list must show.
        clock: tells existing from created, and how far back a look has to read.
        tags: learns what tags the memories have that are found.
    """

    def __init__(self, *, calls: Calls, tracker: Tracker, clock: ServerClock, tags: Tags) -> None:
        self._calls = calls
        self._tracker = tracker
        self._clock = clock
        self._tags = tags
        self._list_calls = LIST_CALLS

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

    async def look(self, items: Collection[Item], *, only_front: bool) -> Seen:
        """Read the list once, as far back as the items can stand, and settle those that are found.

        The first look reads `only_front`, one page: what is stored stands there, as a rule, and what does not
        is looked for again anyway. All the others go as far as they must.
        """
        search = _Search(items, self._tracker.last_answer)
        reading = Paginator[ListedMemory](endpoints.list_for_import, PAGE_LIMIT)
        sight: Sight | None = None
        try:
            while sight is None and (request := reading.next_request()) is not None:
                page = await self._page(request)
                await self._settle(search.found_in(page, reading.take(page)))
                sight = self._sight(search, items, divided=reading.divided, only_front=only_front)
        except OmiError:  # no right to list, a list too deep to read, a failing server, calls used up
            sight = Sight.BLIND
        if search.hidden or not reading.steady:
            sight = Sight.BLIND
        lags = sight is not Sight.BLIND and search.lags(ended=sight is None)
        return Seen(search.missing, sight or Sight.WHOLE, lags)

    def _sight(
        self, search: _Search, items: Collection[Item], *, divided: bool, only_front: bool
    ) -> Sight | None:
        """Return how much a look that ends here has seen, or None if it goes on."""
        if not search.wanted or search.order.reaches(self._horizon(items)):
            return Sight.WHOLE
        if divided and search.order.holds:
            return Sight.HOPELESS
        return Sight.FRONT if only_front and search.met_any else None

    def _horizon(self, items: Iterable[Item]) -> datetime | None:
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

    async def _settle(self, found: Iterable[tuple[Item, ListedMemory]]) -> None:
        items = list[Item]()
        for item, memory in found:
            state = self._clock.state_of(memory.created_at, item.first_sent, item.clock_offset)
            items.append(item.become(state, memory.id))
            self._tags.compare_one(item, shown_tags(memory.tags))
        await self._tracker.settle(items)


class _Search:
    """What is looked for, and what the pages have shown so far.

    Attributes:
        wanted: the items that were not found yet, by their text.
        order: how far back the pages reach.
        hidden: whether the server has said, or shown, that it does not show all.
        met_any: whether there was any memory.
    """

    def __init__(self, items: Iterable[Item], last_answer: BatchAnswer | None) -> None:
        self.wanted: dict[str, list[Item]] = {}
        for item in sorted(items, key=by_index):
            self.wanted.setdefault(item.content, []).append(item)
        self.order = FallingOrder()
        self.hidden = self.met_any = False
        self._confirmed: dict[str, str] = {}  # what the list must show: id, and when it was created
        if last_answer is not None:
            self._confirmed.update(zip(last_answer.ids, last_answer.created, strict=True))

    @property
    def missing(self) -> set[Item]:
        """The items that were not found yet."""
        return {item for group in self.wanted.values() for item in group}

    def found_in(
        self, page: Page[ListedMemory], fresh: list[ListedMemory]
    ) -> list[tuple[Item, ListedMemory]]:
        """Read a page, of which only the `fresh` memories are new; return the items that are found on it."""
        self.hidden = self.hidden or page.truncated or page.unreadable > 0
        self.met_any = self.met_any or bool(fresh)
        self.order.read(fresh)
        found = list[tuple[Item, ListedMemory]]()
        for memory in fresh:
            self._confirmed.pop(memory.id, None)
            content = memory.content.strip()
            item = self._find(content, memory.id)
            if item is not None:
                found.append((item, memory))
            if content.endswith("..."):
                self._suspect(content)
        return found

    def _find(self, content: str, memory_id: str) -> Item | None:
        """Take out the item that a memory is. One memory is one fact, however many have the same text."""
        same = self.wanted.pop(content, [])
        mine = next((item for item in same if memory_id not in (item.others or ())), None)
        others = [item for item in same if item is not mine]
        for item in others:
            item.others = (item.others or set()) | {memory_id}
        if others:
            self.wanted[content] = others
        return mine

    def _suspect(self, content: str) -> None:
        """Note which items may stand there in a text that ends as those do that are shown cut short."""
        for item in self.missing:
            item.maybe_reworded = item.maybe_reworded or may_be_locked(item, content)

    def lags(self, *, ended: bool) -> bool:
        """Whether something that the server has confirmed should have been shown, and was not.

        That is anything if the whole list was read, else what stands in the part that was.
        """
        return any(ended or self.order.reaches(moment_of(created)) for created in self._confirmed.values())


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


def by_index(item: Item) -> int:
    """Return what items are sorted by: their order in the source."""
    return item.index
