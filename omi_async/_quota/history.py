"""The calls of late: those on the wire, and when those that were let through had left.

From them can be told who opened a window, and so how long it is, once it turns out that there is one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from typing import Final

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.policy import KINDS
from omi_async._quota.window import CLOCK_TOLERANCE, Window, whole_length

__all__ = ["CountedCall", "History"]

CALLS_REMEMBERED: Final = 2000
"""Calls of each kind whose time is kept, to tell how long a window is that turns out to be shut."""


@attrs.define(eq=False)
class CountedCall:
    """A call that the ledger has counted.

    Attributes:
        sent: when it was about to leave.
        windows: what it is counted in, each with when that was opened.
        guessed: those of them that became known while it was out, so that it may be counted twice.
    """

    kind: Kind
    sent: float
    windows: tuple[tuple[Window, float | None], ...]
    guessed: tuple[Window, ...] = ()

    def counts_in(self, window: Window) -> bool:
        """Whether it is counted in what is open of a window."""
        return any(window is other and window.opened_at == opened for other, opened in self.windows)

    def count_in(self, window: Window) -> None:
        """Count it in a window that became known while it was out."""
        others = [pair for pair in self.windows if pair[0] is not window]
        self.windows = (*others, (window, window.opened_at))
        self.guessed = (*self.guessed, window)


class History:
    """Remembers calls."""

    def __init__(self) -> None:
        self._out: dict[CountedCall, None] = {}  # on the wire, in their order
        self._times: dict[Kind, deque[tuple[float, float]]] = {
            kind: deque(maxlen=CALLS_REMEMBERED) for kind in KINDS
        }

    def begin(self, spend: CountedCall) -> None:
        """Note that a call leaves."""
        self._out[spend] = None

    def end(self, spend: CountedCall, took: float | None = None) -> None:
        """Note that a call has ended; where it was let through, how many seconds it took."""
        self._out.pop(spend, None)
        if took is not None:
            self._times[spend.kind].append((spend.sent, took))

    def out(self, kinds: Collection[Kind]) -> list[CountedCall]:
        """Return the calls on the wire."""
        return [spend for spend in self._out if spend.kind in kinds]

    def gone(self, kinds: Collection[Kind], since: float, until: float = math.inf) -> int:
        """Count the calls that left from a moment on, and were let through before another."""
        times = [time for kind in kinds for time in self._times[kind]]
        return sum(sent >= since and sent + took < until for sent, took in times)

    def can_share(self, kinds: frozenset[Kind], limit: int, opened_at: float) -> bool:
        """Whether no more calls of these kinds went through since then than one window lets through."""
        return len(kinds) == 1 or self.gone(kinds, opened_at) <= limit

    def opener(
        self, kinds: frozenset[Kind], limit: int | None, ends: float, refused: float
    ) -> tuple[float, float, float] | None:
        """Tell when the call left that opened a window, how long it took, and the length of the window.

        Where as many calls of ours went through as the limit says, the first of them has opened it. Those
        that are still out will have gone through: rather those that left before the refused one.
        """
        for latest in (-math.inf, refused, math.inf):
            gone = [time for kind in kinds for time in self._times[kind]]
            gone += [(spend.sent, math.inf) for spend in self.out(kinds) if spend.sent <= latest]
            if limit and len(gone) >= limit:
                sent, took = sorted(gone)[-limit]
                length = whole_length(ends - sent)
                if length is not None and self.can_share(kinds, limit, ends - length - CLOCK_TOLERANCE):
                    return sent, took, length
        return None
