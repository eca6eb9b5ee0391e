"""The ledger of quotas: which call may go now, and what the server's answers teach about the next ones.

Pure: `now` (epoch seconds) goes in, seconds to wait come out. A window is spent to its end in one burst, and
then waited for. What is not known is not assumed: a server that never refuses is never slowed down.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

import attrs

from omi_async._api.headers import NOTHING, RateLimitHeaders
from omi_async._api.messages import Kind
from omi_async._api.retry import Retry, jittered
from omi_async._quota.policy import BACKEND, DOCUMENTED, KINDS, QuotaPolicy, QuotaState, Rule, Source
from omi_async._quota.window import CLOCK_TOLERANCE, CountedCall, Window, usual_length
from omi_async.constants import BASE_URL
from omi_async.errors import ConnectError

__all__ = ["CountedCall", "Ledger", "QuotaPolicy", "QuotaState"]

MOST_LEARNED: Final = 16
"""Windows that are learned at most; the service has 4. A server whose limits change each hour would leave
another one each time, and all of them are asked before each call."""

CALLS_REMEMBERED: Final = 2000
"""Calls whose time is kept, to tell who opened a window that turns out to be shut. Of a higher limit the
length is not found out by that, which costs one refusal a window; a call takes some hundred bytes."""

SILENT_REFUSALS_BEFORE_SLOWDOWN: Final = 12
"""Refusals in a row that say nothing, from which on the waits grow up to a minute: a load balancer that goes
on like that counts each call against us."""

LONGEST_PAUSE: Final = 60.0
"""Seconds of the longest wait that is not named by the server; its balancer forgets in a minute (backend)."""

HEAD_START: Final = 1.0
"""Seconds that a probe has at most to come back alone. Without a bound, one slow call would hold up all
others of an open window; at 0, all of them come too early if one does."""


class Ledger:
    """Counts the calls of one key, and tells how long the next one has to wait.

    Args:
        policies: what is known beforehand.
        source: who says so.
        reserve: the share of each window that imports leave to other calls, from 0 to below 1.
        retry: the waits after refusals that name no time.
        chance: gives numbers between 0 and 1, for the jitter of those waits.

    Attributes:
        learned: whether there is something to tell other processes; whoever has told them sets it back.
    """

    def __init__(
        self,
        policies: Iterable[QuotaPolicy] = (),
        *,
        source: Source = "given",
        reserve: float = 0.0,
        retry: Retry = Retry(),  # noqa: B008  # immutable
        chance: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.learned = False
        self._reserve = reserve
        self._retry = retry
        self._chance = chance
        self._balancer = Balancer()
        self._out: dict[CountedCall, None] = {}  # on the wire, in the order in which they left
        self._passed: deque[CountedCall] = deque(maxlen=CALLS_REMEMBERED)
        self._windows: dict[Kind, list[Window]] = {kind: [] for kind in KINDS}
        self._all: list[Window] = []
        for policy in policies:
            rule = Rule(policy.kinds, policy.limit, policy.window, source, policy.name)
            if any(window.rule.key == rule.key for window in self._all):
                raise ValueError(f"two quotas have the name {policy.name!r}, and are for the same calls")
            self._add(Window(rule))

    @classmethod
    def for_server(cls, base_url: str, policies: Iterable[QuotaPolicy] | None, **options: Any) -> Self:
        """Make the ledger for a server: documented limits are assumed of the official service alone."""
        if policies is not None:
            return cls(policies, **options)
        return cls(DOCUMENTED if base_url == BASE_URL else (), source="documented", **options)

    def _add(self, window: Window) -> Window:
        learned = [other for other in self._all if other.rule.may_change]
        if window.rule.may_change and len(learned) >= MOST_LEARNED:
            self._drop(learned[0])  # the oldest is learned again if it still holds
        window.out = sum(call.kind in window.rule.kinds for call in self._out)
        self._all = [*self._all, window]  # another thread may be reading the old list
        for kind in window.rule.kinds:
            self._windows[kind].append(window)
        return window

    def _drop(self, window: Window) -> None:
        self._all = [other for other in self._all if other is not window]
        for kind in window.rule.kinds:
            self._windows[kind].remove(window)

    # Which call may go

    def _reserve_of(self, *, live: bool) -> float:
        return 0.0 if live else self._reserve

    def wait(self, kind: Kind, now: float, *, live: bool = True) -> float:
        """Return the seconds until a call may go; 0 for at once. An import's calls are not `live`."""
        reserve = self._reserve_of(live=live)
        waits = [window.wait(now, reserve) for window in self._windows[kind]]
        return max([0.0, self._balancer.opens_at - now, *waits])

    def blocking(self, kind: Kind, now: float, *, live: bool = True) -> QuotaState | None:
        """Return the policy that a call of this kind waits for the longest; None if it is no policy."""
        reserve = self._reserve_of(live=live)
        waits = [(window.wait(now, reserve), window) for window in self._windows[kind]]
        longest, window = max(waits, key=lambda pair: pair[0], default=(0.0, None))
        return window.to_state(now, reserve) if window is not None and longest else None

    def head_start(self, kind: Kind) -> float:
        """Return the seconds in which a probe has to come back: a share of its window that nobody notices."""
        lengths = [window.rule.length for window in self._windows[kind] if window.rule.length]
        return min([HEAD_START, *[length / 100 for length in lengths]])

    def spend(self, kind: Kind, now: float) -> CountedCall:
        """Count a call that is about to leave."""
        call = CountedCall(kind, now)
        self._out[call] = None
        for window in self._windows[kind]:
            window.spend(now)
        return call

    def give_back(self, call: CountedCall) -> None:
        """Take back a call that never reached the server."""
        if self._ended(call):
            for window in self._windows[call.kind]:
                window.give_back(call)

    def _ended(self, call: CountedCall) -> bool:
        """Note that a call is on the wire no more; whether it was: only the first of its ends counts."""
        was_out = call in self._out
        self._out.pop(call, None)
        return was_out

    # What the answers teach

    def failed(self, call: CountedCall, error: BaseException) -> None:
        """Learn from a call without an answer. Unless it reached no server, it may have been counted."""
        if isinstance(error, ConnectError):
            self.give_back(call)
        elif self._ended(call):
            for window in self._windows[call.kind]:
                window.passed(call)

    def answered(self, call: CountedCall, now: float, headers: RateLimitHeaders = NOTHING) -> None:
        """Learn from an answer that is no 429."""
        if call not in self._out:
            return
        call.took = now - call.sent
        self._passed.append(call)
        self._balancer.refusals = 0
        told, announcing = 0, None
        if headers.limit is not None and headers.remaining is not None and headers.left is not None:
            told, ends = max(0, headers.limit - headers.remaining), now + headers.left
            announcing = self._announcing(call.kind, headers.limit, ends)
            announcing.announced(call, told, ends)
        self._ended(call)  # not before: a window that was made just now has counted it as on the wire
        for window in self._windows[call.kind]:
            window.passed(call, told=told if window is announcing else None)

    def _announcing(self, kind: Kind, limit: int, ends: float) -> Window:
        """Find the window that an answer announces; make one if it is none that is known.

        A new one is for this kind of call alone: each answer says how many calls were counted, of whatever
        kind, but not whose.
        """
        covering = self._windows[kind]
        for window in covering:
            if window.rule.limit == limit:
                return window
        for window in covering:
            # A limit that the user gave stays: who is stricter than the server has a reason.
            if window.rule.source == "announced" and window.ends_about(ends):
                window.rule = attrs.evolve(window.rule, limit=limit)
                return window
        self.learned = True
        return self._add(Window(Rule(frozenset({kind}), limit, None, "announced")))

    def refused(self, call: CountedCall, now: float, headers: RateLimitHeaders) -> None:
        """Learn from a 429. A refused call opens no window and makes none longer."""
        if not self._ended(call):
            return
        early = [window for window in self._windows[call.kind] if window.give_back(call)]
        if headers.left is None and headers.limit is None:
            # It names neither how many nor how long, so it is not the service's own but its load balancer's.
            self._balancer.refused(call, now, self._balancer_pause())
            return
        self.learned = True
        ends = None if headers.left is None else call.sent + headers.left
        window, opener = self._blamed(call, headers.limit, ends)
        window.shut(
            call,
            now,
            headers.left,
            limit=headers.limit,
            opener=opener,
            early=window in early,
            pause=self._pause(window.short_waits, LONGEST_PAUSE),
        )

    def _balancer_pause(self) -> float:
        refusals = self._balancer.refusals
        patient = refusals >= SILENT_REFUSALS_BEFORE_SLOWDOWN
        return self._pause(refusals, LONGEST_PAUSE if patient else self._retry.cap)

    def _pause(self, refusals: int, cap: float) -> float:
        """Return the seconds to wait after so many refusals in a row that named no time, with jitter."""
        longest = min(max(cap, self._retry.cap), self._retry.base * 2.0 ** min(refusals, 64))
        return jittered(longest, self._chance())

    def _blamed(
        self, call: CountedCall, limit: int | None, ends: float | None
    ) -> tuple[Window, CountedCall | None]:
        """Find the window that a refusal is about, and who opened it; make one if none is known."""
        known = self._known(call, limit, ends)
        if known is not None:
            return known, self._opener(known.rule.kinds, limit or known.rule.limit, ends, call.sent)
        kinds, length, opener = self._recognised(call, limit, ends)
        for window in self._windows[call.kind]:
            same = window.rule.kinds == kinds and window.rule.length == length and window.rule.may_change
            if same and length is not None:
                return window, opener  # its limit was changed
        return self._add(Window(Rule(kinds, limit, None, "learned"))), opener

    def _known(self, call: CountedCall, limit: int | None, ends: float | None) -> Window | None:
        """Find the known window that a refusal fits best: by limit, by end, by what else is unknown."""
        fitting = [
            window
            for window in self._windows[call.kind]
            if window.rule.length is None
            or ends is None
            or ends - call.sent <= window.rule.length + CLOCK_TOLERANCE
        ]
        by_limit = [window for window in fitting if limit is not None and window.rule.limit == limit]
        changed = [window for window in fitting if window.rule.may_change and window.ends_about(ends)]
        vague = [
            window
            for window in fitting
            if (window.rule.may_change and (limit is None or window.rule.limit is None))
            or (limit is None and window.used + 1 > window.share())
        ]
        # Two policies of one size: the one that ends when the server says.
        by_limit.sort(key=lambda window: not window.ends_about(ends))
        return next(iter([*by_limit, *changed, *vague]), None)

    def _recognised(
        self, call: CountedCall, limit: int | None, ends: float | None
    ) -> tuple[frozenset[Kind], float | None, CountedCall | None]:
        """Return which calls an unknown window counts, how long it is, and who opened it.

        That is the shortest of the service's that it can be, unless our own calls show how long it is. A wait
        that is for too few kinds costs a refused call; one for too many costs an hour.
        """
        left = 0.0 if ends is None else ends - call.sent
        fitting = [pair for pair in BACKEND if call.kind in pair[0] and left <= pair[1] + CLOCK_TOLERANCE]
        for kinds, length in fitting:
            opener = self._opener(kinds, limit, ends, call.sent)
            if opener is not None and ends is not None and usual_length(ends - opener.sent) == length:
                return kinds, length, opener
        kinds = fitting[0][0] if fitting else frozenset({call.kind})
        opener = self._opener(kinds, limit, ends, call.sent)
        return kinds, usual_length(ends - opener.sent) if opener is not None and ends else None, opener

    def _opener(
        self, kinds: frozenset[Kind], limit: int | None, ends: float | None, refused: float
    ) -> CountedCall | None:
        """Return the call that opened a window that is used up: the limit-th last that went through.

        If too few answers are there yet, those that left before the refused call will have gone through, too.
        """
        if not limit or ends is None:
            return None
        passed = [call for call in self._passed if call.kind in kinds]
        if len(passed) < limit:
            passed += [call for call in self._out if call.kind in kinds and call.sent <= refused]
        if len(passed) < limit:
            return None
        return sorted(passed, key=lambda call: call.sent)[-limit]

    # What will be

    def states(self, now: float) -> tuple[QuotaState, ...]:
        """Return what is known of each policy. Any thread may ask."""
        return tuple([window.to_state(now) for window in self._all])

    def seconds_for(self, kind: Kind, calls: int, now: float, *, live: bool = False) -> float:
        """Return how long so many calls have to wait for windows, the last one of them.

        The tightest window decides when its last opening comes; the calls after that have the other windows
        before them. That is exact if short windows lie within long ones, and an estimate otherwise.
        """
        reserve = self._reserve_of(live=live)
        windows = self._windows[kind]
        if not windows or calls < 1:
            return 0.0
        waits = [window.seconds_for(calls, now, reserve) for window in windows]
        wait, rest = max(waits)
        if wait:
            fresh = [Window(window.rule).seconds_for(rest, now, reserve)[0] for window in windows]
            wait += max(fresh)
        return wait

    def capacity(self, kind: Kind, now: float, until: float) -> float:
        """Return how many calls of an import can go before a moment; infinite if no limit is known."""
        spaces = [window.capacity(now, until, self._reserve) for window in self._windows[kind]]
        return min([math.inf, *spaces])

    # Between processes

    def dump(self) -> dict[str, Any]:
        """Return what another process should know, as JSON: each window by what tells it from the others."""
        return {window.rule.key: window.dump() for window in self._all if window.is_news}

    def load(self, kept: Mapping[str, Any], now: float) -> None:
        """Take over what another process knows, or an earlier one knew.

        A policy that was given keeps its numbers, and one that is given no longer is left out. Raises
        ValueError, KeyError, TypeError, AttributeError or OverflowError for what is no dump; nothing is taken
        over then.
        """
        others = [Window.load(fields, now) for fields in kept.values()]
        for other in others:
            mine = next((window for window in self._all if window.rule.key == other.rule.key), None)
            if mine is None and other.rule.may_change and other.is_news:
                self._add(other)
            elif mine is not None:
                mine.rule = other.rule if mine.rule.may_change else mine.rule
                mine.state, mine.opened_at, mine.ends = other.state, other.opened_at, other.ends
                mine.counted, mine.refused_at = other.counted, other.refused_at


@attrs.define
class Balancer:
    """The load balancer before the service, which refuses without a word; it holds all kinds of calls back.

    Attributes:
        opens_at: when calls may go again.
        refusals: those in a row.
        learned_at: when the last one was learned from.
    """

    opens_at: float = 0.0
    refusals: int = 0
    learned_at: float = 0.0

    def refused(self, call: CountedCall, now: float, pause: float) -> None:
        """Hold calls back for so many seconds. Several that were refused together are one lesson."""
        if call.sent > self.learned_at:
            self.opens_at = now + pause
            self.refusals += 1
            self.learned_at = now
