"""A server with fixed windows and its clients, without a network: events on a clock of their own."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any, Literal

import attrs

from omi_async._api.headers import RateLimitHeaders, read_rate_limit_headers
from omi_async._api.messages import Kind, Response
from omi_async._quota.ledger import Ledger
from omi_async._quota.window import CountedCall

EPOCH = 1_790_000_000.37

RetryAfterForm = Literal["int", "fraction", "date", "none"]


@attrs.define
class Policy:
    """A fixed window of the server's."""

    limit: int
    length: float
    kinds: frozenset[str]
    opened_at: float = -math.inf
    count: int = 0
    elsewhere: int = 0  # calls that another policy refused, and that are not counted here
    foreign: bool = False  # another program has called in the open window

    def roll(self, now: float) -> None:
        if now >= self.opened_at + self.length:
            self.opened_at, self.count, self.elsewhere, self.foreign = now, 0, 0, False

    def free_at(self, now: float, coming: int) -> float:
        """When it would let another call through, after those that are on their way."""
        ends = self.opened_at + self.length
        coming += self.elsewhere  # a client cannot know which policies count a refused call
        if now >= ends:
            return now + self.length if coming >= self.limit else now
        return ends if self.count + coming >= self.limit else now


@attrs.define
class Words:
    """What the server says on its answers."""

    form: RetryAfterForm = "int"
    limit: bool = True
    reset: bool = False
    announced: bool = False


class Server:
    """Counts calls as the service does: a refused one counts, and makes no window longer.

    Attributes:
        blamed: who refused the last call that was refused.
        unclear: a refused call was counted by a policy before that one, so that it cannot be told from the
            number of those that went through whose calls that policy counts.
    """

    def __init__(self, policies: list[Policy], words: Words) -> None:
        self.policies = policies
        self.words = words
        self.blamed: Policy | None = None
        self.unclear = False

    def take(self, kind: str, now: float, *, ours: bool = True) -> Response:
        fewest: Policy | None = None
        for policy in self.policies:
            if kind in policy.kinds:
                policy.roll(now)
                policy.count += 1
                policy.foreign |= not ours
                if policy.count > policy.limit:
                    self.blamed = policy
                    self.unclear |= fewest is not None
                    for other in self.policies[self.policies.index(policy) + 1 :]:
                        other.elsewhere += kind in other.kinds
                    return self._response(429, policy, now, self._refusal(policy, now))
                if fewest is None or policy.limit - policy.count < fewest.limit - fewest.count:
                    fewest = policy
        return self._response(200, fewest, now, {})

    def free_at(self, kind: str, now: float, coming: Callable[[frozenset[str]], int]) -> float:
        """When it would let another call through, after those that are on their way."""
        covering = [policy for policy in self.policies if kind in policy.kinds]
        return max([now, *[policy.free_at(now, coming(policy.kinds)) for policy in covering]])

    def _refusal(self, policy: Policy, now: float) -> dict[str, str]:
        headers = {}
        left = policy.opened_at + policy.length - now
        if self.words.limit:
            headers["X-RateLimit-Limit"] = str(policy.limit)
        if self.words.reset:
            headers["X-RateLimit-Reset"] = str(int(policy.opened_at + policy.length))
        if self.words.form == "int":
            headers["Retry-After"] = str(int(left))
        elif self.words.form == "fraction":
            headers["Retry-After"] = f"{left:.3f}"
        elif self.words.form == "date":
            headers["Retry-After"] = http_date(policy.opened_at + policy.length)
        return headers

    def _response(self, status: int, policy: Policy | None, now: float, headers: dict[str, str]) -> Response:
        if self.words.announced and policy is not None:
            headers["X-RateLimit-Limit"] = str(policy.limit)
            headers["X-RateLimit-Remaining"] = str(max(0, policy.limit - policy.count))
            headers["X-RateLimit-Reset"] = str(int(policy.opened_at + policy.length))
        return Response(status, {**headers, "Date": http_date(now)}, received=now)


def http_date(moment: float) -> str:
    return formatdate(int(moment), usegmt=True)


@attrs.define
class Call:
    """One that was made."""

    kind: str
    sent: float
    status: int
    blamed: tuple[Policy, float, bool] | None  # who refused it, when its window was opened, others in it?


