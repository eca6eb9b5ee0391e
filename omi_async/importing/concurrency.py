"""How many calls of an import are on the wire: one at first, then as many as the server takes gladly.

Never more than the user allows. Contention (503) halves the number; answers that come much later than they
did lower it by a quarter: the server is queueing, and more calls would only wait there. Each round of answers
without either raises it by one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Final

from omi_async._api.messages import Kind
from omi_async._quota.policy import QuotaState

__all__ = ["Concurrency"]

HEAD_START: Final = 1.0
"""Seconds that the first call of an import has to come back alone: a wrong key, a dead server, paused writes
cost that one call."""

MUCH_LATER: Final = 2.0
"""Times as long as at its best, from where on an answer comes much later."""

NOTICEABLE: Final = 0.5
"""Seconds more than at its best, below which nobody can tell the server's queue from the network's moods."""

FORGETTING: Final = 1.02
"""The best time grows by this with each round, so that a server that has become slower is believed."""

FEWEST: Final = 4
"""Answers in a round, at least; fewer say little."""


class Concurrency:
    """The number of calls that may be on the wire; an import's `CallGroup`.

    Args:
        most: calls at the same time, at most.
        on_park: is told the kind of call, the seconds and the policy when calls have to wait for a quota.
        poke: is called when more may go.

    Attributes:
        limit: how many may be on the wire now.
    """

    def __init__(
        self,
        most: int,
        *,
        on_park: Callable[[Kind, float, QuotaState | None], None],
        reconsider: Callable[[], None],
    ) -> None:
        self.limit = 1
        self._most = most
        self._on_park = on_park
        self._poke = reconsider
        self._out = 0
        self._begun = False
        self._open = False
        self._best: dict[Kind, float] = {}
        self._rounds: defaultdict[Kind, list[float]] = defaultdict(list)
        self._lowered_at = float("-inf")

    # As the pacer sees it

    @property
    def free(self) -> bool:
        """Whether another call may begin."""
        return self._out < self.limit

    @property
    def idle(self) -> bool:
        """Whether no call is on the wire."""
        return not self._out

    def begin(self) -> None:
        """Note that a call begins."""
        self._out += 1
        if not self._begun:
            self._begun = True
            asyncio.get_running_loop().call_later(HEAD_START, self.open)

    def end(self) -> None:
        """Note that a call has ended."""
        self._out -= 1

    def on_quota_wait(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls have to wait for a quota."""
        self._on_park(kind, wait, state)

    # What is learned

    def open(self) -> None:
        """Let all calls go: the first one came through, or took its time."""
        if not self._open:
            self._open = True
            self.limit = self._most
            self._poke()

    def answered(self, kind: Kind, began: float, now: float) -> None:
        """Note that a call was answered, after the seconds between two moments of the loop's clock."""
        if not self._open:
            self.open()
        if began < self._lowered_at:
            return  # it was one of many still
        times = self._rounds[kind]
        times.append(now - began)
        if len(times) >= max(self.limit, FEWEST):
            del self._rounds[kind]
            self._judge(kind, median(times), now)

    def contended(self, began: float, now: float) -> None:
        """Note that the server had too much to do for a call. Those that were out with it say nothing new."""
        if began >= self._lowered_at:
            self._lower(self.limit // 2, now)

    def _judge(self, kind: Kind, took: float, now: float) -> None:
        best = self._best[kind] = min(took, self._best.get(kind, took) * FORGETTING)
        if took > best * MUCH_LATER and took > best + NOTICEABLE:
            self._lower(self.limit * 3 // 4, now)
        elif self.limit < self._most:
            self.limit += 1
            self._poke()

    def _lower(self, limit: int, now: float) -> None:
        self.limit = max(1, limit)
        self._lowered_at = now
        self._rounds.clear()
