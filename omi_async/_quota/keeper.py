"""Who keeps what a ledger knows for other processes, and the task in which that is exchanged.

A file is told what was learned, now and then, and no call waits for it: `FileKeeper`. A store is asked before
each call: `storekeeper`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import attrs

from omi_async._quota.clock import Clock
from omi_async._quota.ledger import Ledger
from omi_async._quota.store import LedgerFile
from omi_async._quota.window import CountedCall

__all__ = ["FileKeeper", "Keeper", "Verdict"]

FAREWELL: Final = 10.0
"""Seconds that the last exchange takes at most: a store that is away is given up sooner, and a file that
another process holds too. Without a bound, whatever is wrong with one would keep a Session from its end."""


@attrs.frozen
class Verdict:
    """What has become of the calls that were asked for.

    Attributes:
        counted: those may leave.
        refused: another process was faster: whether these may go is to be looked at again. In the order of
            their asking.
    """

    counted: tuple[CountedCall, ...] = ()
    refused: tuple[CountedCall, ...] = ()


class Keeper:
    """Keeps a ledger for other processes. This one is not asked before a call leaves.

    Args:
        heed: is told what has become of the calls that were asked for, after each exchange.
    """

    shared = False
    """Whether it may know more at any moment, since others tell it too, before each of their calls."""

    def __init__(self, heed: Callable[[Verdict], None]) -> None:
        self._heed = heed
        self._first: asyncio.Task[None] | None = None
        self._latest: asyncio.Task[None] | None = None

    # For the kinds of keepers

    @property
    def has_news(self) -> bool:
        """Whether there is something to be told to other processes now."""
        raise NotImplementedError

    @property
    def is_away(self) -> bool:
        """Whether it could not be reached the last time."""
        return False

    @property
    def asks(self) -> bool:
        """Whether a call leaves only when it was counted elsewhere."""
        return False

    def stall(self) -> float:
        """Return the seconds for which the calls of imports wait for the keeper, before they look again."""
        return 0.0

    def tidy(self, now: float) -> None:
        """Settle what other processes have left behind, before it is decided who may go."""

    def spend(self, call: CountedCall) -> None:
        """Note that a call is about to leave, or to be asked for."""

    def note(self, call: CountedCall, learn: Callable[..., object], what: tuple[Any, ...]) -> None:
        """Note what the ledger has learned of a call."""

    async def exchange(self, *, last: bool) -> Verdict:
        """Tell what is news here, and learn what is news elsewhere; the `last` time only the former."""
        raise NotImplementedError

    # The task

    @property
    def is_open(self) -> bool:
        """Whether what was kept has been read."""
        return self._first is not None and self._first.done()

    async def open(self) -> None:
        """Read what is kept; once, however many ask."""
        if self._first is None:
            self._first = self.begin()
        if not self._first.done():
            await asyncio.wait([self._first])  # it goes on for the others if this one is cancelled

    def begin(self, *, last: bool = False) -> asyncio.Task[None]:
        """Exchange what is known, unless that is under way."""
        if self._latest is None or self._latest.done():
            self._latest = asyncio.get_running_loop().create_task(self._exchange_all(last=last))
        return self._latest

    async def _exchange_all(self, *, last: bool) -> None:
        """Exchange until there is nothing to be told any more, if need be until the keeper is back."""
        while True:
            self._heed(await self.exchange(last=last))
            if not self.has_news or (last and self.is_away):
                return

    async def flush(self) -> None:
        """Tell what is not told yet."""
        if self._latest is None:
            return
        if self._latest.get_loop() is asyncio.get_running_loop():
            if self.is_away:
                self._latest.cancel()  # it would go on until the keeper is back
            await asyncio.wait([self._latest], timeout=FAREWELL)
        # In a task: whoever is cancelled here has still told what it knows.
        await asyncio.wait([self.begin(last=True)], timeout=FAREWELL)


class FileKeeper(Keeper):
    """Keeps a ledger in its file: told when something was learned, and at the end."""

    def __init__(
        self, file: LedgerFile, ledger: Ledger, clock: Clock, heed: Callable[[Verdict], None]
    ) -> None:
        super().__init__(heed)
        self._file = file
        self._ledger = ledger
        self._clock = clock

    @property
    def has_news(self) -> bool:
        """Whether something was learned."""
        return self._ledger.learned

    async def exchange(self, *, last: bool) -> Verdict:
        """Write and read."""
        self._ledger.learned = False
        await self._file.exchange(self._ledger, self._clock.now, only_news=last)
        return Verdict()
