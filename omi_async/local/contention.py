"""The race of parallel writes for one document: why the service fails when an account is written in parallel.

Every write of an account advances one head document. The backend reads it outside of the transaction in
which it writes, so another write that commits in between makes the transaction fail. It tries three times,
without a pause, then raises: a plain 500, after those memories of a batch that had their turn before::

    call A   look up .... read head 7 ....... commit 8      look up .... read head 9 ..
    call B      look up .... read head 7 ....... head is 8: again    read head 8 ....... commit 9

What counts is how long a write stands between reading and committing, beside all that it does: a single
create does little else, while a batch spends most of its time on lookups that nothing races with. With the
numbers below the stand-in fails about as often as the backend's own code did when it was driven by one to 24
streams.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from omi_async.local.messages import BROKEN_DOWN, Refusal

__all__ = ["CONTENDED", "Head"]

CONTENDED: Final = 0.005
"""Seconds a storage call takes unless another time is named: a batch of 25 takes two seconds then."""

_TRIES: Final = 3

_TO_READ: Final = 1
_TO_COMMIT: Final = 4
"""Storage calls from reading the head to its commit. With fewer, four streams would hardly ever fail."""

_LOOKUPS_IN_A_BATCH: Final = 11
"""Storage calls for a memory of a batch that race with nothing. Without them two streams would often fail."""

_SPREAD: Final = 2.0
"""Shape of a storage call's time (gamma). With equal times, the loser of one race would lose the next too."""


@attrs.define
class Head:
    """The head document of one account.

    Attributes:
        seconds: that a storage call takes; 0 for writes that never fail, one after the other.
        sleep: waits for seconds.
        number: counts the writes.
    """

    seconds: float
    sleep: Callable[[float], Awaitable[Any]]
    number: int = 0
    _random: random.Random = attrs.field(factory=lambda: random.Random(25), repr=False)  # noqa: S311

    async def look_up(self, *, batch: bool) -> None:
        """Spend the time of what a write does before it competes."""
        await self._storage_calls(_LOOKUPS_IN_A_BATCH if batch else 0)

    async def advance(self, *, tries: int | None = _TRIES) -> None:
        """Win the race for the head, so that a write may be stored; `tries` None goes on until it does.

        Raises `Refusal`, a plain 500 on a connection that is closed.
        """
        if not self.seconds:
            return
        made = 0
        while made != tries:
            await self._storage_calls(_TO_READ)
            seen = self.number
            await self._storage_calls(_TO_COMMIT)
            if self.number == seen:
                self.number += 1
                return
            made += 1
        raise Refusal(BROKEN_DOWN)

    async def _storage_calls(self, count: int) -> None:
        # Without contention no turn of the loop is given away: then the writes of a batch are one step.
        if self.seconds and count:
            await self.sleep(self.seconds * self._random.gammavariate(_SPREAD * count, 1 / _SPREAD))
