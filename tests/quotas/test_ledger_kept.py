"""What one process knows, and another takes over; what is given back; and what cannot be meant."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_async._api.headers import RateLimitHeaders
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import KINDS, QuotaPolicy
from omi_async.constants import BASE_URL
from tests.quotas.model import EPOCH

GARBAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError)

HOUR = QuotaPolicy(3, 3600, kinds=frozenset({"batch"}))


def spent(ledger: Ledger, count: int, now: float = EPOCH) -> Ledger:
    for _ in range(count):
        ledger.answered(ledger.spend("batch", now), now)
    return ledger


def refused(now: float = EPOCH) -> Ledger:
    ledger = spent(Ledger(), 3, now)
    ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(3, 0, 3599.0))
    return ledger


def reloaded(ledger: Ledger, now: float) -> Ledger:
    other = Ledger()
    other.load(json.loads(json.dumps(ledger.dump())), now)
    return other


def test_a_restart_knows_what_was_spent() -> None:
    other = reloaded(refused(), EPOCH + 600)
    assert other.wait("batch", EPOCH + 600) == pytest.approx(3000, abs=2)
    assert other.wait("batch", EPOCH + 3601) == 0
    spent(other, 3, EPOCH + 3601)
    assert other.wait("batch", EPOCH + 3602) == pytest.approx(3599, abs=2)


def test_a_policy_that_was_given_keeps_its_numbers() -> None:
    other = Ledger([attrs_changed(HOUR, 5)])
    other.load(spent(Ledger([HOUR]), 3).dump(), EPOCH)
    [state] = other.states(EPOCH)
    assert (state.limit, state.used) == (5, 3)


def attrs_changed(policy: QuotaPolicy, limit: int) -> QuotaPolicy:
    return QuotaPolicy(limit, policy.window, kinds=policy.kinds, name=policy.name)


def test_a_policy_that_is_no_longer_given_is_not_taken_over() -> None:
    other = Ledger()
    other.load(spent(Ledger([HOUR]), 3).dump(), EPOCH)
    assert other.states(EPOCH) == ()


@pytest.mark.parametrize("back", [0.5, 100.0, 3600.0, 86_400.0, 1e8])
def test_a_clock_that_was_set_back_meanwhile_makes_no_wait_longer_than_the_window(back: float) -> None:
    # Catches: windows that "end" a day from now since the clock was a day ahead when they were written.
    other = reloaded(refused(), EPOCH - back)
    assert other.wait("batch", EPOCH - back) == pytest.approx(3600, abs=2)


def test_clocks_that_differ_by_little_do_not_add_up() -> None:
    # Catches: a window that ends a little earlier with each exchange of two processes.
    ledger = refused()
    for _ in range(100):
        ledger = reloaded(ledger, EPOCH - 0.1)
    assert ledger.wait("batch", EPOCH) == refused().wait("batch", EPOCH)


def test_a_clock_that_was_set_forward_meanwhile_opens_all_windows() -> None:
    other = reloaded(refused(), EPOCH + 1e4)
    assert other.wait("batch", EPOCH + 1e4) == 0
    assert spent(other, 3 + 1, EPOCH + 1e4).wait("batch", EPOCH + 1e4) == 0


@pytest.mark.parametrize("limit", [3, None])
def test_an_old_limit_is_tested_by_one_call_more_and_not_by_two(limit: int | None) -> None:
    # Catches: a limit of a test server, which was gone long ago, that holds an import up for a day; and one
    # that still holds, and costs a round of refusals for each new process.
    now = EPOCH + 7300
    other = spent(reloaded(refused(), now), 3, now)
    assert other.wait("batch", now) == 0
    test = other.spend("batch", now)
    assert other.wait("batch", now) > 3500  # while that is out
    if limit is None:
        other.answered(test, now)
        assert spent(other, 50, now).wait("batch", now) == 0
    else:
        other.refused(test, now, RateLimitHeaders(limit, 0, 3599.0))
        assert other.wait("batch", now) > 3500
        assert spent(other, 3, now + 3605).wait("batch", now + 3605) > 3500


@pytest.mark.parametrize("left", [5.0, 3000.0, 86_000.0, 1e7])
def test_what_a_server_said_that_is_gone_binds_for_no_longer_than_it_said(left: float) -> None:
    # Catches: a key that stays shut for a year, since a test server said so, and the clock was a year ahead.
    ledger = Ledger()
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, RateLimitHeaders(None, 0, left))
    for now in (EPOCH, EPOCH - 1e8):
        other = reloaded(ledger, now)
        assert 0 < other.wait("batch", now) <= left + 3
        probed = now + left + 3
        assert other.wait("batch", probed) == 0
        for _ in range(100):  # the server that is there now refuses nothing
            other.answered(other.spend("batch", probed), probed)
        assert other.wait("batch", probed) == 0


def test_two_ledgers_that_learn_apart_do_not_lose_each_others_windows() -> None:
    # Catches: two windows of one name, of which one counts on forever and is never kept.
    one, other = Ledger([HOUR]), Ledger()
    other.refused(other.spend("batch", EPOCH), EPOCH, RateLimitHeaders(7, 0, 59.0))
    one.load(other.dump(), EPOCH)
    one.refused(one.spend("list", EPOCH), EPOCH, RateLimitHeaders(8, 0, 30.0))
    one.refused(one.spend("batch", EPOCH), EPOCH, RateLimitHeaders(9, 0, 3500.0))
    assert len(one.states(EPOCH)) == 4
    assert {(it.limit, *sorted(it.kinds)) for it in reloaded(one, EPOCH).states(EPOCH)} == {
        (7, "batch"),
        (8, "list", "search"),
        (9, "batch"),
    }


def _windows(fields: dict[str, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {
        "kinds": ["batch"], "source": "learned", "name": None, "limit": 3, "length": 3600.0, "state": "shut",
        "ends": EPOCH + 3600, "counted": 3, "refused_at": EPOCH,
    }  # fmt: skip  # a table
    return {"x": {**good, **fields}}


NO_NUMBERS: list[Any] = [math.nan, math.inf, -math.inf, 10**400, "1", [], {}]
NO_KINDS: list[Any] = [None, [], ["x"], [1], [[]], 5, "x"]
NO_SOURCES: list[Any] = [None, [], "x", 5]
NO_STATES: list[Any] = [None, 1, "ajar", []]
NO_NAMES: list[Any] = [1, [], {}]
BAD: list[Any] = [
    None, 1, "x", [], {"x": None}, {"x": []}, {"x": {}}, {"x": {"limit": 3}},
    *[_windows({name: value}) for name in ("ends", "length", "counted", "refused_at")
      for value in NO_NUMBERS],
    *[_windows({"counted": value}) for value in (-1, 1.5)],
    *[_windows({"limit": value}) for value in (-1, 0, 1.5, "3", 10**20)],
    *[_windows({"length": value}) for value in (0, -1, 1e12)],
    *[_windows({"state": value}) for value in NO_STATES],
    *[_windows({"kinds": value}) for value in NO_KINDS],
    *[_windows({"source": value}) for value in NO_SOURCES],
    *[_windows({"name": value}) for value in NO_NAMES],
]  # fmt: skip  # a table


@pytest.mark.parametrize("kept", BAD, ids=lambda kept: str(kept)[:60])
def test_what_is_no_dump_is_refused_and_nothing_of_it_taken_over(kept: Any) -> None:
    # Catches: a wait that is NaN and never ends, a count below zero, an error that breaks a call.
    ledger = refused()
    before = ledger.dump()
    with pytest.raises(GARBAGE):
        ledger.load(kept, EPOCH)
    assert ledger.dump() == before


def test_the_good_one_of_the_table_is_good() -> None:
    ledger = Ledger()
    ledger.load(_windows({}), EPOCH)
    assert ledger.wait("batch", EPOCH) == pytest.approx(3600)


@pytest.mark.parametrize("name", ["ends", "refused_at"])
def test_no_moment_of_a_dump_makes_a_wait_longer_than_the_window(name: str) -> None:
    ledger = Ledger()
    ledger.load(_windows({name: EPOCH + 1e9}), EPOCH)
    assert ledger.wait("batch", EPOCH, live=False) <= 3602
    now = EPOCH + 3602
    assert ledger.wait("batch", now, live=False) == 0
    ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(3, 0, 0.0))
    assert ledger.wait("batch", now, live=False) <= 3602


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.fixed_dictionaries(
    {
        "kinds": st.lists(st.sampled_from(sorted(KINDS)), min_size=1) | json_values,
        "source": st.just("learned") | json_values,
        "state": st.sampled_from(["open", "shut", "closed"]) | json_values,
        **dict.fromkeys(("name", "limit", "length", "ends", "counted"), st.none() | json_values),
        "refused_at": st.none() | json_values,
    }
)


@given(kept=st.dictionaries(st.text(), fields))
def test_no_garbage_breaks_a_ledger(kept: Any) -> None:
    ledger = Ledger()
    try:
        ledger.load(kept, EPOCH)
    except GARBAGE:
        assert ledger.dump() == Ledger().dump()
    for kind in sorted(KINDS):
        assert 0 <= ledger.wait(kind, EPOCH) < math.inf
        ledger.answered(ledger.spend(kind, EPOCH), EPOCH)
    json.dumps(ledger.dump(), allow_nan=False)


# Giving back


def test_a_call_that_never_left_is_not_counted() -> None:
    ledger = Ledger([HOUR])
    spend = ledger.spend("batch", EPOCH)
    ledger.give_back(spend)
    assert ledger.dump() == Ledger([HOUR]).dump()
    spent(ledger, 3, EPOCH + 100)
    assert ledger.wait("batch", EPOCH + 100) == pytest.approx(3600, abs=2)


def test_what_is_given_back_after_its_window_takes_nothing_from_the_next() -> None:
    ledger = Ledger([HOUR])
    late = ledger.spend("batch", EPOCH)
    spent(ledger, 3, EPOCH + 3605)
    ledger.give_back(late)
    assert ledger.wait("batch", EPOCH + 3605) > 3500


def test_a_reserve_is_left_to_live_calls() -> None:
    ledger = Ledger([QuotaPolicy(10, 3600)], reserve=0.25)
    while not ledger.wait("batch", EPOCH, live=False):
        ledger.spend("batch", EPOCH)
    assert ledger.states(EPOCH)[0].used == 7
    while not ledger.wait("list", EPOCH):
        ledger.spend("list", EPOCH)
    assert ledger.states(EPOCH)[0].used == 10


@pytest.mark.parametrize(
    ("limit", "reserve", "share"), [(1, 0.1, 1), (1, 0.99, 1), (2, 0.1, 1), (15, 0.1, 13), (3, 0.99, 1)]
)
def test_a_reserve_is_whole_calls_and_an_import_gets_on(limit: int, reserve: float, share: int) -> None:
    # Catches: an import that never makes its first call; a reserve that is rounded down to none.
    ledger = Ledger([QuotaPolicy(limit, 3600)], reserve=reserve)
    assert ledger.capacity("batch", EPOCH, EPOCH + 1) == share
    for _ in range(share):
        assert ledger.wait("batch", EPOCH, live=False) == 0
        ledger.spend("batch", EPOCH)
    assert ledger.wait("batch", EPOCH, live=False) > 0


def test_endless_refusals_without_a_time_make_no_endless_wait() -> None:
    # Catches: a wait that doubles with each "Retry-After: 0", to days, and then to an OverflowError.
    ledger, now = Ledger(), EPOCH
    for _ in range(1100):
        ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(3, 0, 0.0))
        wait = ledger.wait("batch", now)
        assert 0 < wait <= 1
        now += wait


def test_a_window_of_unknown_length_is_not_taken_for_as_long_as_we_were_slow() -> None:
    # Catches: 10-minute windows believed to be of 5 hours, since the last refusal was so long ago.
    ledger, now = Ledger(), EPOCH
    ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(3, 0, 300.0))
    now += 301
    for _ in range(30):  # slower than the limit, through many windows
        ledger.answered(ledger.spend("batch", now), now)
        now += 599
    for _ in range(3):
        ledger.answered(ledger.spend("batch", now), now)
    ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(3, 0, 599.0))
    for _ in range(3):
        now += ledger.wait("batch", now)
        ledger.answered(ledger.spend("batch", now), now)
        assert ledger.wait("batch", now) <= 602


def test_documented_limits_are_those_of_the_official_service_only() -> None:
    assert [state.limit for state in Ledger.for_server(BASE_URL, None).states(EPOCH)] == [100, 10_000]
    assert Ledger.for_server("https://omi.example", None).states(EPOCH) == ()
    assert Ledger.for_server(BASE_URL, ()).states(EPOCH) == ()


def test_limits_that_change_for_months_do_not_pile_up() -> None:
    # Catches: another window for each limit that there ever was, and all of them asked at each call.
    ledger, now = Ledger(), EPOCH
    for number in range(300):
        for _ in range(2):
            now += ledger.wait("batch", now)
            ledger.answered(ledger.spend("batch", now), now + 0.1)
        now += ledger.wait("batch", now)
        ledger.refused(
            ledger.spend("batch", now), now, RateLimitHeaders(10 + number * 7 % 40, 0, 100.0 + number % 3000)
        )
        now += 40_000
    assert len(ledger.states(now)) < 20
