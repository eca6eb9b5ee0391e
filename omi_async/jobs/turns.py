"""Who may import now: so many jobs at once, and one of each owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from omi_async.importing.stopping import StopSignal

__all__ = ["Turns"]


class Turns:
    """Gives turns in order of arrival."""

    def __init__(self, running: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._owners: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, owner: str, signal: StopSignal) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the block. Raises `ImportHalted` if it is stopped before."""
        lock = self._owners.setdefault(owner, asyncio.Lock())
        async with AsyncExitStack() as turn:
            async with signal.ends_after(0.0):
                # The owner's lock first: else jobs that wait for another one of the same owner would fill the
                # places.
                await turn.enter_async_context(lock)
                await turn.enter_async_context(self._places)
            yield
