"""The plan of the faults to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from omi_async.local.chaos import Chaos
from omi_async.local.faults import Condition, Fault
from omi_async.local.quotas import OPERATIONS

__all__ = ["Faults"]


@attrs.define
class _Planned:
    fault: Fault
    operations: tuple[str, ...]
    left: float


class Faults:
    """The faults that are planned for the calls to come.

    Scripted ones happen in the order in which they were added, each to the first call that it fits; one call
    has one of them. Conditions (`list_lag`, `poison`) happen beside them. Where no scripted fault fits,
    `chaos` may draw one.
    """

    def __init__(self, chaos: Chaos | None = None) -> None:
        self.chaos = chaos
        self._planned: list[_Planned] = []

    def __iter__(self) -> Iterator[Fault]:
        """Give the faults that are still to happen."""
        return iter([planned.fault for planned in self._planned])

    def __len__(self) -> int:
        return len(self._planned)

    def __repr__(self) -> str:
        return f"Faults({list(self)!r}, chaos={self.chaos!r})"

    def add(self, *faults: Fault, on: str | Iterable[str] | None = None, times: float | None = None) -> None:
        """Plan faults, one after the other.

        `on` names the operations that they happen to ("list", "search", "create", "batch", "update",
        "delete", "key"; "any"); without it they are those that the fault is made for. `times` is how often
        each happens: once, or for ever (`FOREVER`) for `list_lag` and `poison`. Raises ValueError.
        """
        if times is not None and times < 1:
            raise ValueError(f"a fault happens once or more often, not {times} times")
        names = _names(on)
        for fault in faults:
            left = fault.times if times is None else times
            self._planned.append(_Planned(fault, names or fault.operations, left))

    def clear(self) -> None:
        """Forget every fault that is still planned, and end the chaos."""
        self._planned.clear()
        self.chaos = None

    def take(self, operation: str, read_contents: Callable[[], Sequence[str]]) -> list[Fault]:
        """Use up what happens to a call: the conditions, then at most one other fault.

        `read_contents` gives the texts that the call carries.
        """
        if not self._planned and self.chaos is None:
            return []
        contents = read_contents()
        fitting = [p for p in self._planned if operation in p.operations and p.fault.concerns(contents)]
        taken = [p for p in fitting if isinstance(p.fault, Condition)]
        taken += [p for p in fitting if not isinstance(p.fault, Condition)][:1]
        for planned in taken:
            planned.left -= 1
        self._planned = [p for p in self._planned if p.left > 0]
        faults = [planned.fault for planned in taken]
        return faults + self._drawn(operation, faults)

    def _drawn(self, operation: str, faults: Sequence[Fault]) -> list[Fault]:
        if self.chaos is None or not operation:
            return []
        drawn = self.chaos.draw(operation)
        scripted = any(not isinstance(fault, Condition) for fault in faults)
        return [] if drawn is None or scripted else [drawn]


def _names(on: str | Iterable[str] | None) -> tuple[str, ...]:
    if on is None:
        return ()
    names = (on,) if isinstance(on, str) else tuple(on)
    if "any" in names:
        return OPERATIONS
    if unknown := set(names).difference(OPERATIONS):
        raise ValueError(
            f"no such operation: {', '.join(sorted(unknown))}; there are {', '.join(OPERATIONS)}"
        )
    return names
