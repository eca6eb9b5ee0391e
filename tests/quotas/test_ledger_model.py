"""The ledger against a model of the server: as fast as allowed, never faster, whatever the server says."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from omi_async._api.headers import RateLimitHeaders
from omi_async._api.messages import Kind
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import KINDS
from omi_async._quota.window import RETEST_AFTER_WINDOWS, SHORTEST_RETEST
from omi_async.errors import ConnectError, ResponseLostError
from tests.quotas.model import EPOCH, Policy, Server, Simulation, Words, ideal, jitter

LENGTHS = st.sampled_from([1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0])
USUAL = st.sampled_from([60.0, 3600.0, 86_400.0])
GROUPS = [{"batch"}, {"create", "update", "delete"}, {"list", "search"}, {"create"}, KINDS]
BURST = 3
TOLD = st.builds(
    Words,
    form=st.sampled_from(["int", "fraction", "date"]),
    limit=st.booleans(),
    reset=st.booleans(),
    announced=st.booleans(),
)
LIMIT_TOLD = st.builds(Words, form=st.sampled_from(["int", "fraction", "date"]), reset=st.booleans())

many = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class OverParking:
    """Notes waits that end later than the server would let the call through, when nothing is on its way."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float, float]] = []
        self.simulation: Simulation

    def __call__(self, kind: str, now: float, wait: float) -> None:
        simulation = self.simulation
        longest = max(
            (policy.length for policy in simulation.server.policies if kind in policy.kinds), default=0.0
        )
        # An HTTP-date has whole seconds, and so has the Date that it is measured against.
        rounded = 3 if simulation.server.words.form == "date" else 2
        if not simulation.out and now + wait > simulation.free_at(kind) + rounded + 0.02 * longest:
            self.found.append((kind, now - simulation.began, wait))


def simulate(
    policies: list[Policy], words: Words, *, concurrency: int, seed: int, latency: float, **options: Any
) -> tuple[Simulation, OverParking]:
    check = OverParking()
    latency = min(latency, min((policy.length for policy in policies), default=100.0) / 100)
    check.simulation = Simulation(
        options.pop("ledger", None) or Ledger(chance=random.Random(seed).random),
        Server(policies, words),
        concurrency=concurrency,
        latency=jitter(seed, latency / 2, latency / 2 * 1.2),
        check=check,
        **options,
    )
    return check.simulation, check


def rounds(simulation: Simulation, policy: Policy) -> Counter[float]:
    """Refusals by the windows in which only we have called; not those few that test a limit after long."""
    found: Counter[float] = Counter()
    for call in simulation.refused:
        assert call.blamed is not None
        blamed, opened_at, foreign = call.blamed
        if blamed is policy and not foreign:
            found[opened_at] += 1
    tests, before = set(), 0.0
    for opened_at, count in sorted(found.items()):
        if (
            count == 1
            and before
            and opened_at - before > max(SHORTEST_RETEST, RETEST_AFTER_WINDOWS * policy.length) - 60
        ):
            tests.add(opened_at)
        before = opened_at
    return Counter({opened_at: count for opened_at, count in found.items() if opened_at not in tests})


latencies = st.sampled_from([0.002, 0.05, 0.5])
concurrencies = st.sampled_from([1, 4, 16])
SOME: dict[str, Any] = {"limit": 15, "length": 3600.0, "concurrency": 4, "latency": 0.05, "seed": 0}


@many
@given(
    limit=st.integers(1, 40),
    length=LENGTHS,
    words=TOLD,
    times=st.floats(0.1, 5),
    concurrency=concurrencies,
    latency=latencies,
    seed=st.integers(0, 2**32),
    live=st.booleans(),
)
@example(words=Words(announced=True), times=2.0, live=True, **SOME)
@example(words=Words(), times=2.0, live=True, **SOME)
@example(words=Words(form="date", limit=False), times=0.5, live=False, **SOME)
# Both refusals come before the answer to the call that opened the window.
@example(limit=1, length=1.0, words=Words(), times=3.0, concurrency=4, latency=0.002, seed=10936, live=False)
def test_one_policy_is_learned_once_and_then_used_to_its_end(
    *,
    limit: int,
    length: float,
    words: Words,
    times: float,
    concurrency: int,
    latency: float,
    seed: int,
    live: bool,
) -> None:
    # Catches: a lost window, a limit miscounted by answers out of order, a rate if a burst is meant.
    policy = Policy(limit, length, frozenset({"batch"}))
    count = max(1, int(limit * times))
    simulation, check = simulate(
        [policy], words, concurrency=concurrency, seed=seed, latency=latency, live=live
    )
    simulation.run(["batch"] * count, within=(times + 3) * (length + 3) + 600 + count)
    assert check.found == []
    learned = len(rounds(simulation, policy))
    if words.announced:
        assert learned <= (concurrency > limit)
    elif words.limit and length in {1, 60, 3600, 86_400} and not (length == 1 and words.form == "date"):
        assert learned <= 1
    else:
        assert learned <= 2
    if count <= limit and not words.announced:
        assert simulation.waits == 0
    windows = math.ceil(count / limit)
    late = simulation.elapsed - ideal(limit, length, count)
    # A retried second, a second of rounding, the head start and the latency of each window.
    assert late <= 0.02 * length * windows + 3 + windows * (1 + latency) + count * latency * 1.2


