"""A pause for a server that fails, and probes by which it is noticed that it works again."""

from __future__ import annotations

import asyncio
from typing import Final

from omi_async.errors import OmiError

__all__ = ["Breaker"]

FAILURES_BEFORE_PAUSE: Final = 5
"""Server failures in a row after which the importer pauses and then probes with one call. With fewer, bad
luck would stop it; with more, a server that is coming up again is hammered."""

PROBES_BEFORE_STOP: Final = 6
"""Failed probes in a row after which a server counts as down: two minutes of probing, by the pauses below."""

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
        self._failed_lists = 0  # probes that only read
        self._opens_at: float | None = None  # of the loop's clock, while it is shut
        self._probe_out = False
        self._failed_fact: object = None  # the only one that the last failed probe carried
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
        self._failures = self._failed_probes = self._failed_lists = 0
        if self._opens_at is not None:
            self._opens_at = self.broken = None
            self._changed.set()

    def listed(self) -> None:
        """Note that the list works. A server whose list works may refuse to write all the same."""
        self._failed_lists = 0

    def failed(self, error: OmiError, *, probe: bool, fact: object = None) -> None:
        """Note that a write failed on the server's side; `fact` is what it carried, if that was only one."""
        self._failures += 1
        if probe:
            # Six probes with the same fact may say something of that fact, and nothing of the server.
            self._failed_probes += fact is None or fact is not self._failed_fact
            self._failed_fact = fact
        if probe or (not self.shut and self._failures >= FAILURES_BEFORE_PAUSE):
            self._pause(error, self._failed_probes)

    def failed_to_list(self, error: OmiError, *, probe: bool) -> None:
        """Note that a reading failed on the server's side: that shuts nothing, but keeps shut what is."""
        if probe:
            self._failed_lists += 1
            self._pause(error, self._failed_lists)

    def _pause(self, error: OmiError, failed_probes: int) -> None:
        pause = min(SHORTEST_PAUSE * 2.0**failed_probes, LONGEST_PAUSE)
        self._opens_at = asyncio.get_running_loop().time() + pause
        if failed_probes >= PROBES_BEFORE_STOP:
            self.broken = error
