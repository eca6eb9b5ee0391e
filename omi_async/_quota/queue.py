"""Those who wait for a permit, in the order of their coming."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import NamedTuple

from omi_async._api.messages import Kind
from omi_async._quota.permit import CallGroup, Permit

__all__ = ["Queue", "Queues", "Waiter"]


class Waiter(NamedTuple):
    """Somebody who waits for a permit.

    Attributes:
        number: of all that came, which one.
        since: when it came; of the steady clock.
        until: the latest end of its wait; of the same.
        granted: what it waits for.
    """

    number: int
    since: float
    until: float
    granted: asyncio.Future[Permit]


class Queue:
    """Those who wait for the same: a kind of call, by an import (its group) or by anybody else (None)."""

    def __init__(self, kind: Kind, group: CallGroup | None) -> None:
        self.kind = kind
        self.group = group
        self.waiters: deque[Waiter] = deque()
        self._shut = (-math.inf, -math.inf)  # the latest time for which a quota let none of them through

    def first(self) -> Waiter | None:
        """Return the one who came first, of those who still wait."""
        while self.waiters and self.waiters[0].granted.done():
            self.waiters.popleft()
        return self.waiters[0] if self.waiters else None

    def number_of_first(self) -> float:
        """Return the number of the one who came first; infinity if nobody waits."""
        first = self.first()
        return math.inf if first is None else first.number

    def put_off(self, now: float, until: float) -> None:
        """Note that a quota lets none of them through until then."""
        since, before = self._shut
        self._shut = (since if now <= before else now, until)

    def waited(self, waiter: Waiter, now: float) -> float:
        """Return the seconds that a waiter has waited for a quota."""
        since, until = self._shut
        return max(0.0, min(now, until) - max(waiter.since, since))


class Queues(dict[tuple[Kind, CallGroup | None], Queue]):
    """All queues in which somebody waits, by what it is waited for."""

    def add(self, kind: Kind, group: CallGroup | None, waiter: Waiter) -> None:
        """Let somebody wait, behind all who came before."""
        queue = self.get((kind, group))
        if queue is None:
            queue = self[kind, group] = Queue(kind, group)
        queue.waiters.append(waiter)

    def put_back(self, queue: Queue, waiter: Waiter) -> None:
        """Let somebody wait again who was the first one of a queue, unless nobody waits for the outcome."""
        if not waiter.granted.done():
            self.setdefault((queue.kind, queue.group), queue).waiters.appendleft(waiter)

    def drop_if_empty(self, kind: Kind, group: CallGroup | None) -> None:
        """Forget a queue in which nobody waits any more."""
        queue = self.get((kind, group))
        if queue is not None and queue.first() is None:
            del self[kind, group]

    def waiters(self) -> list[Waiter]:
        """Return all who wait."""
        return [waiter for queue in self.values() for waiter in queue.waiters]

    def waiting(self, kind: Kind) -> int:
        """Return how many wait for calls of a kind."""
        return sum(len(queue.waiters) for queue in self.values() if queue.kind == kind)