def overlapping_of_one_length(policies: list[Policy]) -> bool:
    """Whether two windows can end together that some calls are in both of: they pass for one that changed."""
    pairs = itertools.combinations(policies, 2)
    return any(one.length == other.length and one.kinds & other.kinds for one, other in pairs)


@many
@given(data=st.data(), words=LIMIT_TOLD, concurrency=concurrencies, latency=latencies)
def test_several_policies_at_once(
    data: st.DataObject, words: Words, concurrency: int, latency: float
) -> None:
    # Catches: one policy's refusal taken for another's, kinds that wait for windows that are not theirs.
    groups = data.draw(st.lists(st.sampled_from(range(len(GROUPS))), min_size=1, max_size=3, unique=True))
    policies = [
        Policy(
            data.draw(st.integers(1, 40)),
            60.0 if number == BURST else data.draw(USUAL),  # which kinds share is known of the service
            frozenset(GROUPS[number]),
        )
        for number in groups
    ]
    used = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True))
    seed = data.draw(st.integers(0, 2**32))
    hold_several(policies, used, words, concurrency=concurrency, seed=seed, latency=latency)


def test_two_policies_that_can_be_told_apart() -> None:
    policies = [Policy(15, 3600.0, frozenset({"batch"})), Policy(5, 60.0, frozenset({"create"}))]
    assert hold_several(policies, ["batch", "create"], Words(), concurrency=4, seed=0, latency=0.05)


def hold_several(
    policies: list[Policy], used: list[Any], words: Words, *, concurrency: int, seed: int, latency: float
) -> bool:
    """Call under several policies; return whether what was refused could be told apart."""
    chance = random.Random(seed)
    simulation, check = simulate(policies, words, concurrency=concurrency, seed=seed, latency=latency)
    kinds: list[Kind] = [chance.choice(used) for _ in range(min(150, 3 * min(p.limit for p in policies)))]
    simulation.run(kinds, within=200 * 86_400)
    clear = not simulation.server.unclear and not overlapping_of_one_length(policies)
    assert check.found == [] or not clear
    for policy in policies:
        assert len(rounds(simulation, policy)) <= 1 + len(used)
    assert len(simulation.ledger.states(simulation.now)) <= len(policies) * len(used)
    return clear


@many
@given(
    words=TOLD,
    concurrency=concurrencies,
    latency=latencies,
    seed=st.integers(0, 2**32),
    limit=st.integers(2, 40),
    length=LENGTHS,
)
@example(words=Words(), **SOME)
def test_others_with_the_same_key_make_no_call_wait_longer_than_its_window(
    *, words: Words, concurrency: int, latency: float, seed: int, limit: int, length: float
) -> None:
    # Catches: calls of others taken for a lower limit, a foreign window taken for our own.
    policy = Policy(limit, length, frozenset({"batch"}))
    chance = random.Random(seed)
    moments = sorted(EPOCH + chance.uniform(-length / 2, 3 * length) for _ in range(chance.randint(1, 30)))
    simulation, check = simulate([policy], words, concurrency=concurrency, seed=seed, latency=latency)
    while moments and moments[0] <= EPOCH:  # these have called before us
        simulation.server.take("batch", moments.pop(0), ours=False)
    simulation.others("batch", iter(moments))
    simulation.run(["batch"] * (limit * 4), within=60 * (length + 10))
    if words.limit:
        assert check.found == []
    assert simulation.elapsed <= 12 * length + 60 + limit * 4


def change(**fields: Any) -> example:
    """An example of a change that was once taken for a second window, or tried again too early."""
    usual: dict[str, Any] = {"concurrency": 4, "seed": 0, "length": 60.0, "when": 0.0}
    return example(words=Words(), **{**usual, **fields})


