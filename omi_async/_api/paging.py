"""Reading a whole list by offset while it changes, as far as the server shows it.

The list has no cursor, no total and no promised order; a page may be short without being the last, because
the server drops unreadable records after it applied the offset (backend). So each page begins with the last
memory of the one before, and what stands there instead tells what happened meanwhile. In pages of three::

    the list          asked for            comes     in the place of c stands
    a b c d e f       offset 0, limit 3    a b c
    a b c d e f       offset 2, limit 4    c d e f   c: nothing happened
    x a b c d e f     offset 2, limit 4    b c d e   b, which we have met: something was put in front (x), or
                                                     moved there. Nothing slipped through between the pages,
                                                     but the front holds something new: it is read once more.
    c d e f           offset 2, limit 4    e f       e, which we have not: memories were removed (a and b),
                                                     and d slipped through. All is read once more.

So memories that come and go hide no other one, nor do those that move to the front. Nothing helps against an
order that is another one at each call, nor against a page of which most records are unreadable: that is the
end, as far as can be seen.

The server shows a list no further than offset + limit = 5000 (backend): a page that reaches further is
refused with 413, so the last page is made to end there. What lies beyond is looked for category by category,
since each of these lists is shown as far. A list may also end early with the header X-Omi-List-Truncated:
reading it took the server too long. What no list shows is a `ListLimitError` at the end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Final, Generic

import attrs

from omi_async._api.messages import Listed, Page, Request
from omi_async.constants import CATEGORIES, LIST_WINDOW, PAGE_LIMIT
from omi_async.errors import ListLimitError, ResponseFormatError

__all__ = ["Paginator"]

MOST_STALE_PAGES: Final = 10
"""Pages in a row without anything new, after which the server is thought to ignore the offset. Without a
bound it would be asked forever; with one of two, a list that shifts a page at a time would be given up."""

MOST_BARREN_READINGS: Final = 3
"""Readings in a row that were disturbed and found nothing new, after which it is pointless to read again."""


class Moved(Enum):
    """The worst that happened to a list while it was read."""

    NOTHING = auto()
    ADDED = auto()
    REMOVED = auto()


class _Reading:
    """One reading of one list: of all of it, or of its front until that holds nothing new.

    Attributes:
        categories: whose list it is; those of all if empty.
        front: whether it is of the front only.
        moved: what happened to the list meanwhile.
        fruitful: whether it found anything that no reading before had found.
        unreadable: elements that could not be read at all.
        ended: whether it is at its end.
        cut: whether the server shows no more there, though there may be more.
    """

    def __init__(self, categories: Sequence[str], *, front: bool = False) -> None:
        self.categories = categories
        self.front = front
        self.position = 0  # of the next unread memory
        self.moved = Moved.NOTHING
        self.fruitful = False
        self.unreadable = 0
        self.ended = self.cut = False
        self._met: set[str] = set()
        self._last: str | None = None
        self._stale_pages = 0

    @property
    def overlap(self) -> int:
        """How many memories of the page before the next page begins with."""
        return 1 if self.position else 0

    def end(self, *, cut: bool = False) -> None:
        """Go no further."""
        self.ended, self.cut = True, self.cut or cut

    def then_front(self) -> _Reading:
        """Return a reading of the front, which adds to this one."""
        front = _Reading(self.categories, front=True)
        front.cut, front.unreadable = self.cut, self.unreadable
        return front

    def take(self, page: Page[Any], *, fresh: bool) -> None:
        """Note a page, and whether anything in it is new to all readings."""
        ids = [memory.id for memory in page.memories]
        if page.unreadable:
            # The last element of the page before may have been one that cannot be read: it is counted once.
            again = self.overlap and ids[:1] != [self._last]
            self.unreadable += 0 if self.front else page.unreadable - bool(again)
        elif self.overlap:
            self._compare(ids)
        progress = not self._met.issuperset(ids)
        self._met.update(ids)
        self.fruitful = self.fruitful or fresh
        held = len(ids) + page.unreadable
        if held <= self.overlap and not progress:
            self.end(cut=page.truncated)
        elif self.front and not fresh and self.moved is not Moved.REMOVED:
            self.end()
        else:
            self.position += max(held - self.overlap, 1)
            self._last = ids[-1] if ids else None
            self._stale_pages = 0 if progress else self._stale_pages + 1

    def _compare(self, ids: list[str]) -> None:
        """Look at what stands in the place of the last memory of the page before."""
        if not ids or ids[0] not in self._met:
            self.moved = Moved.REMOVED
        elif ids[0] != self._last and self.moved is Moved.NOTHING:
            self.moved = Moved.ADDED

    @property
    def stuck(self) -> bool:
        """Whether the server seems to ignore the offset."""
        return self._stale_pages >= MOST_STALE_PAGES


class Paginator(Generic[Listed]):
    """Reads a whole list: ask `next_request`, give the page to `take`, until there is no request.

    Attributes:
        odd: memories that could be read only in part.
        unreadable: elements that could not be read at all; one that stands in two lists counts twice.
    """

    def __init__(
        self,
        page_request: Callable[..., Request[Page[Listed]]],
        page_size: int,
        categories: str | Sequence[str] = (),
    ) -> None:
        if not 1 <= page_size <= PAGE_LIMIT:
            raise ValueError(f"page_size must be from 1 to {PAGE_LIMIT}, not {page_size}")
        self.odd = self.unreadable = 0
        self._page_request = page_request
        self._page_size = self._step = page_size
        self._window = float(LIST_WINDOW)
        self._by_category = False
        self._lists = deque[Sequence[str]]()  # to be read after this one
        self._seen = set[str]()  # in all readings
        self._categories_seen = set[str]()
        self._barren_readings = 0
        self._unsteady = self._hidden = False
        wanted = categories.split(",") if isinstance(categories, str) and categories else categories
        self._reading: _Reading | None = _Reading(tuple(wanted))

    @property
    def steady(self) -> bool:
        """Whether nothing was removed under the last reading, as far as can be told, and no more is hidden.

        Then it met all that was there.
        """
        removed = self._reading is not None and self._reading.moved is Moved.REMOVED
        return not (removed or self._unsteady or self._hidden)

    @property
    def divided(self) -> bool:
        """Whether the list is longer than is shown, so that it is read category by category."""
        return self._by_category

    def next_request(self) -> Request[Page[Listed]] | None:
        """Return the request for the next page, or None when all is read."""
        reading = self._reading
        if reading is None:
            return None
        offset = reading.position - reading.overlap
        request = self._page_request(limit=self._limit(reading), offset=offset, categories=reading.categories)
        answers: dict[int, Page[Listed]] = {}
        if offset or self._by_category:
            # Of the very first page this is a refusal; of a later one it tells how far the list is shown.
            answers[413] = Page([], beyond=True)
        if self._by_category:
            # An older server that does not know one of our categories has no memories of it.
            answers[400] = Page([])
        return attrs.evolve(request, answers=answers)

    def _limit(self, reading: _Reading) -> int:
        """Return how many memories the next page is to hold, those that overlap included."""
        room = self._window - (reading.position - reading.overlap)
        limit = min(self._step + reading.overlap, PAGE_LIMIT, room)
        # At the window's end one memory beyond is asked for all the same: not every server has a window.
        return int(max(limit, reading.overlap + 1))

    def take(self, page: Page[Listed]) -> list[Listed]:
        """Return the memories of a page that were not seen before.

        Raises:
            ListLimitError: the server shows no more, and there may be more.
            ResponseFormatError: the list does not end.
        """
        reading = self._reading
        if reading is None:
            return []
        fresh: list[Listed] = []
        if page.beyond:
            self._meet_window(reading)
        else:
            if reading.position - reading.overlap + self._limit(reading) > self._window:
                self._window = math.inf  # the server has none
            fresh = self._unseen(page)
            reading.take(page, fresh=bool(fresh))
        if reading.stuck:
            raise ResponseFormatError(
                f"the list does not end: {MOST_STALE_PAGES} pages in a row held nothing new after "
                f"{len(self._seen)} memories"
            )
        if reading.ended:
            self._reading = self._after(reading)
            self._step = self._page_size
        if self._reading is None and self._hidden:
            raise ListLimitError(
                f"the server shows {len(self._seen):,} memories of this list, and it may hold more",
                read=len(self._seen),
            )
        return fresh

    def _meet_window(self, reading: _Reading) -> None:
        """Ask for a smaller page after a refused one, down to a single memory: then this is the end."""
        if self._limit(reading) > reading.overlap + 1:
            self._step = max(1, self._step // 2)
        else:
            self._window = reading.position
            reading.end(cut=True)

    def _unseen(self, page: Page[Listed]) -> list[Listed]:
        named = {memory.id: memory for memory in page.memories}
        fresh = [memory for memory_id, memory in named.items() if memory_id not in self._seen]
        self._seen.update(named)
        self._categories_seen.update(page.categories)
        self.odd += len(page.odd & {memory.id for memory in fresh})
        return fresh

    def _after(self, reading: _Reading) -> _Reading | None:
        """Return the reading that is to follow one that has ended, None if none is."""
        if reading.moved is Moved.REMOVED:
            self._barren_readings = 0 if reading.fruitful else self._barren_readings + 1
            if self._barren_readings < MOST_BARREN_READINGS:
                return _Reading(reading.categories)
            self._unsteady = True
        elif reading.moved is Moved.ADDED and not reading.front:
            return reading.then_front()
        self._barren_readings = 0
        self.unreadable += reading.unreadable
        if reading.cut:
            self._divide(reading.categories)
        return _Reading(self._lists.popleft()) if self._lists else None

    def _divide(self, categories: Sequence[str]) -> None:
        """Have a list that the server has cut read category by category; a category is divided no further."""
        if len(categories) == 1:
            self._hidden = True
            return
        self._by_category = True
        # Also by words that only this server knows.
        words = categories or sorted({*CATEGORIES, *self._categories_seen})
        self._lists.extend((word,) for word in words)
