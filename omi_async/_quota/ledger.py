"""The ledger of quotas: which call may go now, and what the server's answers teach about the next ones.

Pure: `now` (epoch seconds) goes in, seconds to wait come out. A window is spent to its end in one burst, and
then waited for. What is not known is not assumed: a server that never refuses is never slowed down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from omi_async._api.headers import NOTHING, RateLimitHeaders
from omi_async._api.messages import Kind
from omi_async._api.retry import Retry, jittered
from omi_async._quota.forecast import seconds_for
from omi_async._quota.history import CountedCall, History
from omi_async._quota.policy import BACKEND, DOCUMENTED, KINDS, LONGEST, QuotaPolicy, QuotaState, Source
from omi_async._quota.window import CLOCK_TOLERANCE, Window, whole_length
from omi_async.constants import BASE_URL, SHORTEST_WAIT
from omi_async.errors import ConnectError

__all__ = ["CountedCall", "Ledger", "QuotaPolicy", "QuotaState"]

MOST_LEARNED: Final = 16
"""Policies that are learned; the service has 4."""

SILENT_REFUSALS_BEFORE_SLOWDOWN: Final = 12
"""Refusals in a row that say nothing, from where on the waits grow up to a minute."""

LONG: Final = 60.0
"""Seconds; where more is left of a window of the service's, it is one of an hour."""


