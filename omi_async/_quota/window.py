"""Fixed windows: what is known of a policy, and of the window of it that is open.

The service counts calls in fixed windows: the first call opens one, it ends so many seconds later whatever
happens meanwhile, and a refused call does not make it longer (backend: INCR with a TTL). Pure: every moment
is an argument, in epoch seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, get_args

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.policy import LONGEST, UNITS, QuotaState, Source, kinds_of, rate_name

__all__ = ["Window", "whole_length"]

HEAD_START: Final = 1.0
"""Seconds, at most, that the first call through an opening window has to come back alone."""

DOUBT: Final = 24
"""Windows after which a learned limit is tested by one call more: it may have been raised in silence."""

SHORTEST_DOUBT: Final = 3600.0

MOST: Final = 1e12
"""No number of a dump is meant to be larger."""

CLOCK_TOLERANCE: Final = 1.5
"""Seconds by which two accounts of the same moment may differ: both come in whole seconds."""


def whole_length(seconds: float, error: float = 0.0) -> float | None:
    """Return the usual length of a window of which so much was left at its opening; None for no usual one.

    What a server says is left has whole seconds, rounded down; `error` is by how much it may be too long.
    """
    for unit in UNITS:
        if unit - CLOCK_TOLERANCE <= seconds <= unit + max(error, min(CLOCK_TOLERANCE, unit / 40)):
            return unit
    return None


@attrs.define(eq=False)
class Window:
    """One policy, and the window of it that is open.

    Attributes:
        kinds: the calls that it counts.
        limit: None while it is unknown.
        length: seconds; None while it is unknown.
        opened_at: when the first call of the open window left; None where none is open.
        ends: when the open window ends, or a refusal's wait; None while nobody can tell.
        used: calls spent in it, those on the wire too.
        told: how many of them an answer has counted, the most that one did.
        answered: those of them that the server let through.
        whole: the window was opened by a call of ours, so that nobody's calls but ours need be in it.
        took: how long that call's answer took; infinite while it is out.
        refused: the server said that it is shut.
        contended: the last one was used up: the next begins with one call alone.
        alone_until: until then, or until its answer, the first call through an opening goes alone.
        over_at: when it is surely over, where its end came in whole seconds, rounded down.
        patient_until: the same, where imports have the patience to wait for that, and spare a refusal.
        slack: seconds more to wait for an opening, since a call came too early.
        refusals: refusals in a row that named no time worth the name.
        test_at: when one call more than `limit` may be tried.
    """

    kinds: frozenset[Kind]
    limit: int | None
    length: float | None
    source: Source
    given_name: str | None = None
    opened_at: float | None = None
    ends: float | None = None
    used: int = 0
    told: int = 0
    answered: int = 0
    whole: bool = False
    took: float = math.inf
    refused: bool = False
    contended: bool = False
    alone_until: float = 0.0
    over_at: float = 0.0
    patient_until: float = 0.0
    slack: float = 0.0
    refusals: int = 0
    test_at: float = math.inf

    @property
    def name(self) -> str:
        """How to call it before a person."""
        return self.given_name or rate_name(self.limit, self.length)

    @property
    def may_change(self) -> bool:
        """Whether the server alone told of it, so that it is what the server says."""
        return self.source in {"learned", "announced"}

    @property
    def used_up(self) -> bool:
        """Whether no call is left in the open window."""
        return self.limit is not None and self.used >= self.limit

    def anchor(self, opened_at: float, took: float) -> None:
        """Note that a call of ours has opened the window, of known length."""
        self.opened_at, self.whole, self.took = opened_at, True, took
        self.ends = opened_at + (self.length or 0.0) + self._latest_start()

    def measure(self, ends: float | None, now: float) -> None:
        """Learn the length of a window that a call of ours has opened, from the end that the server names.

        An unusual one is believed only where as many calls as it takes went through, in its first half:
        while its length is unknown it may have ended, and another begun, without our knowledge.
        """
        if ends is None or self.opened_at is None:
            return
        seconds = ends - self.opened_at
        if self.length is not None and self.length - CLOCK_TOLERANCE <= seconds <= self.length + 0.1:
            return
        length = whole_length(seconds)
        if length is not None and length < (self.length or 2.0) and self.answered != self.limit:
            self.whole = False  # a second is soon over: the window was open before our call
            return
        full = self.limit is not None and self.answered <= self.limit <= self.used
        if length is None and full and now - self.opened_at <= seconds / 2:
            length = float(math.ceil(seconds))
        if length is not None:
            self.length = length
            self.anchor(self.opened_at, self.took)

    def roll(self, now: float) -> None:
        """Close the window once its end has come."""
        if self.ends is not None and now >= self.ends:
            self.contended = self.refused or self.used_up
            self.opened_at = self.ends = None
            self.used = self.told = self.answered = 0
            self.refused = self.whole = False
            self.took = math.inf

    def share(self, now: float, reserve: float) -> float:
        """Return the calls that one window allows to those who leave a share of it to others."""
        if self.limit is None:
            return math.inf
        if not reserve and self._is_to_be_tested(now):
            return max(1, self.limit) + 1
        return max(1, self.limit - math.ceil(self.limit * reserve))

    def _is_to_be_tested(self, now: float) -> bool:
        """Whether one call more may go: not at the end of a window, where it would be counted in the next."""
        if self.opened_at is None or self.ends is None or self.opened_at < self.test_at:
            return False
        length = self.length or 0.0
        return self.test_at <= now < self.ends - min(CLOCK_TOLERANCE, length / 4) - length / 50

    def shut(self, now: float, reserve: float = 0.0) -> float:
        """Return the seconds until there is a call left in it; 0 where there is."""
        self.roll(now)
        if self.ends is not None and (self.refused or self.used >= self.share(now, reserve)):
            return self.ends - now
        return 0.0

    def wait(self, now: float, reserve: float = 0.0) -> float:
        """Return the seconds until a call may go; 0 for at once."""
        return self.shut(now, reserve) or max(0.0, self.alone_until - now)

    def spend(self, now: float) -> None:
        """Count a call that is about to leave; the first one opens the window."""
        self.roll(now)
        if self.opened_at is None and self.ends is None:
            self.opened_at = now
            self.whole = True
            self.took = math.inf
            self.ends = None if self.length is None else now + self.length + self._latest_start()
            if self.contended:
                self.alone_until = now + min(HEAD_START, (self.length or math.inf) / 100)
        self.used += 1

    def give_back(self) -> None:
        """Take back a call that never left; the window that only it has opened is not open."""
        self.used = max(0, self.used - 1)
        self.alone_until = 0.0
        if self.used == 0 and not self.refused and self.whole:
            self.opened_at = self.ends = None
            self.whole = False

    def came_early(self, sent: float) -> bool:
        """Forget a window if a call of ours would have opened it, but was refused: the last one goes on."""
        early = self.whole and sent == self.opened_at and not self.answered
        if early:
            self.opened_at = self.ends = None
            self.whole = False
        if early and self.contended and sent >= self.over_at:  # it is our own account that was too early
            length = self.length or 0.0
            self.slack = min(self.slack + min(length / 100, HEAD_START / 4), length / 20, HEAD_START)
        return early

    def passed(self, sent: float, now: float) -> None:
        """Note that the server let a call through."""
        self.answered += 1
        self.refusals = 0
        self.alone_until = 0.0
        if sent == self.opened_at and self.whole:
            self.took = now - sent
            if self.length is not None:
                self.anchor(sent, self.took)
        if self.may_change and self.limit is not None and self.answered > self.limit:
            # It was out with a refused one; or the limit was raised, and the next refusal will say to what.
            self.limit = self.answered if self.refused else None

    def _latest_start(self) -> float:
        """Return how long after its call left the server may have opened the window for it, at most."""
        length = self.length or 0.0
        return min(self.took, length / 100, HEAD_START) + min(0.005, length / 200) + self.slack

    def _earliest_end(self) -> float:
        """Return when the open window may be over; it `ends` when it surely is, where we have opened it."""
        return (self.ends or 0.0) - (self._latest_start() if self.whole else 0.0)

    def believe(self, limit: int | None, now: float) -> None:
        """Take a limit for the true one, until it is due to be tested."""
        self.limit = limit
        if self.source == "learned" and self.length is not None:
            self.test_at = now + max(DOUBT * self.length, SHORTEST_DOUBT)

    def ends_about(self, moment: float | None) -> bool:
        """Whether the open window ends at this moment, as far as whole seconds can tell."""
        if self.ends is None or moment is None:
            return False
        return self._earliest_end() - CLOCK_TOLERANCE <= moment <= self.ends + CLOCK_TOLERANCE

    def fits(self, now: float, ends: float | None) -> bool:
        """Whether so much of a window of this length can be left."""
        return self.length is None or ends is None or ends - now <= self.length + CLOCK_TOLERANCE

    def will_end(self, now: float, least: float | None) -> bool:
        """Whether our own account of the end agrees with what a refusal says: whole seconds, rounded down."""
        if self.ends is None or self.ends <= now:
            return False
        if least is None:
            return self.whole
        return least - 0.1 <= self.ends and self._earliest_end() <= least + CLOCK_TOLERANCE

    def capacity(self, now: float, until: float, reserve: float = 0.0) -> float:
        """Return how many calls can go before a moment."""
        self.roll(now)
        share = self.share(-math.inf, reserve)
        left = 0.0 if self.refused else share - self.used
        if self.length is None or share == math.inf:
            return 0.0 if self.refused and until <= (self.ends or 0.0) else math.inf
        first = self.ends if self.ends is not None else now + self.length
        openings = 0 if until <= first else math.ceil((until - first) / self.length)
        return max(0.0, left) + openings * share

    def rest(self, now: float, reserve: float = 0.0) -> tuple[float, float | None]:
        """Return how many calls are left in it, and when it is over; None where the next call opens it."""
        left = 0.0 if self.shut(now, reserve) else self.share(-math.inf, reserve) - self.used
        return left, self.ends

    def state(self, now: float, reserve: float = 0.0) -> QuotaState:
        """Return what is known, for a person."""
        wait = self.shut(now, reserve)
        return QuotaState(
            self.name,
            self.kinds,
            self.limit,
            self.length,
            max(self.used, self.limit or 0) if self.refused else self.used,
            datetime.fromtimestamp(now + wait, UTC) if wait > 0 else None,
            self.source,
        )

    # Between processes

    def dump(self) -> dict[str, Any]:
        """Return what another process should know of it, as JSON."""
        fields = {name: getattr(self, name) for name in _KEPT if getattr(self, name) != math.inf}
        return {**fields, "kinds": sorted(self.kinds), "source": self.source}

    @classmethod
    def load(cls, fields: Mapping[str, Any], now: float, slow: float = 0.0) -> Self:
        """Make a window of what `dump` gave, by a clock that is `slow` by so many seconds.

        One whose end lies too far away ends within its length.
        """
        kept = {name: _sound(name, fields[name]) for name in _KEPT if name in fields}
        for name in _MOMENTS & {*kept}:
            kept[name] = kept[name] if kept[name] is None else kept[name] - slow
        if fields["source"] not in get_args(Source):
            raise ValueError(f"no such source: {fields['source']!r}")
        window = cls(kinds_of(fields["kinds"]), source=fields["source"], **kept)
        longest = now + (LONGEST if window.length is None else window.length + CLOCK_TOLERANCE)
        if window.ends is not None and window.ends > longest:
            window.ends, window.opened_at, window.whole = longest, None, False
        window.over_at = min(window.over_at, longest)
        window.patient_until = min(window.patient_until, longest)
        window.alone_until = min(window.alone_until, now + HEAD_START)
        return window

    def take_over(self, other: Window) -> None:
        """Become as another process knows it; a policy that was given keeps its numbers."""
        for name in _KEPT:
            if self.may_change or name not in {"limit", "length"}:
                setattr(self, name, getattr(other, name))
        if self.may_change:
            self.kinds = other.kinds


def _sound(name: str, value: Any) -> Any:
    """Return what a dump holds, if that can be meant."""
    if value is None and name in {"limit", "length", "opened_at", "ends"}:
        return value
    if name in {"whole", "refused", "contended"}:
        good = isinstance(value, bool)
    elif name in {"limit", "used", "answered"}:
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
    else:
        good = isinstance(value, int | float) and -MOST < value < MOST
        good = good and (name != "length" or 0 < value <= LONGEST)
    if not good:
        raise ValueError(f"{name} of a window cannot be {str(value)[:40]}")
    return value


_KEPT: Final = (
    *("limit", "length", "opened_at", "ends", "used", "answered"),
    *("whole", "refused", "contended", "test_at", "alone_until", "over_at", "patient_until"),
)
_MOMENTS: Final = {"opened_at", "ends", "test_at", "alone_until", "over_at", "patient_until"}
