"""Holding calls back while the server is failing."""

from __future__ import annotations

import asyncio
from typing import Final

from omi_async.errors import OmiError

__all__ = ["Breaker"]

FAILURES_BEFORE_PAUSE: Final = 5
"""Server failures in a row, after which the importer pauses and then probes with one call."""

PROBES_BEFORE_STOP: Final = 6
"""Failed probes in a row, after which a server counts as down."""

SHORTEST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 60.0


class Breaker:
    """Counts failures in a row; when they are many, lets one call through after a pause, to probe.

    Attributes:
        broken: the last error, once so many probes failed that the server counts as down.
    """

    def __init__(self) -> None:
        self.broken: OmiError | None = None
        self._failures = 0
        self._failed_probes = 0
        self._opens_at: float | None = None  # of the loop's clock, while it is shut
        self._probe_out = False
        self._changed = asyncio.Event()

    @property
    def shut(self) -> bool:
        """Whether only a probe may pass."""
        return self._opens_at is not None

    async def passage(self) -> bool:
        """Wait while the server is failing; return whether this call is the probe."""
        while self._opens_at is not None:
            wait = self._opens_at - asyncio.get_running_loop().time()
            if wait > 0:
                await asyncio.sleep(wait)
            elif self._probe_out:
                self._changed.clear()
                await self._changed.wait()
            else:
                self._probe_out = True
                return True
        return False

    def done(self, *, probe: bool) -> None:
        """Take a probe back, whatever became of it."""
        if probe:
            self._probe_out = False
            self._changed.set()

    def succeeded(self) -> None:
        """Note that the server works."""
        self._failures = self._failed_probes = 0
        if self._opens_at is not None:
            self._opens_at = self.broken = None
            self._changed.set()

    def failed(self, error: OmiError, *, probe: bool) -> None:
        """Note that a call failed on the server's side."""
        self._failures += 1
        self._failed_probes += probe
        if probe or (not self.shut and self._failures >= FAILURES_BEFORE_PAUSE):
            pause = min(SHORTEST_PAUSE * 2.0**self._failed_probes, LONGEST_PAUSE)
            self._opens_at = asyncio.get_running_loop().time() + pause
        if self._failed_probes >= PROBES_BEFORE_STOP:
            self.broken = error
