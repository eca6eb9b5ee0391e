"""One fixed window of the server's, as far as it is known here: closed, open or shut.

```text
  closed     open                               shut                       closed
 ---------|--------------------------------|--------------------------|-----------------> t
          opened_at:                       used up,                   ends: from here on
          a call leaves                    or a call was refused      a call opens the next
          |--------|
            took: somewhere in it the server opens its window
          |----------------- length + margin(took) ------------------|
                                           |--- wait(): none goes ---|
```

*closed*: no window is open, or none that is known. The next call opens one.
*open*: calls go until as many are `used` as the limit allows; without a limit, or an end, they always go.
*shut*: the server has refused a call. None goes before `ends`; what is learned meanwhile does not reopen it.

Pure: every moment is an argument, in epoch seconds of the client's clock. The server's clock is never asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self, get_args

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.policy import LONGEST, UNITS, QuotaState, Rule, Source, kinds_of

__all__ = ["CountedCall", "State", "Window", "usual_length"]

CLOCK_TOLERANCE: Final = 1.5
"""Seconds by which two accounts of one moment may differ. `Retry-After` has whole seconds, rounded down, and
the call was half a second on its way; with less, each refusal would look like one of another window."""

LONGEST_MARGIN: Final = 1.0
"""Seconds to wait at most for an opener that is slow: it may have reached the server late. With more, a batch
that took a minute would cost a minute of each window; with none, the first call of each window comes too
early."""

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
long. All of them together are one second, as is what was rounded away."""


