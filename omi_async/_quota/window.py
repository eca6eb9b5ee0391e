"""One fixed window of the server's, as far as it is known here: closed, open or shut.

```text
  closed     open                               shut                       closed
 ---------|--------------------------------|--------------------------|-----------------> t
          opener:                          used up,                   ends: from here on
          a call leaves                    or a call was refused      a call opens the next
          |--------|
            took: somewhere in it the server opens its window
          |----------------- length + margin(took) ------------------|
                                           |--- wait(): none goes ---|
```

*closed*: no window is open, or none that is known. The next call opens one.
*open*: calls go until as many are `used` as the limit allows; without a limit, or an end, they always go.
*shut*: the server has refused a call. None goes before the end; what is learned meanwhile does not reopen it.

An unknown moment or length is minus infinity: that is over already, so nothing waits for it. An unknown limit
is infinity: it is never reached. Pure: every moment is an argument, in epoch seconds of the client's clock;
the server's clock is never asked.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.policy import UNITS, UNKNOWN, QuotaState, Rule

__all__ = ["CLOCK_TOLERANCE", "CountedCall", "Refusal", "State", "Window", "or_none", "usual_length"]

CLOCK_TOLERANCE: Final = 1.5
"""Seconds by which two accounts of one moment may differ. `Retry-After` has whole seconds, rounded down, and
the call was half a second on its way; with less, each refusal would look like one of another window."""

LONGEST_MARGIN: Final = 1.0
"""Seconds to wait at most for an opener that is slow: it may have reached the server late. With more, a batch
that took a minute would cost a minute of each window; with none, the first call of each comes too early."""

RETEST_AFTER_WINDOWS: Final = 24
"""Windows after which one call more than a learned limit goes: it may have been raised, which no answer says.
At 1 each window would cost a refusal; forever would leave an import at a limit that is gone."""

SHORTEST_RETEST: Final = 3600.0
"""Seconds before such a test: 24 windows of a second are no time in which a limit is raised."""

ROUNDING_MATTERS: Final = 60.0
"""Seconds of a window from which a whole second is waited for if a call came within the one that was rounded
away. Below, short waits that grow find the opening sooner; above, they would only be refused more often."""

SHORTEST_WAIT: Final = 0.05
"""Seconds of the first wait after a refusal with less than a second left; each further one is 4 times as
long. The first three together are one second, which is what was rounded away."""


class State(StrEnum):
    """Whether calls may go: yes; yes until the limit; no."""

    CLOSED = "closed"
    OPEN = "open"
    SHUT = "shut"


@attrs.define(eq=False)
class CountedCall:
    """A call that has left.

    Attributes:
        kind: whose windows count it.
        sent: when it was about to leave.
        took: seconds until its answer; infinite while it is on the wire.
        id: what tells it from others in a store that processes share; empty if there is none.
    """

    kind: Kind
    sent: float
    took: float = math.inf
    id: str = ""


@attrs.frozen
class Refusal:
    """A 429 of the service's own.

    Attributes:
        call: the refused one.
        now: when it was learned.
        limit: calls in one window; None if the server does not say.
        left: seconds of the window that are left; None if the server does not say.
    """

    call: CountedCall
    now: float
    limit: int | None
    left: float | None

    @property
    def end(self) -> float:
        """The end of the window at the earliest, by the server's word."""
        return UNKNOWN if self.left is None else self.call.sent + self.left


def usual_length(seconds: float, error: float = 0.0) -> float | None:
    """Return the usual length of a window of which so much was left at its opening; None for no usual one.

    `error` is by how much it may be too long, beside what is rounded away.
    """
    for unit in UNITS:
        if unit - CLOCK_TOLERANCE <= seconds <= unit + max(error, min(CLOCK_TOLERANCE, unit / 40)):
            return unit
    return None


