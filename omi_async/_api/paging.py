"""Reading a whole list by offset while it changes.

The list has no cursor, no total and no promised order; a page may be short without being the last, because
the server drops unreadable records after it applied the offset (backend). So each page begins with the last
memory of the one before. What else may stand there tells what happened meanwhile:

- a memory that this reading has not met, or nothing: memories were removed, and others may have slipped
  through between two pages. The list is read once more.
- another memory that this reading has met: something was put in front, and nothing slipped through, unless it
  was an unread memory that moved there, as an edited one does where the newest come first. The front is read
  once more.

So memories that come and go hide no other one, nor do those that move to the front. Nothing helps against an
order that is another one at each call, nor against a page of which most records are unreadable: that is the
end, as far as anybody can see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, Generic

from omi_async._api.messages import Listed, Page, Request
from omi_async.constants import PAGE_LIMIT
from omi_async.errors import ResponseFormatError

__all__ = ["Paginator"]

MOST_STALE_PAGES: Final = 10
"""Pages in a row without anything new, after which the server is thought to ignore the offset."""

MOST_BARREN_READINGS: Final = 3
"""Readings in a row that were disturbed and found nothing new, after which it is no use to read again."""

_id_of: Final = attrgetter("id")


class Paginator(Generic[Listed]):
    """The state of one reading: ask `next_request`, give the page to `take`, until there is no request.

    Attributes:
        steady: whether nothing was removed under the last whole reading, as far as can be told; then it met
            all that was there.
    """

    def __init__(
        self,
        page_request: Callable[..., Request[Page[Listed]]],
        page_size: int,
        categories: str | Sequence[str] = (),
    ) -> None:
        if not 1 <= page_size <= PAGE_LIMIT:
            raise ValueError(f"page_size must be from 1 to {PAGE_LIMIT}, not {page_size}")
        self._page_request = page_request
        self._page_size = page_size
        self._categories = categories
        self._seen: set[str] = set()  # in all readings
        self._barren_readings = 0
        self._only_front = False
        self._begin(met=self._seen)

    def _begin(self, met: set[str]) -> None:
        self._met = met  # in this reading; the first one spares itself a second set
        self._position = 0  # of the next unread memory
        self._last: str | None = None
        self._fruitful = False
        self._stale_pages = 0
        self._shifted = False
        self._done = False
        if not self._only_front:
            self.steady = True

    def next_request(self) -> Request[Page[Listed]] | None:
        """Return the request for the next page, or None when all is read."""
        if self._done:
            return None
        overlap = 1 if self._position else 0
        return self._page_request(
            limit=min(self._page_size + overlap, PAGE_LIMIT),
            offset=self._position - overlap,
            categories=self._categories,
        )

    def take(self, page: Page[Listed]) -> list[Listed]:
        """Return the memories of a page that were not seen before.

        Raises `ResponseFormatError` where the list cannot be read to its end.
        """
        memories = page.memories
        overlap = 1 if self._position else 0
        if overlap and not page.unreadable:
            self._compare(memories)
        named = dict(zip(map(_id_of, memories), memories, strict=True))
        progress = not self._met.issuperset(named)
        known = self._seen.intersection(named)
        self._met.update(named)
        self._seen.update(named)
        for memory_id in known:
            del named[memory_id]
        fresh = list(named.values())
        self._fruitful = self._fruitful or bool(fresh)
        held = len(memories) + page.unreadable
        if held <= overlap and not progress:
            self._check_whole(page)
            self._end()
        elif self._only_front and not fresh and self.steady:
            self._done = True
        else:
            self._move(memories, max(held - overlap, 1), progress)
        return fresh

    def _compare(self, memories: list[Listed]) -> None:
        """Look at what stands where the last memory of the page before stood."""
        first = memories[0].id if memories else None
        if first not in self._met:
            self.steady = False
        elif first != self._last:
            self._shifted = True

    def _move(self, memories: list[Listed], by: int, progress: bool) -> None:
        self._position += by
        self._last = memories[-1].id if memories else None
        self._stale_pages = 0 if progress else self._stale_pages + 1
        if self._stale_pages >= MOST_STALE_PAGES:
            raise ResponseFormatError(
                f"the list does not end: {self._stale_pages} pages in a row held nothing new after "
                f"{len(self._seen)} memories"
            )

    def _check_whole(self, page: Page[Listed]) -> None:
        if page.truncated:
            raise ResponseFormatError(
                f"the server cut the list short after {len(self._seen)} memories (X-Omi-List-Truncated)"
            )

    def _end(self) -> None:
        """End this reading: for good, or to begin another."""
        self._barren_readings = 0 if self._fruitful else self._barren_readings + 1
        again = not self.steady and self._barren_readings < MOST_BARREN_READINGS
        front = self.steady and self._shifted and not self._only_front
        self._done = True
        if again or front:
            self._only_front = front
            self._begin(met=set())