class Simulation:
    """A ledger's calls, `concurrency` at a time, against a server.

    Args:
        latency: gives the seconds of one way.
        check: is called with each wait of the ledger: kind, now, wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        server: Server,
        *,
        concurrency: int = 4,
        latency: Callable[[], float] = lambda: 0.025,
        live: bool = False,
        now: float = EPOCH,
        check: Callable[[str, float, float], Any] = lambda *_: None,
    ) -> None:
        self.ledger = ledger
        self.server = server
        self.now = now
        self.began = now
        self.calls: list[Call] = []
        self.accepted = 0
        self.waits = 0
        self._live = live
        self._concurrency = concurrency
        self._latency = latency
        self._check = check
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._look_again = 0  # the number of the last wait: those before it are forgotten
        self._todo: list[Kind] = []
        self._held = False  # the first call after a wait goes alone, as the pacer has it
        self._probe: CountedCall | None = None
        self.out = 0
        self._coming: Counter[str] = Counter()

    def free_at(self, kind: str) -> float:
        """When the server would let another call through."""
        return self.server.free_at(kind, self.now, lambda kinds: sum(self._coming[kind] for kind in kinds))

    def at(self, moment: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), work))

    def run(self, kinds: list[Kind], *, within: float = math.inf) -> None:
        """Make these calls, in their order of each kind; a refused one is made again."""
        self._todo = list(reversed(kinds))
        goal = self.accepted + len(kinds)
        self._go()
        while self.accepted < goal:
            assert self._events, "deadlock: nothing is on its way and no call waits"
            moment, _, work = heapq.heappop(self._events)
            assert moment >= self.now
            assert moment - self.began <= within, "it takes forever"
            self.now = moment
            work()

    @property
    def refused(self) -> list[Call]:
        return [call for call in self.calls if call.status == 429]

    @property
    def elapsed(self) -> float:
        return self.now - self.began

    def _go(self) -> None:
        while self._todo and self.out < self._concurrency:
            kind = self._todo[-1]
            wait = self.ledger.wait(kind, self.now, live=self._live)
            assert 0 <= wait < math.inf, wait
            if not wait and self._probe is not None:
                return
            if wait:
                self._held = True
                self.waits += 1
                assert self.waits < 50 * (len(self.calls) + 100), "it goes round in circles"
                self._check(kind, self.now, wait)
                self._look_again += 1
                self.at(self.now + wait, lambda number=self._look_again: self._waited(number))  # type: ignore[misc]  # mypy cannot tell the type of a default
                return
            self._todo.pop()
            self.out += 1
            self._coming[kind] += 1
            spend = self.ledger.spend(kind, self.now)
            if self._held:
                self._held, self._probe = False, spend
                self.at(self.now + self.ledger.head_start(kind), lambda spend=spend: self._probed(spend))  # type: ignore[misc]  # mypy cannot tell the type of a default
            self.at(self.now + self._latency(), lambda spend=spend: self._arrive(spend))  # type: ignore[misc]  # mypy cannot tell the type of a default

    def _probed(self, spend: CountedCall) -> None:
        if self._probe is spend:
            self._probe = None
            self._go()

    def _waited(self, number: int) -> None:
        if number == self._look_again:
            self._go()

    def _arrive(self, spend: CountedCall) -> None:
        self._coming[spend.kind] -= 1
        response = self.server.take(spend.kind, self.now)
        blamed = self.server.blamed if response.status == 429 else None
        found = None if blamed is None else (blamed, blamed.opened_at, blamed.foreign)
        self.calls.append(Call(spend.kind, spend.sent, response.status, found))
        self.at(self.now + self._latency(), lambda: self._answer(spend, response))

    def _answer(self, spend: CountedCall, response: Response) -> None:
        self.out -= 1
        self._probe = None if self._probe is spend else self._probe
        signs: RateLimitHeaders = read_rate_limit_headers(response)
        if response.status == 429:
            self.ledger.refused(spend, self.now, signs)
            self._todo.append(spend.kind)
        else:
            self.accepted += 1
            self.ledger.answered(spend, self.now, signs)
        self._go()

    def others(self, kind: Kind, moments: Iterator[float]) -> None:
        """Let another user of the key call at these moments."""

        def call() -> None:
            self.server.take(kind, self.now, ours=False)
            arrange()

        def arrange() -> None:
            moment = next(moments, None)
            if moment is not None:
                self.at(max(moment, self.now), call)

        arrange()


def jitter(seed: int, least: float, most: float) -> Callable[[], float]:
    chance = random.Random(seed)
    return lambda: chance.uniform(least, most)


def ideal(limit: int, length: float, calls: int) -> float:
    """When the last of so many calls can be made, by a caller who knows all."""
    return (math.ceil(calls / limit) - 1) * length
