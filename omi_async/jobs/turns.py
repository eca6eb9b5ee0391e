"""Who may import now: so many jobs at once, and one of each owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

__all__ = ["Turns"]


class Turns:
    """Gives turns in order of arrival."""

    def __init__(self, running: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._owners: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the block."""
        lock = self._owners.setdefault(owner, asyncio.Lock())
        # The owner's lock first: else jobs that wait for another one of the same owner would fill the places.
        async with lock, self._places:
            yield