@attrs.define(eq=False)
class Window:
    """What is believed of a policy, and the window of it that is open.

    Attributes:
        rule: its limit and length, and the kinds of calls that it counts.
        state: closed, open or shut.
        opener: our call that opened it; None if another program did, or it is unknown.
        until: when it ends by the server's word; what we know by our opener is finer, and goes first.
        counted: calls that the server has counted in it, as far as it is known.
        out: calls on the wire that it may count yet.
        refused_at: when a refusal was last learned from.
        short_waits: refusals in a row that named no time worth waiting for.
    """

    rule: Rule
    state: State = State.CLOSED
    opener: CountedCall | None = None
    until: float = UNKNOWN
    counted: int = 0
    out: int = 0
    refused_at: float = UNKNOWN
    short_waits: int = 0

    # When

    @property
    def opened_at(self) -> float:
        """When it was opened, so that calls that left earlier were counted in another one."""
        if self.state is State.CLOSED:
            return math.inf
        return UNKNOWN if self.opener is None else self.opener.sent

    @property
    def ends(self) -> float:
        """When it ends."""
        return max(self.until, self._end_by(self.opener))

    def _end_by(self, opener: CountedCall | None) -> float:
        """Return when a window ends that a call has opened.

        The server may have opened it at any moment until the answer. To wait for all of that is right for a
        call of milliseconds; of a slow one a hundredth of the length has to do, too small a share of
        the time to notice. Some milliseconds more are for clocks that do not tick alike.
        """
        if opener is None:
            return UNKNOWN
        length = self.rule.length
        return (
            opener.sent + length + min(opener.took, length / 100, LONGEST_MARGIN) + min(0.005, length / 200)
        )

    # May a call go?

    @property
    def used(self) -> int:
        """Calls spent. Those on the wire may be counted already: to count them twice only delays a call."""
        return self.counted + self.out

    def share(self, reserve: float = 0.0, more: int = 0) -> float:
        """Return the calls of one window for those who leave a share of it to others; at least 1."""
        limit = self.rule.limit + more
        return limit if limit == math.inf else max(1, limit - math.ceil(limit * reserve))

    def wait(self, now: float, reserve: float = 0.0) -> float:
        """Return the seconds until a call may go; 0 for at once."""
        spent = self.used >= self.share(reserve, more=self._in_doubt(now))
        return max(0.0, self.ends - now) if spent or self.state is State.SHUT else 0.0

    def _in_doubt(self, now: float) -> bool:
        """Whether the limit is so old that one call more is to tell if it was raised.

        Not in the second half: there a slow call might be counted in the next window, and prove nothing.
        """
        patience = max(RETEST_AFTER_WINDOWS * self.rule.length, SHORTEST_RETEST)
        first_half = now - self.opened_at < self.rule.length / 2
        return first_half and self.rule.source == "learned" and self.refused_at + patience < self.opened_at

    def spend(self, call: CountedCall) -> None:
        """Count a call that is about to leave; the first one opens the window."""
        if UNKNOWN < self.ends <= call.sent:
            self.close()
        if self.state is State.CLOSED:
            self.state, self.opener = State.OPEN, call
        self.out += 1

    def close(self) -> None:
        """Forget the open window, and keep what is believed of the policy."""
        self.state, self.opener, self.until, self.counted = State.CLOSED, None, UNKNOWN, 0

    # What the calls tell

    def give_back(self, call: CountedCall) -> bool:
        """Take back a call that the server has not counted; return whether it was to open the window.

        A window that nothing but this call has opened is not open.
        """
        self.out -= 1
        opener = self.opener is call
        if opener and not self.used:
            self.close()
        return opener

    def passed(self, call: CountedCall) -> None:
        """Note that the server let a call through."""
        self.out -= 1
        self.short_waits = 0
        if call.sent >= self.opened_at:
            self.counted += 1
        if self.counted > self.rule.limit and self.rule.may_change:
            # It was out with a refused one, so the limit is higher by that; or the limit was raised, and only
            # the next refusal will say to what.
            limit = self.counted if self.state is State.SHUT else math.inf
            self.rule = attrs.evolve(self.rule, limit=limit)

    def announced(self, call: CountedCall, counted: int, end: float) -> None:
        """Take over what the answer to a call says: how many were counted by then, and when it ends."""
        self.out -= 1
        if not self.ends_about(end):  # what is known is of another window, or of one that others had opened
            self.state, self.opener, self.until, self.counted = State.OPEN, None, end + 1.0, 0
        length = usual_length(end - call.sent, 1.0)
        if counted == 1 and length is not None and self.opener is None:
            self._measure(call, length)  # this call has opened it, so its end tells the length
        # Answers come out of order: what the third says of 3 calls holds after the second has said 2.
        self.counted = max(self.counted, counted)

    def ends_about(self, moment: float) -> bool:
        """Whether the open window ends at this moment, as far as whole seconds can tell."""
        return abs(self.ends - moment) <= 1.0 + CLOCK_TOLERANCE

    # What a refusal tells

    def match(self, refusal: Refusal) -> tuple[bool, bool, bool]:
        """Return how well a refusal fits: by the limit that it names, by its end, by what is unknown."""
        if UNKNOWN < self.rule.length < refusal.end - refusal.call.sent - CLOCK_TOLERANCE:
            return False, False, False  # more is left of it than this is long
        unsaid = refusal.limit is None
        changeable = self.rule.may_change or unsaid  # a limit that the user gave stays what it is
        unclear = unsaid or self.rule.limit == math.inf
        return (
            refusal.limit == self.rule.limit,
            changeable and self.ends_about(refusal.end),
            changeable and unclear,
        )

    def refuse(self, refusal: Refusal, nth_last: CountedCall | None, *, early: bool, pause: float) -> None:
        """Learn from a refusal, and let none go until the server's window ends.

        Args:
            refusal: what the server says.
            nth_last: of our calls, the one before which as many left as one window takes.
            early: the call was to open the window: by the server's account the last one goes on.
            pause: seconds to wait if the server names no time.
        """
        if self.rule.may_change:
            # What one window that we opened let through is its limit, if the server keeps that to itself.
            seen = self.counted if self.opener is not None else 0
            limit = refusal.limit or or_none(self.rule.limit) or seen or math.inf
            self.rule = attrs.evolve(self.rule, limit=limit)
        if early:
            self.opener = None
        # What the calls show goes before our account: a window may have come and gone unseen while its length
        # was unknown. If they show nothing, the account may: the server also counts what another one refuses.
        for opener in filter(None, (nth_last, self.opener)):
            length = self._length_by(opener, refusal)
            if length is not None:
                self._measure(opener, length)
                break
        self._shut(refusal, early=early, pause=pause)

    def _length_by(self, opener: CountedCall, refusal: Refusal) -> float | None:
        """Return how long the window is that a call has opened, if that can be told.

        An unusual length is believed only of a window that we saw closed before and have filled, and in its
        first half: calls of others, or another window in between, would make it look longer.
        """
        seconds = refusal.end - opener.sent
        full = opener is self.opener and self.used + 1 >= self.rule.limit
        unusual = full and refusal.now - opener.sent <= seconds / 2
        known = self.rule.length > UNKNOWN
        return usual_length(seconds) or (float(math.ceil(seconds)) if unusual and not known else None)

    def _measure(self, opener: CountedCall, length: float) -> None:
        """Note who opened the window, if its length agrees with what the user says of it."""
        if self.rule.may_change or length == self.rule.length:
            self.rule = attrs.evolve(self.rule, length=length)
            self.opener, self.until = opener, UNKNOWN
            if opener.took < math.inf:  # else it counts when it is let through, and would be counted twice
                self.counted = max(1, self.counted)

    def _shut(self, refusal: Refusal, *, early: bool, pause: float) -> None:
        now, end = refusal.now, self._end_by(self.opener)
        latest = math.inf if refusal.left is None else refusal.end + 1.0 + CLOCK_TOLERANCE
        together = self.state is State.SHUT and refusal.call.sent <= self.refused_at < self.until
        self.state, self.refused_at = State.SHUT, now
        if end > now and refusal.end - CLOCK_TOLERANCE <= end <= latest:
            self.until = UNKNOWN  # our own account is the finer one: it knows fractions of seconds
            return
        if self.rule.length > UNKNOWN:
            self.opener = None  # else it would end as we thought: another program has opened it before
        if refusal.left:
            self.until, self.short_waits = now + refusal.left, 0
        elif not together:  # else they were refused together, and are one lesson
            self.until = now + self._short_wait(refusal, early=early, pause=pause)
            self.short_waits += 1

    def _short_wait(self, refusal: Refusal, *, early: bool, pause: float) -> float:
        """Return the seconds to wait after a refusal that names less than one, or none."""
        if refusal.left is None:
            return pause
        # A probe that was early came within the second that was rounded away: the growing begins where it
        # ends.
        grown = self.short_waits or 3 * (early and not UNKNOWN < self.rule.length < ROUNDING_MATTERS)
        return min(SHORTEST_WAIT * 4.0 ** min(grown, 9), 1.0)

    # What will be

    def left(self, now: float, reserve: float = 0.0) -> float:
        """Return how many calls may go before the window ends."""
        if UNKNOWN < self.ends <= now:
            return self.share(reserve)
        return 0.0 if self.state is State.SHUT else max(0.0, self.share(reserve) - self.used)

    def next_opening(self, now: float) -> float:
        """Return when the next window can open; if none is open, a length after the call that opens one."""
        return self.ends if self.ends > now else now + max(0.0, self.rule.length)

    def capacity(self, now: float, until: float, reserve: float = 0.0) -> float:
        """Return how many calls can go before a moment."""
        share, first = self.share(reserve), self.next_opening(now)
        if share == math.inf or self.rule.length == UNKNOWN:
            return math.inf if until > first else self.left(now, reserve)
        openings = max(0, math.ceil((until - first) / self.rule.length))
        return self.left(now, reserve) + openings * share

    def seconds_for(self, calls: float, now: float, reserve: float = 0.0) -> tuple[float, float]:
        """Return how long the last of so many calls waits, and how many of them go after its last opening."""
        share, more = self.share(reserve), calls - self.left(now, reserve)
        if more <= 0:
            return 0.0, calls
        first = self.next_opening(now) - now
        if share == math.inf:
            return first, more
        return first + (more - 1) // share * max(0.0, self.rule.length), (more - 1) % share + 1

    def to_state(self, now: float, reserve: float = 0.0) -> QuotaState:
        """Return what is known, for a person."""
        wait = self.wait(now, reserve)
        limit, length = or_none(self.rule.limit), or_none(self.rule.length)
        used = max(self.used, limit or 0) if self.state is State.SHUT else self.used
        return QuotaState(
            policy=self.rule.name,
            kinds=self.rule.kinds,
            limit=limit,
            window=length,
            used=self.out if UNKNOWN < self.ends <= now else used,
            opens_at=datetime.fromtimestamp(now + wait, UTC) if wait > 0 else None,
            source=self.rule.source,
        )

    # Between processes

    @property
    def is_news(self) -> bool:
        """Whether another process could use it. What a server announces, it will announce again."""
        learned = self.rule.source == "learned" and self.rule.length > UNKNOWN
        return learned or self.state is not State.CLOSED

    def take_over(self, other: Window) -> None:
        """Become as another process knows it; a policy that was given keeps its numbers."""
        self.rule = other.rule if self.rule.may_change else self.rule
        self.state, self.opener, self.until = other.state, other.opener, other.until
        self.counted, self.refused_at = other.counted, other.refused_at


def or_none(value: float) -> Any:
    """Return a number, or None for what is unknown."""
    return value if math.isfinite(value) else None
