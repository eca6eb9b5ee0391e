"""The record of the calls that a server has handled."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from typing import Final

import attrs

__all__ = ["CallRecord", "Calls"]

KEPT: Final = 100_000
"""Records that are kept, the newest ones."""


@attrs.frozen
class CallRecord:
    """A call that was handled.

    Attributes:
        path: without the query, as it came (percent-encoded).
        operation: "list", "search", "create", "batch", "update", "delete", "key", or "" for no such route.
        status: of the answer, or None where the connection was gone before one was sent.
        items: the number of memories in a batch, 1 for a single write, otherwise 0.
        started: by a monotonic clock, in seconds.
        ended: by the same clock.
    """

    method: str
    path: str
    operation: str
    status: int | None
    items: int
    started: float
    ended: float


class Calls:
    """Counts the calls in flight, and remembers those that ended."""

    def __init__(self, log: logging.Logger | None) -> None:
        self.records: deque[CallRecord] = deque(maxlen=KEPT)
        self.peaks: Counter[str] = Counter()
        self.peak = 0
        self._in_flight: Counter[str] = Counter()
        self._total = 0
        self._log = log

    def begin(self, operation: str) -> float:
        """Count a call in. Gives the moment."""
        self._total += 1
        self._in_flight[operation] += 1
        self.peak = max(self.peak, self._total)
        self.peaks[operation] = max(self.peaks[operation], self._in_flight[operation])
        return time.monotonic()

    def end(
        self, *, method: str, path: str, operation: str, status: int | None, items: int, started: float
    ) -> None:
        """Count a call out, remember it and log it: never a key, never a text."""
        self._total -= 1
        self._in_flight[operation] -= 1
        record = CallRecord(method, path, operation, status, items, started, time.monotonic())
        self.records.append(record)
        if self._log is not None:
            took = (record.ended - started) * 1000
            self._log.info("%s %s %s %.1f ms %d items", method, path, status or "dropped", took, items)
