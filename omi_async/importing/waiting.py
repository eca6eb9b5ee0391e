"""An import's waits for quota windows: counted, made known, and bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from omi_async._api.messages import Kind
from omi_async._quota.policy import QuotaState
from omi_async.importing.report import ImportReport
from omi_async.importing.stopping import StopSignal

__all__ = ["WaitBudget"]

NOTICED: Final = 1.0
"""Seconds without any call, after which a wait of something minor is what the import waits for."""


class WaitBudget:
    """Counts the waits for quota windows, once for all who wait, and ends the import where they are too long.

    Only the waits of what the import is there for count: its batches. While those go, a list that is looked
    through or a single fact may wait as long as it likes; when its patience ends, that ends alone.

    Args:
        max_wait: seconds in all; None for any.
        signal: is set when they would be passed.
        report: gets to know what is waited for, and when to come again.
        on_park: is called when another wait begins.
        idle: tells whether no call of the import is on the wire.
    """

    def __init__(
        self,
        max_wait: float | None,
        signal: StopSignal,
        report: ImportReport,
        on_park: Callable[[], None],
        idle: Callable[[], bool],
    ) -> None:
        self._max_wait = max_wait
        self._signal = signal
        self._report = report
        self._on_park = on_park
        self._idle = idle
        self._counted: Counter[Kind] = Counter(["batch"])
        self._until: dict[Kind, float] = {}
        self._aside: dict[Kind, QuotaState | None] = {}  # what waits without being counted
        self._parked = 0.0

    @property
    def left(self) -> float | None:
        """Seconds that may yet be waited; None for any."""
        return None if self._max_wait is None else max(0.0, self._max_wait - self._parked)

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
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._counted[kind]:
            if kind not in self._aside:
                loop.call_later(NOTICED, self._show_aside, kind)
            self._aside[kind] = state
            return
        before = max(now, *self._until.values(), 0.0)
        another = abs(self._until.get(kind, 0.0) - now - wait) > 1.0
        self._until[kind] = now + wait
        self._parked += max(now, *self._until.values()) - before
        if self._max_wait is not None and self._parked > self._max_wait:
            self.gave_up(wait)
            self._signal.stop()
        self._show(state, another=another)

    def _show_aside(self, kind: Kind) -> None:
        """Show a wait that does not count, if there is nothing else that the import does."""
        if kind not in self._aside or self._signal.stopped.is_set():
            return
        if not self._until and self._idle():
            self._show(self._aside[kind])
        else:
            asyncio.get_running_loop().call_later(NOTICED, self._show_aside, kind)

    def _show(self, state: QuotaState | None, *, another: bool = False) -> None:
        another = another or self._report.waiting_for is None
        self._report.waiting_for = state
        if another:
            self._on_park()

    def over(self, kind: Kind) -> None:
        """Note that a call of a kind may go, or does not wait any longer."""
        if self._until or self._aside:
            self._aside.pop(kind, None)
            self._until.pop(kind, None)
            if not self._until:
                self._report.waiting_for = None

    def gave_up(self, wait: float) -> None:
        """Note when it is worth while to come again: the soonest of what was not waited for."""
        opens = datetime.now(UTC) + timedelta(seconds=wait)
        self._report.resume_at = min(opens, self._report.resume_at or opens)
