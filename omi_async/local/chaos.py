"""A random source of faults."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from omi_async.local.faults import Fault

__all__ = ["Chaos"]


class Chaos:
    """A random source of faults: the same ones for the same seed and the same order of calls.

    Attributes:
        rate: the share of calls that go wrong, 0 to 1.
        menu: the faults to draw from; None for a set of all kinds.
    """

    def __init__(self, seed: int, *, rate: float = 0.1, menu: Iterable[Fault] | None = None) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is a share of the calls, 0 to 1, not {rate}")
        self.seed = seed
        self.rate = rate
        self.menu = MENU if menu is None else tuple(menu)
        self._random = random.Random(seed)  # noqa: S311 - it is to be predictable

    def __repr__(self) -> str:
        return f"Chaos({self.seed!r}, rate={self.rate!r})"

    def draw(self, operation: str) -> Fault | None:
        """Give the fault for the next call, or None. Every call draws two numbers, whatever becomes of it."""
        hit, choice = self._random.random() < self.rate, self._random.random()
        fitting = [fault for fault in self.menu if operation in fault.operations]
        return fitting[int(choice * len(fitting))] if hit and fitting else None


MENU: Final = (
    Fault.answer(503, "Rate limiter unavailable"),
    Fault.answer(503, "Memory writes are globally paused"),
    Fault.answer(500, "Internal Server Error"),
    Fault.rate_limited(0),
    Fault.rate_limited(),
    Fault.html(502),
    Fault.html(502, stored=True),
    Fault.empty(504),
    Fault.empty(504, stored=True),
    Fault.garbage(),
    Fault.after_all(),
    Fault.after_prefix(1),
    Fault.after_prefix(12),
    Fault.after_prefix(24),
    Fault.reset(),
    Fault.reset(stored=True),
    Fault.half_body(),
    Fault.names_only(0),
    Fault.names_only(20),
    Fault.reordered(),
)
"""What `Chaos` draws from unless it is given something else: what passes when the call is tried again."""
