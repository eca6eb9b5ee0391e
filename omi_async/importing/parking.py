"""An import's waits for quota windows: counted, made known, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from omi_async._wire import Kind, QuotaState
from omi_async.importing.outcomes import ImportReport
from omi_async.importing.stopping import StopSignal

__all__ = ["Parking"]


class Parking:
    """Counts the waits for quota windows, once for all who wait, and ends the import where they are too long.

    Args:
        max_wait: seconds in all; None for any.
        signal: is set when they would be passed.
        report: gets to know what is waited for, and when to come again.
        on_park: is called when another wait begins.
    """

    def __init__(
        self, max_wait: float | None, signal: StopSignal, report: ImportReport, on_park: Callable[[], None]
    ) -> None:
        self._max_wait = max_wait
        self._signal = signal
        self._report = report
        self._on_park = on_park
        self._until: dict[Kind, float] = {}
        self._parked = 0.0

    def begin(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls of a kind wait for so long from now on."""
        now = asyncio.get_running_loop().time()
        before = max(now, *self._until.values(), 0.0)
        another = abs(self._until.get(kind, 0.0) - now - wait) > 1.0
        self._until[kind] = now + wait
        self._parked += max(now, *self._until.values()) - before
        if self._max_wait is not None and self._parked > self._max_wait:
            self._report.resume_at = datetime.now(UTC) + timedelta(seconds=wait)
            self._signal.stop()
        self._report.waiting_for = state
        if another:
            self._on_park()

    def over(self, kind: Kind) -> None:
        """Note that a call of a kind may go."""
        self._until.pop(kind, None)
        if not self._until:
            self._report.waiting_for = None
