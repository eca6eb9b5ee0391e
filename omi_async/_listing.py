"""Reading a whole list by offset while it changes.

The list has no cursor, no total and no promised order; a page may be short without being the last, because
the server drops unreadable records after it applied the offset (backend). So each page begins with the last
memory of the one before: where another one stands there that was never seen, memories were removed or moved
meanwhile, and some may have slipped through between two pages. Then the list is read once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic

from omi_async._requests import Listed, Page, Request
from omi_async.config import PAGE_LIMIT
from omi_async.errors import ResponseFormatError

__all__ = ["Listing"]

MOST_STALE_PAGES: Final = 10
"""Pages in a row without anything new, after which the server is thought to ignore the offset."""


class Listing(Generic[Listed]):
    """The state of one reading: ask `next_request`, give the page to `take`, until there is no request.

    Attributes:
        steady: whether the last reading met no sign that memories were removed or moved.
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
        self._seen: set[str] = set()
        self._first_reading = True
        self._begin()

    def _begin(self) -> None:
        self.steady = True
        self._position = 0  # of the next unread memory
        self._last: str | None = None
        self._fruitful = False
        self._stale_pages = 0
        self._done = False

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
        if page.truncated and not memories:
            raise ResponseFormatError(
                f"the server cut the list short after {len(self._seen)} memories (X-Omi-List-Truncated)"
            )
        fresh = self._fresh(memories)
        self._fruitful = self._fruitful or bool(fresh)
        self._move(memories)
        if self._done and not self.steady and self._fruitful:
            self._first_reading = False
            self._begin()
        elif not self._done and self._first_reading:
            self._check_progress(fresh)
        return fresh

    def _fresh(self, memories: list[Listed]) -> list[Listed]:
        seen = self._seen
        if self._position and (not memories or memories[0].id not in seen):
            self.steady = False
        fresh = []
        for memory in memories:
            if memory.id not in seen:
                seen.add(memory.id)
                fresh.append(memory)
        return fresh

    def _move(self, memories: list[Listed]) -> None:
        """Go on behind the page; a page that holds no more than the overlap is the end."""
        overlap = 1 if self._position else 0
        if len(memories) <= overlap:
            self._done = True
            self.steady = self.steady and (not memories or memories[0].id == self._last)
            return
        self._position += len(memories) - overlap
        self._last = memories[-1].id

    def _check_progress(self, fresh: list[Listed]) -> None:
        self._stale_pages = 0 if fresh else self._stale_pages + 1
        if self._stale_pages >= MOST_STALE_PAGES:
            raise ResponseFormatError(
                f"the list does not end: {self._stale_pages} pages in a row held nothing new after "
                f"{len(self._seen)} memories"
            )
