"""How many calls of an import may be on the wire: one at first, then as many as the server takes well.

The service serialises the writes of one account badly: each advances one head document, tries three times
without a pause, and then answers 500 with the first part of a batch stored. Two writes at a time fail now and
then, four mostly; one at a time never does. Other servers take sixteen. Nothing says beforehand which kind it
is, and a doubtful batch costs about four calls (itself, two looks, the rest again). So::

    on the wire  1  2  4 x 1 . . . . . . . . 2 x 1 . . . . . . . . . . . . . . . . . .
                 clean:  ^ two fail beside   ^ 16 clean calls  ^ now 64 clean calls are asked for,
                 double  each other: down    later: try two      then 256: it stays at one

A write counts as troubled if it ended in a 5xx or was lost *and* another of our writes was beside it: what
fails alone says nothing about company.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

__all__ = ["Caution", "Concurrency", "Flight"]

PATIENCE: Final = 16
"""Clean calls after a first stumble before more are tried. With fewer, a server that fails under two writes
at a time spends a third of its calls on finding that out again; with many more, a good server that hiccuped
once is used by half for minutes."""

LESS_EACH_TIME: Final = 4
"""Times as many clean calls after each further stumble."""

MOST_PATIENCE: Final = 1024

FORGIVEN_AFTER: Final = 256
"""Clean calls in company that take one stumble back: a server that was once restarted is not distrusted for
the rest of a long import."""


@attrs.define
class Caution:
    """What a Session has learned of how its server takes parallel writes; its imports go on with it.

    Attributes:
        limit: writes that may be on the wire.
        stumbles: bursts of trouble in company, less those forgiven.
        clean: clean calls since the limit changed last.
        in_company: clean calls in company since the last trouble.
    """

    limit: int = 1
    stumbles: int = 0
    clean: int = 0
    in_company: int = 0

    @property
    def patience(self) -> int:
        """How many clean calls it takes before more of them are tried at a time."""
        patience: int = PATIENCE * LESS_EACH_TIME ** max(0, self.stumbles - 1)
        return min(patience, MOST_PATIENCE)

    def praise(self, most: int, *, accompanied: bool) -> None:
        """Note a clean call, of an import that may have so many on the wire."""
        self.clean += 1
        if accompanied:
            self.in_company += 1
            if self.stumbles and self.in_company >= FORGIVEN_AFTER:
                self.stumbles, self.in_company = self.stumbles - 1, 0
        if self.limit >= most:
            return
        if not self.stumbles:
            self.limit += 1  # by one a call: doubled once all that are on the wire have come back
        elif self.clean >= self.patience:
            self.limit, self.clean = self.limit * 2, 0

    def stumble(self, *, again: bool) -> None:
        """Note a failure in company; `again` if the call left before the last step down."""
        # Each halves, so that a burst of them leads down to one at once; but together they are one stumble.
        self.limit = max(1, self.limit // 2)
        self.stumbles += not again
        self.clean = self.in_company = 0


@attrs.define(eq=False)
class Flight:
    """A write on the wire.

    Attributes:
        number: how many left before it.
        accompanied: whether another write was beside it for some of its time.
    """

    number: int
    accompanied: bool = False


class Concurrency:
    """The number of an import's calls that may be on the wire.

    Args:
        most: calls at the same time, at most.
        caution: what the Session has learned so far.
    """

    def __init__(self, most: int, caution: Caution) -> None:
        self._most = most
        self._caution = caution
        self._flights: set[Flight] = set()
        self._departed = 0
        self._stepped_down_at = 0
        self._alone = 0

    @property
    def limit(self) -> int:
        """How many may be on the wire now."""
        return 1 if self._alone else min(self._caution.limit, self._most)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Let only one call be on the wire, so that its failure cannot be the others' doing."""
        self._alone += 1
        try:
            yield
        finally:
            self._alone -= 1

    def depart(self) -> Flight:
        """Note that a write leaves."""
        self._departed += 1
        flight = Flight(self._departed, accompanied=bool(self._flights))
        for other in self._flights:
            other.accompanied = True
        self._flights.add(flight)
        return flight

    def land(self, flight: Flight) -> None:
        """Note that a write has come back, whatever became of it."""
        self._flights.discard(flight)

    def clean(self, flight: Flight) -> None:
        """Note that the server did its work."""
        self._caution.praise(self._most, accompanied=flight.accompanied)

    def troubled(self, flight: Flight) -> None:
        """Note that the server failed, or that the answer was lost."""
        if flight.accompanied:
            self._caution.stumble(again=flight.number <= self._stepped_down_at)
            self._stepped_down_at = self._departed
