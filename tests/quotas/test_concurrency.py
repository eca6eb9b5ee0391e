"""How many calls of an import are on the wire: rules alone, without a network."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from omi_async.importing.concurrency import MOST_PATIENCE, PATIENCE, Caution, Concurrency, Flight


class Driver:
    """Calls in rounds, as many at a time as are allowed."""

    def __init__(self, most: int, caution: Caution | None = None) -> None:
        self.caution = caution or Caution()
        self.it = Concurrency(most, self.caution)
        self.most = most
        self.calls = 0
        self.failed = 0

    def round(self, fails: Callable[[int], bool] = lambda _beside: False) -> int:
        """Let as many go as may, and come back; return how many."""
        flights: list[Flight] = [self.it.depart() for _ in range(self.it.limit)]
        assert 1 <= len(flights) <= self.most
        for flight in flights:
            self.calls += 1
            self.it.land(flight)
            if fails(len(flights)):
                self.failed += 1
                self.it.troubled(flight)
            else:
                self.it.clean(flight)
        return len(flights)


def test_it_begins_with_one_and_doubles_while_all_is_clean() -> None:
    driver = Driver(16)
    assert [driver.round() for _ in range(6)] == [1, 2, 4, 8, 16, 16]


def test_trouble_in_company_leads_down_at_once() -> None:
    driver = Driver(16)
    for _ in range(5):
        driver.round()
    assert driver.round(lambda _: True) == 16
    assert driver.it.limit == 1
    # Catches: a burst that counts as sixteen stumbles, after which more are never tried again.
    assert driver.caution.stumbles == 1


def test_what_fails_alone_says_nothing_about_company() -> None:
    driver = Driver(4)
    for _ in range(9):
        driver.round(lambda _: True)
    assert (driver.it.limit, driver.caution.stumbles) == (1, 0)
    assert [driver.round() for _ in range(3)] == [1, 2, 4]


def test_one_failure_among_many_costs_half() -> None:
    driver = Driver(16)
    for _ in range(5):
        driver.round()
    one = iter([True])
    driver.round(lambda _: next(one, False))
    assert driver.it.limit >= 8
    while driver.it.limit < 16:
        driver.round()
    assert driver.calls < 31 + 16 + 3 * PATIENCE


@given(st.integers(0, 2**32), st.integers(2, 16))
def test_on_a_server_that_fails_in_company_it_stays_at_one(seed: int, most: int) -> None:
    chance = random.Random(seed)
    driver = Driver(most)
    for _ in range(2000):
        driver.round(lambda beside: beside > 1 and chance.random() < (0.12 if beside == 2 else 0.5))
    assert driver.failed < 2000 / 40
    rounds = [driver.it.limit for _ in range(200) if driver.round(lambda beside: beside > 1)]
    assert rounds.count(1) > 190


def test_what_a_session_has_learned_the_next_import_knows() -> None:
    first = Driver(4)
    for _ in range(3):
        first.round()
    first.round(lambda _: True)
    second = Driver(4, first.caution)
    assert [second.round() for _ in range(PATIENCE - 4)] == [1] * (PATIENCE - 4)


def test_a_server_is_forgiven_for_what_was_long_ago() -> None:
    driver = Driver(8)
    for _ in range(4):
        driver.round()
    driver.round(lambda _: True)
    for _ in range(400):
        driver.round()
    assert (driver.it.limit, driver.caution.stumbles) == (8, 0)


def test_patience_has_an_end() -> None:
    assert Caution(stumbles=50).patience == MOST_PATIENCE


def test_one_at_a_time_holds_as_long_as_it_is_asked_for() -> None:
    it = Concurrency(8, Caution(limit=8))
    with it.one_at_a_time():
        with it.one_at_a_time():
            assert it.limit == 1
        assert it.limit == 1
    assert it.limit == 8
