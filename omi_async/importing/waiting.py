"""An import's waits for quota windows: counted, made known, and bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from omi_async._api.messages import Kind
from omi_async._quota.policy import QuotaState
from omi_async.importing.report import ImportReport
from omi_async.importing.stopping import ImportHalted, StopSignal

__all__ = ["WaitBudget"]

NOTICED: Final = 1.0
"""Seconds without any call after which a wait of something minor is what the import waits for. Without them a
progress bar would flicker between two batches."""

SAME: Final = 1.0
"""Seconds by which the end of a wait may move and still be the same wait."""


class WaitBudget:
    """Counts the waits for quota windows, once for all who wait, and ends the import if they are too long.

    Only the waits of what the import is there for count: its batches. While those go, a list that is looked
    through or a single fact may wait as long as it likes; when its patience ends, that ends alone.

    Args:
        max_wait: seconds in all; None for any.
        signal: is set when they would be exceeded.
        report: gets to know what is waited for, and when to come again.
    """

    def __init__(self, max_wait: float | None, signal: StopSignal, report: ImportReport) -> None:
        self._news = asyncio.Event()
        self._ended = False
        self._max_wait = max_wait
        self._signal = signal
        self._report = report
        self._counted: Counter[Kind] = Counter(["batch"])
        self._until: dict[Kind, float] = {}
        self._aside: dict[Kind, QuotaState | None] = {}  # what waits without being counted
        self._waited = 0.0
        self._idle = True
        self._timer: asyncio.TimerHandle | None = None

    @property
    def patience(self) -> float | None:
        """Seconds that may be waited from now on; None for any."""
        if self._max_wait is None:
            return None
        return max(0.0, self._max_wait - self.waited(asyncio.get_running_loop().time()))

    def waited(self, now: float) -> float:
        """Return the seconds that were waited until this moment of the loop's clock."""
        return self._waited - max(0.0, max(self._until.values(), default=now) - now)

    @contextmanager
    def counted(self, kind: Kind) -> Iterator[None]:
        """Count the waits of another kind too: it goes in place of batches."""
        self._counted[kind] += 1
        try:
            yield
        finally:
            self._counted[kind] -= 1
            self.over(kind)

    def begin(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls of a kind wait for so long from now on."""
        if not self._counted[kind]:
            self._aside[kind] = state
            self._look_again_soon()
            return
        now = asyncio.get_running_loop().time()
        before = max(now, *self._until.values(), 0.0)
        another = abs(self._until.get(kind, 0.0) - now - wait) > SAME
        self._until[kind] = now + wait
        self._waited += max(now, *self._until.values()) - before
        self._show(state, another=another)

    def over(self, kind: Kind) -> None:
        """Note that a call of a kind may go, or does not wait any longer."""
        if self._until or self._aside:
            self._aside.pop(kind, None)
            self._until.pop(kind, None)
            if not self._until:
                self._report.waiting_for = None

    def gave_up(self, kind: Kind, wait: float) -> None:
        """Note when it is worth while to come again.

        If it is for the import's batches, that ends it: raises `ImportHalted`.
        """
        self.over(kind)
        opens = datetime.now(UTC) + timedelta(seconds=wait)
        self._report.resume_at = min(opens, self._report.resume_at or opens)
        if self._counted[kind]:
            # Not at once: whoever was given a permit in this moment is to use it, and has yet to wake up.
            asyncio.get_running_loop().call_soon(self._signal.stop)
            raise ImportHalted

    def idle(self, *, idle: bool) -> None:
        """Note whether no call of the import is on the wire."""
        self._idle = idle
        if idle and self._aside:
            self._look_again_soon()

    async def another_wait(self) -> bool:
        """Return True when the import begins to wait for a quota, and False when it has ended."""
        await self._news.wait()
        self._news.clear()
        return not self._ended

    def end(self) -> None:
        """Wait for nothing any longer: the import has ended."""
        self._ended = True
        self._news.set()
        self._until.clear()
        self._aside.clear()
        self._report.waiting_for = None
        if self._timer is not None:
            self._timer.cancel()

    def _look_again_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(NOTICED, self._show_aside)

    def _show_aside(self) -> None:
        """Show a wait that does not count, if the import does nothing else."""
        self._timer = None
        if self._aside and self._idle and not self._until and not self._signal.stopped:
            self._show(next(iter(self._aside.values())))

    def _show(self, state: QuotaState | None, *, another: bool = False) -> None:
        another = another or self._report.waiting_for is None
        self._report.waiting_for = state
        if another:
            self._news.set()
