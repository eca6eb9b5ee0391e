"""The ledger of quotas: which call may go now, and what the server's answers teach about the next ones.

Pure: `now` (epoch seconds) goes in, seconds to wait come out. A window is spent to its end in one burst, and
then waited for. What is not known is not assumed: a server that never refuses is never slowed down.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

import attrs

from omi_async._api.headers import NOTHING, RateLimitHeaders
from omi_async._api.messages import Kind
from omi_async._api.retry import Retry, jittered
from omi_async._quota.balancer import Balancer
from omi_async._quota.kept import dump_window, load_window
from omi_async._quota.known import Known, Probe
from omi_async._quota.policy import BACKEND, DOCUMENTED, UNKNOWN, QuotaPolicy, QuotaState, Rule, Source
from omi_async._quota.window import CLOCK_TOLERANCE, CountedCall, Refusal, Window
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

LONGEST_CALL: Final = 300.0
"""Seconds after which a call of another process counts as passed: that process may have died with it. With
less, one that is slow and is refused after all would teach nothing; with more, each such death would cost a
call of the windows that open meanwhile."""

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
        self._out: set[CountedCall] = set()  # on the wire
        self._calls: deque[CountedCall] = deque(maxlen=CALLS_REMEMBERED)  # those, and what went through
        self._windows: tuple[Window, ...] = ()  # replaced and never changed: other threads may read it
        self._by_kind: dict[Kind, tuple[Window, ...]] = {}  # the same, found before
        self._probes: dict[Kind, Probe] = {}
        self._given: dict[str, Rule] = {}
        for policy in policies:
            rule = Rule(policy.kinds, policy.limit, policy.window, source, policy.name)
            if rule.key in self._given:
                raise ValueError(f"two quotas have the name {policy.name!r}, and are for the same calls")
            self._given[rule.key] = rule
            self._add(Window(rule))

    @classmethod
    def for_server(cls, base_url: str, policies: Iterable[QuotaPolicy] | None, **options: Any) -> Self:
        """Make the ledger for a server: documented limits are assumed of the official service alone."""
        if policies is not None:
            return cls(policies, **options)
        return cls(DOCUMENTED if base_url == BASE_URL else (), source="documented", **options)

    def _of(self, kind: Kind) -> tuple[Window, ...]:
        if kind not in self._by_kind:
            self._by_kind[kind] = tuple([window for window in self._windows if kind in window.rule.kinds])
        return self._by_kind[kind]

    def _replace(self, windows: Iterable[Window]) -> None:
        self._windows, self._by_kind = tuple(windows), {}

    def _by_key(self, key: str) -> Window | None:
        return next((window for window in self._windows if window.rule.key == key), None)

    def _add(self, window: Window) -> Window:
        window.out = sum(call.kind in window.rule.kinds for call in self._out)
        learned = [other for other in self._windows if other.rule.may_change]
        forgotten = learned[: 1 - MOST_LEARNED]  # the oldest are learned again if they still hold
        self._replace([*[other for other in self._windows if other not in forgotten], window])
        return window

    # Which call may go

    def wait(self, kind: Kind, now: float, *, live: bool = True) -> float:
        """Return the seconds until a call may go; 0 for at once. An import's calls are not `live`."""
        reserve = 0.0 if live else self._reserve
        wait = max(0.0, self._balancer.opens_at - now)
        for window in self._of(kind):
            wait = max(wait, window.wait(now, reserve))
        return wait

    def blocking(self, kind: Kind, now: float, *, live: bool = True) -> QuotaState | None:
        """Return the policy that a call of this kind waits for the longest; None if it is no policy."""
        reserve = 0.0 if live else self._reserve
        waiting = [window for window in self._of(kind) if window.wait(now, reserve)]
        longest = max(waiting, key=lambda window: window.wait(now, reserve), default=None)
        return None if longest is None else longest.to_state(now, reserve)

    def head_start(self, kind: Kind) -> float:
        """Return the seconds in which a probe has to come back: too small a share of its window to notice."""
        lengths = [window.rule.length for window in self._of(kind) if window.rule.length > UNKNOWN]
        return min([HEAD_START, *[length / 100 for length in lengths]])

    def head_start_left(self, kind: Kind, now: float) -> float:
        """Return the seconds in which the calls of a kind are to wait for a probe; 0 if none is out."""
        probe = self._probes.get(kind)
        return 0.0 if probe is None else max(0.0, probe.until - now)

    def spend(self, kind: Kind, now: float, *, probe: bool = False) -> CountedCall:
        """Count a call that is about to leave; the others of its kind wait for a probe, for a while."""
        call = CountedCall(kind, now)
        self.count(call)
        if probe:
            self._probes[kind] = Probe(call, now + self.head_start(kind))
        return call

    def count(self, call: CountedCall) -> None:
        """Count a call that has left."""
        self._out.add(call)
        self._calls.append(call)
        for window in self._of(call.kind):
            window.spend(call)

    def give_back(self, call: CountedCall) -> None:
        """Take back a call that the server has not counted."""
        self._take_back(call)

    def _take_back(self, call: CountedCall) -> list[Window]:
        """Take back a call; return the windows that it was to open."""
        if call not in self._out:
            return []  # only the first of its ends counts
        self._is_back(call)
        with suppress(ValueError):  # it is so old that it is forgotten
            self._calls.remove(call)
        return [window for window in self._of(call.kind) if window.give_back(call)]

    def _is_back(self, call: CountedCall) -> None:
        self._out.remove(call)
        if self._probes:
            probe = self._probes.get(call.kind)
            if probe is not None and probe.call is call:
                del self._probes[call.kind]

    # What the answers teach

    def failed(self, call: CountedCall, error: BaseException) -> None:
        """Learn from a call without an answer. Unless it reached no server, it may have been counted."""
        if isinstance(error, ConnectError):
            self._take_back(call)
        elif call in self._out:
            self._passed(call)

    def _passed(self, call: CountedCall, announcing: Window | None = None) -> None:
        self._is_back(call)
        for window in self._of(call.kind):
            if window is not announcing:
                window.passed(call)

    def answered(self, call: CountedCall, now: float, headers: RateLimitHeaders = NOTHING) -> None:
        """Learn from an answer that is no 429."""
        if call not in self._out:
            return
        call.took = now - call.sent
        self._balancer.refusals = 0
        announcing = None
        if headers.limit is not None and headers.remaining is not None and headers.left is not None:
            end = now + headers.left
            announcing = self._announcing(call.kind, headers.limit, end)
            announcing.announced(call, max(0, headers.limit - headers.remaining), end)
        self._passed(call, announcing)  # not before: a window that is new has counted it as on the wire

    def _announcing(self, kind: Kind, limit: int, end: float) -> Window:
        """Find the window that an answer announces; make one if it is none that is known.

        A new one is for this kind of call alone: each answer says how many calls were counted, of whatever
        kind, but not of which.
        """
        for window in self._of(kind):
            if window.rule.limit == limit:
                return window
            # A limit that the user gave stays: who is stricter than the server has a reason.
            if window.rule.source == "announced" and window.ends_about(end):
                window.rule = attrs.evolve(window.rule, limit=limit)
                return window
        self.learned = True
        return self._add(Window(Rule(frozenset({kind}), limit, UNKNOWN, "announced")))

    def refused(self, call: CountedCall, now: float, headers: RateLimitHeaders) -> None:
        """Learn from a 429. A refused call opens no window and makes none longer."""
        if call not in self._out:
            return
        early = self._take_back(call)
        if headers.left is None and headers.limit is None:
            # It names neither how many nor how long, so it is not the service's own but its load balancer's.
            patient = self._balancer.refusals >= SILENT_REFUSALS_BEFORE_SLOWDOWN
            cap = LONGEST_PAUSE if patient else self._retry.cap
            self._balancer.refused(call, now, self._pause(self._balancer.refusals, cap))
            return
        self.learned = True
        refusal = Refusal(call, now, headers.limit, headers.left)
        window = self._blamed(refusal)
        pause = self._pause(window.short_waits, LONGEST_PAUSE)
        window.refuse(refusal, self._nth_last(window, refusal), early=window in early, pause=pause)
        # What is the same policy by now is so with another limit: the server has changed it.
        key = window.rule.key
        self._replace([it for it in self._windows if it is window or it.rule.key != key])

    def _blamed(self, refusal: Refusal) -> Window:
        """Find the window that a refusal is about; make one if none is known.

        A new one is for the calls of the service's shortest window that can have so much left. A wait that is
        for too few kinds costs a refused call; one for too many may cost an hour.
        """
        kind = refusal.call.kind
        best = max(self._of(kind), key=lambda window: window.match(refusal), default=None)
        if best is not None and any(best.match(refusal)):
            return best
        left = refusal.left or 0.0
        sharing = (kinds for kinds, length in BACKEND if kind in kinds and left <= length + CLOCK_TOLERANCE)
        return self._add(Window(Rule(next(sharing, frozenset({kind})), math.inf, UNKNOWN, "learned")))

    def _nth_last(self, window: Window, refusal: Refusal) -> CountedCall | None:
        """Return our call with which a window must have begun that is used up now.

        That is the limit-th last one, with those that are still out: they left before, and will have gone
        through.
        """
        limit = refusal.limit or window.rule.limit
        kinds, latest = window.rule.kinds, refusal.call.sent
        calls = [call for call in self._calls if call.kind in kinds and call.sent <= latest]
        return calls[-int(limit)] if limit <= len(calls) else None

    def _pause(self, refusals: int, cap: float) -> float:
        """Return the seconds to wait after so many refusals in a row that named no time, with jitter."""
        longest = min(max(cap, self._retry.cap), self._retry.base * 2.0 ** min(refusals, 64))
        return jittered(longest, self._chance())

    # What will be

    def states(self, now: float) -> tuple[QuotaState, ...]:
        """Return what is known of each policy. Any thread may ask."""
        return tuple([window.to_state(now) for window in self._windows])

    def seconds_for(self, kind: Kind, calls: int, now: float, *, live: bool = False) -> float:
        """Return how long so many calls have to wait for windows, the last one of them.

        After the last opening of each window, the calls that are left then have at least the others before
        them, each of them fresh. The longest of these waits is exact if short windows lie within long ones,
        and an estimate otherwise.
        """
        reserve = 0.0 if live else self._reserve
        longest = 0.0
        for window in self._of(kind):
            wait, rest = window.seconds_for(calls, now, reserve)
            fresh = [Window(other.rule).seconds_for(rest, now, reserve)[0] for other in self._of(kind)]
            longest = max(longest, wait + max(fresh) if wait else 0.0)
        return longest

    def capacity(self, kind: Kind, now: float, until: float) -> float:
        """Return how many calls of an import can go before a moment; infinite if no limit is known."""
        return min([math.inf, *[window.capacity(now, until, self._reserve) for window in self._of(kind)]])

    # Between processes

    def dump(self) -> dict[str, Any]:
        """Return what another process should know, as JSON: each window by what tells it from the others."""
        return {window.rule.key: dump_window(window) for window in self._windows if window.is_news}

    def load(self, kept: Mapping[str, Any], now: float) -> None:
        """Take over what another process knows, or an earlier one knew.

        A policy that was given keeps its numbers, and one that is given no longer is left out. Raises
        ValueError, TypeError or AttributeError for what is no dump; nothing is taken over then.
        """
        for other in [load_window(fields, now) for fields in kept.values()]:
            mine = self._by_key(other.rule.key)
            if mine is not None:
                mine.take_over(other)
            elif other.rule.may_change and other.is_news:
                self._add(other)

    # Over a store that several processes share

    def known(self) -> Known:
        """Return all that this ledger knows: its own objects, to be written down at once."""
        return Known(self._windows, self._calls, self._out, self._probes, self._balancer)

    def become(self, known: Known) -> None:
        """Know what another process knew, and nothing else; what was given here keeps its numbers."""
        missing = dict(self._given)
        for window in known.windows:
            window.rule = missing.pop(window.rule.key, window.rule)
        self._replace([*known.windows, *[Window(rule) for rule in missing.values()]])
        self._calls = deque(known.calls, CALLS_REMEMBERED)
        self._out, self._probes, self._balancer = set(known.out), dict(known.probes), known.balancer
        for window in self._windows:
            window.out = sum(call.kind in window.rule.kinds for call in self._out)

    def shift(self, seconds: float) -> None:
        """Tell all moments by a clock that was turned by so much."""
        openers = [window.opener for window in self._windows if window.opener is not None]
        for call in {*self._calls, *self._out, *openers}:
            call.sent += seconds
        for window in self._windows:
            window.until += seconds
            window.refused_at += seconds
        self._probes.clear()  # whoever waits for one waits a second at most
        self._balancer.opens_at += seconds
        self._balancer.learned_at += seconds

    def tidy(self, now: float, owner: str) -> None:
        """Settle what other processes have left behind, for they may have died.

        A call of theirs that is out for longer than one takes, or than its window is long, counts as passed.
        A policy that was given to them alone binds here too, but only until its window ends: what nobody is
        given any more must not go on for ever. The ids of our own calls begin with `owner`.
        """
        for call in [call for call in self._out if not call.id.startswith(owner)]:
            lengths = [window.rule.length for window in self._of(call.kind) if window.rule.length > UNKNOWN]
            if now - call.sent >= min([LONGEST_CALL, *lengths]):
                self._passed(call)
        for window in self._windows:
            if window.opener is not None and window.opener.sent > now + CLOCK_TOLERANCE:
                window.close()  # the store's clock was set back: nobody is to wait until it is there again
        stay = [window for window in self._windows if window.ends > now or self._is_ours(window.rule)]
        if len(stay) < len(self._windows):
            self._replace(stay)

    def _is_ours(self, rule: Rule) -> bool:
        return rule.may_change or rule.key in self._given