@many
@given(
    words=LIMIT_TOLD,
    concurrency=concurrencies,
    seed=st.integers(0, 2**32),
    before=st.integers(1, 40),
    after=st.integers(1, 40),
    length=USUAL,
    when=st.floats(0, 3),
)
@change(before=40, after=1)
@change(before=39, after=1)
@change(before=37, after=1)
@change(before=1, after=3, seed=1_201_055_693, when=0.00105)
@change(before=3, after=5, seed=3_158_455_160, when=0.00122, concurrency=16)
def test_a_limit_that_changes_while_we_call(
    *, words: Words, concurrency: int, seed: int, before: int, after: int, length: float, when: float
) -> None:
    # Catches: an old limit believed beside the new one, windows that pile up, no test of an old limit.
    policy = Policy(before, length, frozenset({"batch"}))
    simulation, _ = simulate([policy], words, concurrency=concurrency, seed=seed, latency=0.05)
    simulation.at(EPOCH + when * length, lambda: setattr(policy, "limit", after))
    simulation.run(["batch"] * (before * 4 + after * 2), within=(20 * 40 + 10) * length)
    assert len(rounds(simulation, policy)) <= 2
    assert len(simulation.ledger.states(simulation.now)) == 1
    [state] = simulation.ledger.states(simulation.now)
    assert state.limit is None or state.limit <= max(before, after) + 1


@given(seed=st.integers(0, 2**32), concurrency=concurrencies, kinds=st.lists(st.sampled_from(sorted(KINDS))))
def test_a_server_without_limits_is_never_waited_for(seed: int, concurrency: int, kinds: list[Kind]) -> None:
    simulation, _ = simulate([], Words(), concurrency=concurrency, seed=seed, latency=0.05)
    simulation.run(kinds * 5)
    assert simulation.waits == 0
    assert simulation.ledger.states(simulation.now) == ()


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["spend", "ok", "told", "refused", "edge", "lost", "back", "load"]),
            st.sampled_from(sorted(KINDS)),
            st.floats(0, 5000),
            st.integers(0, 50),
            st.sampled_from([0.0, 1.0, 59.0, 60.0, 61.0, 0.5, 3599.0, 3600.0, 86_400.0, 1e7]),
        ),
        max_size=60,
    )
)
@example(
    steps=[(step, "batch", 1.0, 1, 60.0) for step in ("spend", "load", "spend", "told", "spend", "refused")]
)
def test_whatever_is_said_the_ledger_gives_sound_numbers(steps: list[Any]) -> None:
    # Catches: negative counts, waits that are no numbers, a dump that cannot be loaded, counts of both ends.
    ledger, now = Ledger(chance=lambda: 0.5), EPOCH
    out: list[Any] = []
    for step, kind, seconds, number, left in steps:
        now += seconds if step == "spend" else 0.01
        ledger = act(ledger, step, kind, now, number, left, out)
        for each in sorted(KINDS):
            for live in (True, False):
                wait = ledger.wait(each, now, live=live)
                assert 0 <= wait <= max(1e7 + 2, 8)
                assert ledger.capacity(each, now, now + 100) >= 0
                assert 0 <= ledger.seconds_for(each, 7, now) < math.inf
        for state in ledger.states(now):
            assert state.used >= 0
            assert state.limit is None or state.limit >= 0
            assert state.window is None or 0 < state.window < math.inf
            assert (state.opens_at is None) or state.opens_at.timestamp() > now - 1e-3


def act(  # noqa: PLR0917  # a step of the test above
    ledger: Ledger, step: str, kind: Kind, now: float, number: int, left: float, out: list[Any]
) -> Ledger:
    if step == "spend" or not out:
        out.append(ledger.spend(kind, now))
    elif step == "load":
        loaded, again = Ledger(chance=lambda: 0.5), Ledger()
        loaded.load(ledger.dump(), now)
        again.load(loaded.dump(), now)
        assert again.dump() == loaded.dump()
        assert loaded.wait(kind, now) <= ledger.wait(kind, now) + 1e-6
    else:
        spend = out.pop(number % len(out))
        if step == "ok":
            ledger.answered(spend, now)
        elif step == "told":
            ledger.answered(spend, now, RateLimitHeaders(number + 1, number // 2, left))
        elif step == "refused":
            ledger.refused(spend, now, RateLimitHeaders(number or None, 0, left))
        elif step == "edge":
            ledger.refused(spend, now, RateLimitHeaders())
        elif step == "lost":
            ledger.failed(spend, ResponseLostError("x") if number % 2 else ConnectError("x"))
        else:
            ledger.give_back(spend)
            ledger.give_back(spend)
    return ledger
