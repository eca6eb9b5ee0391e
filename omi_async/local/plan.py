"""Which call meets which fault: the plan of a test, and chaos."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from omi_async.local.faults import Fault, Sleep
from omi_async.local.messages import Reply
from omi_async.local.quotas import KINDS, kinds_of
from omi_async.local.twist import PLAIN, Twist

__all__ = ["MENU", "Chaos", "Faults", "happen"]


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

    def draw(self, kind: str) -> Fault | None:
        """Return the fault for the next call, or None."""
        # Every call draws two numbers, whatever becomes of it: else one that meets no fault would change the
        # faults of all calls after it, and a failing seed would not fail again.
        hit, choice = self._random.random() < self.rate, self._random.random()
        fitting = [fault for fault in self.menu if kind in fault.kinds]
        return fitting[int(choice * len(fitting))] if hit and fitting else None


@attrs.define
class _Planned:
    fault: Fault
    kinds: tuple[str, ...]
    left: float


class Faults:
    """The faults that are planned for the calls to come.

    They happen in the order in which they were added, each to the first call that it fits; one call has one
    of them. Conditions (`list_lag`, `poison`) happen beside them. If no planned fault fits, `chaos` may draw
    one.
    """

    def __init__(self, chaos: Chaos | None = None) -> None:
        self.chaos = chaos
        self._planned: list[_Planned] = []

    def __iter__(self) -> Iterator[Fault]:
        """Iterate over the faults that are still to happen."""
        return iter([planned.fault for planned in self._planned])

    def __len__(self) -> int:
        return len(self._planned)

    def __repr__(self) -> str:
        return f"Faults({list(self)!r}, chaos={self.chaos!r})"

    def add(self, *faults: Fault, on: str | Iterable[str] | None = None, times: float | None = None) -> None:
        """Plan faults, one after the other.

        `on` names the kinds of calls that they happen to ("list", "search", "create", "batch", "update",
        "delete", "key"; "any"); without it they are those that the fault is made for. `times` is how often
        each happens: once, or forever (`FOREVER`) for `list_lag` and `poison`. Raises ValueError.
        """
        if times is not None and times < 1:
            raise ValueError(f"a fault happens once or more often, not {times} times")
        kinds = _kinds(on)
        for fault in faults:
            left = fault.times if times is None else times
            self._planned.append(_Planned(fault, kinds or fault.kinds, left))

    def clear(self) -> None:
        """Forget every fault that is still planned, and end the chaos."""
        self._planned.clear()
        self.chaos = None

    def take(self, kind: str, read_contents: Callable[[], Sequence[str]]) -> list[Fault]:
        """Use up what happens to a call: the conditions, then at most one other fault.

        `read_contents` returns the texts that the call carries.
        """
        # Most calls of most tests: to read their texts would cost more than the rest of the stand-in's work.
        if not self._planned and self.chaos is None:
            return []
        contents = read_contents()
        fitting = [p for p in self._planned if kind in p.kinds and p.fault.concerns(contents)]
        # A condition bends how the work is done, an event whether and what is answered: so both can happen.
        taken = [p for p in fitting if p.fault.standing]
        taken += [p for p in fitting if not p.fault.standing][:1]
        for planned in taken:
            planned.left -= 1
        self._planned = [p for p in self._planned if p.left > 0]
        faults = [planned.fault for planned in taken]
        return faults + self._drawn(kind, faults)

    def _drawn(self, kind: str, faults: Sequence[Fault]) -> list[Fault]:
        if self.chaos is None or not kind:
            return []
        # Drawn even if a planned fault happens: the draws of the calls after it must not depend on the plan.
        drawn = self.chaos.draw(kind)
        planned = any(not fault.standing for fault in faults)
        return [] if drawn is None or planned else [drawn]


def _kinds(on: str | Iterable[str] | None) -> tuple[str, ...]:
    if on is None:
        return ()
    names = (on,) if isinstance(on, str) else tuple(on)
    return KINDS if "any" in names else kinds_of(names)


async def happen(faults: Sequence[Fault], answer: Callable[[Twist], Awaitable[Reply]], sleep: Sleep) -> Reply:
    """Answer a call with the faults that were taken for it."""
    standing = PLAIN
    event = Fault()
    for fault in faults:
        if fault.standing:
            standing = fault.twist.under(standing)
        else:
            event = fault

    def work(twist: Twist = PLAIN) -> Awaitable[Reply]:
        return answer(twist.under(standing))

    return await event.happen(work, sleep)