class State(StrEnum):
    """Whether calls may go: yes, yes until the limit, no."""

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
    """

    kind: Kind
    sent: float
    took: float = math.inf


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
        opened_at: when the call left that opened it; None if it was none of ours.
        ends: when it ends, or the wait after a refusal; None while that is unknown.
        counted: calls that the server has counted in it, as far as it is known.
        out: calls on the wire that it may count yet.
        refused_at: when a refusal was learned from; never: minus infinity.
        short_waits: refusals in a row that named no time worth waiting for.
    """

    rule: Rule
    state: State = State.CLOSED
    opened_at: float | None = None
    ends: float | None = None
    counted: int = 0
    out: int = 0
    refused_at: float = -math.inf
    short_waits: int = 0

    # May a call go?

    @property
    def used(self) -> int:
        """Calls spent. Those on the wire may be counted already: to count them twice only delays a call."""
        return self.counted + self.out

    def share(self, reserve: float = 0.0) -> float:
        """Return the calls of one window that are for those who leave a share of it to others; at least 1."""
        limit = self.rule.limit
        return math.inf if limit is None else max(1, limit - math.ceil(limit * reserve))

    def wait(self, now: float, reserve: float = 0.0) -> float:
        """Return the seconds until a call may go; 0 for at once."""
        if self.ends is None or now >= self.ends:
            return 0.0
        allowed = self.share(reserve) + (0 if reserve else self._calls_to_test(now))
        return self.ends - now if self.state is State.SHUT or self.used >= allowed else 0.0

    def _calls_to_test(self, now: float) -> int:
        """Return 1 if a learned limit is old enough to try one call more, which tells if it was raised."""
        if self.rule.source != "learned" or self.rule.length is None or self.opened_at is None:
            return 0
        patience = max(RETEST_AFTER_WINDOWS * self.rule.length, SHORTEST_RETEST)
        # Not in the second half: there a slow call might be counted in the next window, and prove nothing.
        first_half = now - self.opened_at < self.rule.length / 2
        return int(first_half and self.refused_at + patience < self.opened_at)

    def roll(self, now: float) -> None:
        """Close the window once its end has come."""
        if self.ends is not None and now >= self.ends:
            self.close()

    def close(self) -> None:
        """Forget the open window, and keep what is believed of the policy."""
        self.state, self.opened_at, self.ends, self.counted = State.CLOSED, None, None, 0

    # What the calls tell

    def spend(self, now: float) -> None:
        """Count a call that is about to leave; the first one opens the window."""
        self.roll(now)
        if self.state is State.CLOSED:
            self.open_with(now, math.inf)
        self.out += 1

    def open_with(self, sent: float, took: float, *, counted: int = 0) -> None:
        """Note that one of our calls has opened the window, and took so long."""
        self.state, self.opened_at, self.counted = State.OPEN, sent, counted
        self.ends = None if self.rule.length is None else sent + self.rule.length + self._margin(took)

    def _margin(self, took: float) -> float:
        """Return the seconds by which the server may have opened the window after its call left, at most.

        A hundredth of the length at most, so that margins never cost more than the 1 % that nobody notices;
        and some milliseconds for clocks that do not tick alike.
        """
        length = self.rule.length or 0.0
        return min(took, length / 100, LONGEST_MARGIN) + min(0.005, length / 200)

    def give_back(self, call: CountedCall) -> bool:
        """Take back a call that the server has not counted; return whether it was the one to open the window.

        A window that nothing but this call has opened is not open.
        """
        self.out = max(0, self.out - 1)
        opener = self.opened_at == call.sent and not self.counted
        if opener and not self.out and self.state is State.OPEN:
            self.close()
        return opener

    def passed(self, call: CountedCall, *, told: int | None = None) -> None:
        """Note that the server let a call through; `told` is how many it has counted, if it says so."""
        self.out = max(0, self.out - 1)
        self.short_waits = 0
        earlier = self.opened_at is not None and call.sent < self.opened_at
        if self.state is State.CLOSED or earlier:
            return  # it was counted in a window that has ended since
        # Answers come out of order: what the third says of 3 calls holds after the second has said 2.
        self.counted = self.counted + 1 if told is None else max(self.counted, told)
        if call.sent == self.opened_at and self.rule.length is not None:
            self.ends = call.sent + self.rule.length + self._margin(call.took)
        limit = self.rule.limit
        if self.rule.may_change and limit is not None and self.counted > limit:
            # It was out with a refused one, so the limit is higher by that; or the limit was raised, and only
            # the next refusal will say to what.
            self.rule = attrs.evolve(self.rule, limit=self.counted if self.state is State.SHUT else None)

    def announced(self, call: CountedCall, counted: int, ends: float) -> None:
        """Take over what an answer says of the window: how many it has counted, and when it ends."""
        if self.ends is None or ends > self.ends + 2 * CLOCK_TOLERANCE:  # what is known is of an earlier one
            if counted == 1:  # its own call has opened it, so its end tells how long it is
                length = usual_length(ends - call.sent, 1.0) or self.rule.length
                self.rule = attrs.evolve(self.rule, length=length) if self.rule.may_change else self.rule
            self.open_with(call.sent, call.took, counted=counted)
            if counted != 1 or self.ends is None:
                self.opened_at, self.ends = None, ends + 1.0
        elif ends < self.ends - 2 * CLOCK_TOLERANCE:  # somebody else had opened it before our first call
            self.opened_at, self.ends = None, ends + 1.0

    # What a refusal tells

    def shut(
        self,
        call: CountedCall,
        now: float,
        left: float | None,
        *,
        limit: int | None,
        opener: CountedCall | None,
        early: bool,
        pause: float,
    ) -> None:
        """Learn from a refusal, and let none go until the server's window ends.

        Args:
            call: the refused one.
            now: when it was learned.
            left: seconds of the window that were left, as the server says; None if it does not.
            limit: calls in one window, as the server says.
            opener: our call that must have opened the window, if that many of ours went through.
            early: the call was to open the window: by the server's account the last one goes on.
            pause: seconds to wait if nobody names a time.
        """
        same_lesson = self.state is State.SHUT and call.sent <= self.refused_at
        ours = self.opened_at is not None and self.counted > 0
        if early:
            self.opened_at = None
        if self.rule.may_change:
            # What one window of ours let through is its limit, if the server keeps that to itself.
            self.rule = attrs.evolve(
                self.rule, limit=limit or self.rule.limit or (self.counted if ours else None)
            )
        if left is not None:
            self._measure(opener, call.sent + left, now)
        ends = self._end_after(call, now, left, early=early, pause=pause, same_lesson=same_lesson)
        self.state, self.ends, self.refused_at = State.SHUT, ends, now

    def _measure(self, opener: CountedCall | None, end: float, now: float) -> None:
        """Learn the length from when the window was opened, and when it ends.

        If the calls do not show who opened it, our own account may: the server also counts calls that another
        of its policies then refuses. An unusual length is believed only if both agree, and in the first half
        of the window: calls of others, or a window that came and went unseen, would make it look longer.
        """
        openers = [] if opener is None else [(opener.sent, opener.took, True)]
        if self.opened_at is not None:
            limit = self.rule.limit or math.inf  # its last calls may be on the wire yet
            openers.append((self.opened_at, math.inf, self.counted <= limit <= self.used + 1))
        for sent, took, full in openers:
            length = usual_length(end - sent)
            if length is None and self.rule.length is None and full and sent == self.opened_at:
                length = float(math.ceil(end - sent)) if now - sent <= (end - sent) / 2 else None
            if length is not None and (self.rule.may_change or length == self.rule.length):
                self.rule = attrs.evolve(self.rule, length=length)
                self.opened_at, self.ends = sent, sent + length + self._margin(took)
                return

    def _end_after(
        self,
        call: CountedCall,
        now: float,
        left: float | None,
        *,
        early: bool,
        pause: float,
        same_lesson: bool,
    ) -> float:
        """Return when calls may go again after a refusal."""
        if self._account_agrees(now, None if left is None else call.sent + left):
            return self.ends or now  # our own account is the finer one: it knows fractions of seconds
        if self.rule.length is not None:
            self.opened_at = None  # else it could have ended only now: somebody else had opened it before
        if left:
            self.short_waits = 0
            return now + left  # to the second: a live call has promised its caller no more
        if same_lesson and self.ends is not None and self.ends > now:
            return self.ends  # refused together with one that was learned from: nothing new
        self.short_waits += 1
        if left is None:
            return now + pause
        if early and self.short_waits == 1 and (self.rule.length or math.inf) >= ROUNDING_MATTERS:
            return call.sent + 1.0  # it came within the second that was rounded away
        return now + min(SHORTEST_WAIT * 4.0 ** min(self.short_waits - 1, 9), 1.0)

    def _account_agrees(self, now: float, least: float | None) -> bool:
        """Whether what we know of the end agrees with the server, who says when it ends at the earliest."""
        if self.ends is None or self.opened_at is None or self.ends <= now:
            return False
        return least is None or -CLOCK_TOLERANCE <= self.ends - least <= 1.0 + CLOCK_TOLERANCE

    def ends_about(self, moment: float | None) -> bool:
        """Whether the open window ends at this moment, as far as whole seconds can tell."""
        if self.ends is None or moment is None:
            return False
        return abs(self.ends - moment) <= 1.0 + CLOCK_TOLERANCE

    # What will be

    def capacity(self, now: float, until: float, reserve: float = 0.0) -> float:
        """Return how many calls can go before a moment."""
        share, length = self.share(reserve), self.rule.length
        shut = self.wait(now, reserve) > 0
        if length is None or share == math.inf:
            return 0.0 if shut and until <= (self.ends or 0.0) else math.inf
        first = self._next_opening(now)
        openings = 0 if until <= first else math.ceil((until - first) / length)
        return self.left(now, reserve) + openings * share

    def left(self, now: float, reserve: float = 0.0) -> float:
        """Return how many calls may go before the window ends."""
        if self.ends is not None and now >= self.ends:
            return self.share(reserve)
        return 0.0 if self.state is State.SHUT else max(0.0, self.share(reserve) - self.used)

    def _next_opening(self, now: float) -> float:
        """Return when the next window can open; if none is open, a length after the call that opens one."""
        ends = self.ends
        return ends if ends is not None and now < ends else now + (self.rule.length or 0.0)

    def seconds_for(self, calls: float, now: float, reserve: float = 0.0) -> tuple[float, float]:
        """Return how long the last of so many calls waits, and how many of them go after its last opening."""
        left = self.left(now, reserve)
        if calls <= left:
            return 0.0, calls
        first = self._next_opening(now) - now
        share, rest = self.share(reserve), calls - left
        if share == math.inf or self.rule.length is None:
            return first, rest
        return first + (rest - 1) // share * self.rule.length, (rest - 1) % share + 1

    def to_state(self, now: float, reserve: float = 0.0) -> QuotaState:
        """Return what is known, for a person."""
        wait = self.wait(now, reserve)
        over = self.ends is not None and now >= self.ends
        used = max(self.used, self.rule.limit or 0) if self.state is State.SHUT else self.used
        return QuotaState(
            policy=self.rule.name,
            kinds=self.rule.kinds,
            limit=self.rule.limit,
            window=self.rule.length,
            used=self.out if over else used,
            opens_at=datetime.fromtimestamp(now + wait, UTC) if wait > 0 else None,
            source=self.rule.source,
        )

    # Between processes

    @property
    def is_news(self) -> bool:
        """Whether another process could use it. What a server announces, it will announce again."""
        return self.state is not State.CLOSED or (
            self.rule.source == "learned" and self.rule.length is not None
        )

    def dump(self) -> dict[str, Any]:
        """Return what another process should know of it, as JSON."""
        return {
            "kinds": sorted(self.rule.kinds),
            "limit": self.rule.limit,
            "length": self.rule.length,
            "source": self.rule.source,
            "name": self.rule.given_name,
            "state": self.state.value,
            "opened_at": self.opened_at,
            "ends": self.ends,
            "counted": self.used,
            "refused_at": self.refused_at if math.isfinite(self.refused_at) else None,
        }

    @classmethod
    def load(cls, fields: Mapping[str, Any], now: float) -> Self:
        """Make a window of what `dump` gave. Raises ValueError, KeyError or TypeError for what is no dump.

        It ends within its length from now, whatever the clock was that wrote it; one whose length is unknown,
        within the wait that was named.
        """
        name = fields["name"]
        if fields["source"] not in get_args(Source) or not isinstance(name, str | None):
            raise ValueError(f"no such source or name: {fields['source']!r}, {name!r}")
        limit, counted = _number(fields, "limit", 0), _number(fields, "counted", 0)
        length = _number(fields, "length", 1e-3, LONGEST)
        opened_at, ends, refused_at = (_number(fields, name) for name in ("opened_at", "ends", "refused_at"))
        rule = Rule(
            kinds_of(fields["kinds"]), None if limit is None else int(limit), length, fields["source"], name
        )
        state = State(fields["state"])
        if ends is not None:
            named = ends - (now if refused_at is None else refused_at)
            ends = min(ends, now + (length or min(max(0.0, named), LONGEST)) + CLOCK_TOLERANCE)
        elif state is State.SHUT:
            raise ValueError("a window cannot be shut without an end")
        if opened_at is not None and opened_at > now:
            opened_at = None
        if refused_at is None or not now - (length or LONGEST) < refused_at <= now:
            # What nobody has been refused for longer than a window may be of a server that is gone: the first
            # window here tests it by one call more.
            refused_at = -math.inf
        window = cls(rule, state, opened_at, ends, int(counted or 0), refused_at=refused_at)
        window.roll(now)
        return window


def _number(fields: Mapping[str, Any], name: str, least: float = -1e12, most: float = 1e12) -> float | None:
    """Return a number of a dump, if that can be meant: NaN and infinity would make waits that never end."""
    value = fields[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name} of a window cannot be {str(value)[:40]}")
    return value