class Ledger:
    """Counts the calls of one key, and tells how long the next one has to wait.

    Args:
        policies: what is known beforehand.
        source: who says so.
        official: the server is the service itself, the lengths of whose windows are known.
        reserve: the share of each window that imports leave to other calls, from 0 to below 1.
        retry: the waits after refusals that name no time.
        chance: gives numbers between 0 and 1, for the jitter of those waits.
    """

    def __init__(
        self,
        policies: Iterable[QuotaPolicy] = (),
        *,
        source: Source = "given",
        official: bool = False,
        reserve: float = 0.0,
        retry: Retry = Retry(),  # noqa: B008  # immutable
        chance: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._official = official
        self._reserve = reserve
        self._retry = retry
        self._chance = chance
        self._edge_opens = 0.0
        self._edge_refusals = 0
        self._edge_lesson = 0.0
        self._history = History()
        self._windows: dict[str, Window] = {}
        self._by_kind: dict[Kind, list[Window]] = {kind: [] for kind in KINDS}
        for policy in policies:
            name = f"{policy.name}: {', '.join(sorted(policy.kinds))}"
            if name in self._windows:
                raise ValueError(f"two quotas have the name {policy.name!r}, and are for the same calls")
            self._add(name, Window(policy.kinds, policy.limit, policy.window, source, policy.name))

    @classmethod
    def for_server(cls, base_url: str, policies: Iterable[QuotaPolicy] | None, **options: Any) -> Self:
        """Make the ledger for a server: documented limits are assumed of the official service alone."""
        official = base_url == BASE_URL
        if policies is not None:
            return cls(policies, official=official, **options)
        return cls(DOCUMENTED if official else (), source="documented", official=official, **options)

    def _add(self, name: str, window: Window) -> Window:
        self._windows[name] = window
        for kind in window.kinds:
            self._by_kind[kind].append(window)
        return window

    def _new(self, kinds: frozenset[Kind], limit: int | None, length: float | None, source: Source) -> Window:
        learned = [name for name, window in self._windows.items() if window.may_change]
        if len(learned) >= MOST_LEARNED:  # a server of many changes: the oldest is learned again, if need be
            oldest = self._windows.pop(learned[0])
            for kind in oldest.kinds:
                self._by_kind[kind].remove(oldest)
        numbers = itertools.count(len(self._windows))
        names = (f"{source} {number}: {', '.join(sorted(kinds))}" for number in numbers)
        name = next(name for name in names if name not in self._windows)
        return self._add(name, Window(kinds, limit, length, source))

    # Which call may go

    def wait(self, kind: Kind, now: float, *, live: bool = True, alone: bool = True) -> float:
        """Return the seconds until a call may go; 0 for at once. An import's calls are not `live`.

        Unless told otherwise, the first call through an opening is waited for too, which goes `alone`.
        """
        longest = max(0.0, self._edge_opens - now)
        reserve = 0.0 if live else self._reserve
        for window in self._by_kind[kind]:
            longest = max(longest, window.wait(now, reserve) if alone else window.shut(now, reserve))
            if not live:
                longest = max(longest, window.patient_until - now)
        return longest

    def blocking(self, kind: Kind, now: float, *, live: bool = True) -> QuotaState | None:
        """Return the policy that a call of this kind waits for the longest; None where it is no policy."""
        reserve = 0.0 if live else self._reserve
        waits = [(window.shut(now, reserve), window) for window in self._by_kind[kind]]
        longest, window = max(waits, key=lambda pair: pair[0], default=(0.0, None))
        return window.state(now, reserve) if window is not None and longest else None

    def spend(self, kind: Kind, now: float) -> CountedCall:
        """Count a call that is about to leave."""
        windows = self._by_kind[kind]
        for window in windows:
            window.spend(now)
        spend = CountedCall(kind, now, tuple([(window, window.opened_at) for window in windows]))
        self._history.begin(spend)
        return spend

    def give_back(self, spend: CountedCall) -> None:
        """Take back a call that never reached the server."""
        self._history.end(spend)
        for window, opened_at in spend.windows:
            if window.opened_at == opened_at:
                window.give_back()

    # What the answers teach

    def answered(self, spend: CountedCall, now: float, signs: RateLimitHeaders = NOTHING) -> None:
        """Learn from an answer that is no 429."""
        self._edge_refusals = 0
        self._history.end(spend, now - spend.sent)
        for window, opened_at in spend.windows:
            if window.opened_at == opened_at:
                window.passed(spend.sent, now)
        if signs.limit is not None and signs.remaining is not None and signs.left is not None:
            used = max(0, signs.limit - signs.remaining)
            self._announced(spend, now, signs.limit, used, now + signs.left)

    def failed(self, spend: CountedCall, error: BaseException) -> None:
        """Learn from a call without an answer: one that reached nobody has spent nothing."""
        self._history.end(spend)
        if isinstance(error, ConnectError):
            self.give_back(spend)
        else:
            for window, _ in spend.windows:
                window.alone_until = 0.0

    def refused(self, spend: CountedCall, now: float, signs: RateLimitHeaders) -> None:
        """Learn from a 429.

        One that says neither how many nor how long is not the service's own: it comes from the load balancer
        before it, and holds all calls back for a little while, which grows.
        """
        self._history.end(spend)
        if signs.left is None and signs.limit is None:
            self.give_back(spend)
            if spend.sent > self._edge_lesson:  # else several calls were refused at once: one lesson
                cap = LONG if self._edge_refusals >= SILENT_REFUSALS_BEFORE_SLOWDOWN else 0.0
                self._edge_opens = now + self._growing(self._edge_refusals, cap)
                self._edge_refusals += 1
                self._edge_lesson = now
            return
        ends = None if signs.left is None else spend.sent + signs.left
        window = self._blamed(spend, signs.limit, ends)
        for other, opened_at in spend.windows:
            if other is not window and other.opened_at == opened_at and other.whole and not other.answered:
                other.give_back()  # who refused it may have been asked first
        self._learn(window, now, signs.limit, ends)
        if spend.counts_in(window):
            window.used = max(0, window.used - 1)  # a refused call makes the window no longer
        self._shut(window, spend, now, signs.left)

    def _growing(self, refusals: int, cap: float = 0.0) -> float:
        longest = min(max(cap, self._retry.cap), self._retry.base * 2.0 ** min(refusals, 64))
        return jittered(longest, self._chance())

    def _blamed(self, spend: CountedCall, limit: int | None, ends: float | None) -> Window:
        """Find the window that a refusal is about; make one where it is about none that is known."""
        fitting = [window for window in self._by_kind[spend.kind] if window.fits(spend.sent, ends)]
        fitting.sort(key=lambda window: not window.ends_about(ends))
        known = _fitting_best(fitting, limit, ends)
        if known is not None:
            return known
        for window in self._windows.values():
            if self._is_shared(window, spend, limit, ends):
                return self._share(window, spend.kind)
        opener, length, kinds = self._guess(spend, limit, ends)
        for window in fitting:
            if window.may_change and length is not None and (window.length, window.kinds) == (length, kinds):
                return window  # its limit was changed
        window = self._new(kinds, limit, length, "learned")
        if opener is not None:
            window.anchor(*opener)
        return window

    def _is_shared(self, window: Window, spend: CountedCall, limit: int | None, ends: float | None) -> bool:
        """Whether a refusal shows that a window which other kinds of calls have used up is this kind's too.

        Not where more calls of them all than the limit went through: then they have windows of their own.
        """
        if limit is None or window.source != "learned" or not window.refused or window.limit != limit:
            return False
        if spend.kind in window.kinds or not window.ends_about(ends):
            return False
        opened_at = (window.ends or 0.0) - (window.length or LONGEST) - CLOCK_TOLERANCE
        opened_at = max(opened_at, window.opened_at or 0.0)
        return self._history.can_share(window.kinds | {spend.kind}, limit, opened_at)

    def _share(self, window: Window, kind: Kind) -> Window:
        window.kinds |= {kind}
        self._by_kind[kind].append(window)
        return window

    def _guess(
        self, spend: CountedCall, limit: int | None, ends: float | None
    ) -> tuple[tuple[float, float] | None, float | None, frozenset[Kind]]:
        """Tell who opened a window that was unknown then, how long it is, and which calls share it."""
        alone = frozenset({spend.kind})
        if ends is None:
            return None, None, alone
        groups = [kinds for kinds, _ in BACKEND if spend.kind in kinds and len(kinds) > 1]
        for kinds in (alone, *groups, KINDS):
            if opener := self._history.opener(kinds, limit, ends, spend.sent):
                return opener[:2], opener[2], kinds
        for kinds, length in BACKEND if self._official else ():
            if spend.kind in kinds and LONG < ends - spend.sent <= length:
                return None, length, kinds
        return None, None, alone

    def _learn(self, window: Window, now: float, limit: int | None, ends: float | None) -> None:
        """Keep what a refusal says about the policy."""
        alone = window.whole and window.answered and window.may_change  # nobody's calls but ours are in it
        window.limit = limit or window.limit or (window.answered if alone else None)
        if alone:
            window.measure(ends, now)
        window.believe(window.limit, now)

    def _shut(self, window: Window, spend: CountedCall, now: float, left: float | None) -> None:
        """Shut a window until the server opens it."""
        early = spend.counts_in(window) and window.came_early(spend.sent)
        if not window.will_end(now, None if left is None else spend.sent + left):
            if left:
                window.ends, window.whole = now + left, False
                if left.is_integer():
                    window.over_at = now + left + 1.0
                    window.patient_until = window.over_at if left >= LONG else 0.0
            elif left == 0 and now < window.over_at:
                window.ends, window.whole = window.over_at, False
            elif not window.refused or spend.sent >= (window.ends or 0.0):
                # It names no time, or less than a second: a short wait, which grows as long as that goes on.
                shortest = min(SHORTEST_WAIT, (window.length or LONG) / 50) if early else SHORTEST_WAIT
                within = min(shortest * 4.0 ** min(window.refusals, 9), 1.0)
                grown = within if left == 0 else self._growing(window.refusals, LONG)
                window.ends, window.whole = now + grown, False
                window.refusals += 1
        window.refused = True
        window.alone_until = 0.0

    def _announced(self, spend: CountedCall, now: float, limit: int, used: int, ends: float) -> None:
        """Take over what an answer says about the window that its call was counted in."""
        window = self._announcing(spend, limit, used, ends)
        if window.limit != limit:
            window.believe(limit, now)
        if (
            window.ends is None or ends > window.ends + 2 * CLOCK_TOLERANCE
        ):  # what we know is of an earlier one, if any
            window.refused = False
            window.used, window.told, window.answered = used, used, min(1, used)
            if used == 1:
                window.length = whole_length(ends - spend.sent, 1.0) or window.length
            if used == 1 and window.length is not None:
                window.anchor(spend.sent, now - spend.sent)
            else:
                window.opened_at, window.ends, window.whole = spend.sent, ends + 1.0, False
            self._count_what_is_out(window)
        elif ends < window.ends - 2 * CLOCK_TOLERANCE:
            window.ends, window.whole = ends, False
        if window in spend.guessed and spend.counts_in(window):
            window.used += max(0, used - window.told) - 1
        window.told = max(window.told, used)
        window.used = max(window.used, used)

    def _count_what_is_out(self, window: Window) -> None:
        """Count the calls on the wire in a window that became known while they were out.

        The answer that told of it may have counted some of them; their own answers put that right.
        """
        for spend in self._history.out(window.kinds):
            if not spend.counts_in(window):
                spend.count_in(window)
                window.used += 1

    def _announcing(self, spend: CountedCall, limit: int, used: int, ends: float) -> Window:
        """Find the window that an answer announces; make one where it is none that is known."""
        kind, covering = spend.kind, self._by_kind[spend.kind]
        for window in covering:
            shared = window.source == "announced" and len(window.kinds) > 1
            if window.limit == limit and shared and window.ends_about(ends) and used <= window.answered:
                if used > self._history.gone(window.kinds, window.opened_at or 0.0, spend.sent):
                    return window
                window.kinds -= {kind}  # fewer were counted than went through: it is another window
                covering.remove(window)
                return self._new(frozenset({kind}), limit, None, "announced")
        for window in sorted(covering, key=lambda window: window.limit != limit):
            stricter = window.source == "given" and limit > (window.limit or 0)  # it stays as it was given
            if window.limit == limit or (window.ends_about(ends) and not stricter):
                return window
        for window in self._windows.values():
            same = window.source == "announced" and window.limit == limit and window.ends_about(ends)
            # Two calls cannot both be, say, the third. And more must have been counted than went before it.
            same = same and used != window.told
            if same and used > self._history.gone(window.kinds, window.opened_at or 0.0, spend.sent):
                window.used += 1
                self._count_what_is_out(self._share(window, kind))
                return window
        return self._new(frozenset({kind}), limit, None, "announced")

    # What will be

    def states(self, now: float) -> tuple[QuotaState, ...]:
        """Return what is known of each policy."""
        return tuple([window.state(now) for window in self._windows.values()])

    def seconds_for(self, kind: Kind, calls: int, now: float, *, live: bool = False) -> float:
        """Return how long so many calls have to wait for windows, the last one of them."""
        reserve = 0.0 if live else self._reserve
        return seconds_for(self._by_kind[kind], calls, now, reserve)

    def capacity(self, kind: Kind, now: float, until: float) -> float:
        """Return how many calls of an import can go before a moment; infinite where no limit is known."""
        spaces = [window.capacity(now, until, self._reserve) for window in self._by_kind[kind]]
        return min([math.inf, *spaces])

    # Between processes

    def dump(self) -> dict[str, Any]:
        """Return what another process should know, as JSON."""
        windows = {name: window.dump() for name, window in self._windows.items()}
        return {"windows": windows, "edge": self._edge_opens}

    def load(self, kept: Mapping[str, Any], now: float, written: float = -math.inf) -> None:
        """Take over what another process knows, or an earlier one knew, and has `written` by its clock.

        What was written well after now was written by a clock that is ahead. And a window is believed to end
        within its length, whatever the clocks say. Raises ValueError, KeyError, TypeError, AttributeError or
        OverflowError for what is no dump, and then has taken over nothing.
        """
        slow = written - now if written > now + CLOCK_TOLERANCE else 0.0
        edge = min(float(kept["edge"]) - slow, now + self._retry.cap)
        if not math.isfinite(edge):
            raise ValueError("edge is no number")
        others = {str(name): Window.load(fields, now, slow) for name, fields in kept["windows"].items()}
        self._edge_opens = edge
        for name, other in others.items():
            if name in self._windows:
                self._windows[name].take_over(other)
                self._index(self._windows[name])
            elif other.may_change:
                self._add(name, other)

    def _index(self, window: Window) -> None:
        for kind, windows in self._by_kind.items():
            if kind in window.kinds and window not in windows:
                windows.append(window)
            elif kind not in window.kinds and window in windows:
                windows.remove(window)


def _fitting_best(windows: list[Window], limit: int | None, ends: float | None) -> Window | None:
    for window in windows:
        if limit is not None and window.limit == limit:
            return window
    for window in windows:
        unclear = limit is None or window.limit is None
        if window.may_change and (unclear or window.ends_about(ends)):
            return window
        if limit is None and window.used_up:
            return window
    return None
