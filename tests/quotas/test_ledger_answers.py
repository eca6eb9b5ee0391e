"""What single answers teach the ledger: in the order of their coming, with others still on the wire."""

from __future__ import annotations

import pytest

from omi_async._api.headers import RateLimitHeaders
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaPolicy
from tests.quotas.model import EPOCH

MINUTE = QuotaPolicy(2, 60, kinds=frozenset({"batch"}))


def spent(ledger: Ledger, count: int, now: float) -> Ledger:
    for _ in range(count):
        ledger.answered(ledger.spend("batch", now), now)
    return ledger


def test_an_end_that_was_rounded_down_is_no_reason_to_wait_longer_for_those_we_know() -> None:
    # Catches: a second more at each opening, forever, learned from ends that came in whole seconds.
    ledger = Ledger([MINUTE])
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, RateLimitHeaders(2, 0, 30.0))  # others have opened it
    now = EPOCH + 30
    ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(2, 0, 0.0))
    assert ledger.wait("batch", now) == pytest.approx(1)
    now += ledger.wait("batch", now)
    before = spent(Ledger([MINUTE]), 2, now).wait("batch", now)
    assert spent(ledger, 2, now).wait("batch", now) == pytest.approx(before)


def test_a_window_that_others_have_used_up_is_no_reason_to_wait_longer_for_ours() -> None:
    ledger = Ledger([MINUTE])
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, RateLimitHeaders(2, 0, 30.25))
    now = EPOCH + 31.25
    before = spent(Ledger([MINUTE]), 2, now).wait("batch", now)
    assert spent(ledger, 2, now).wait("batch", now) == pytest.approx(before)


def test_calls_that_left_together_with_the_first_one_do_not_make_it_look_too_early() -> None:
    # Catches: a window that is tried again a second before its end, since the first to leave came second.
    ledger = Ledger()
    first, second = ledger.spend("batch", EPOCH), ledger.spend("batch", EPOCH)
    ledger.refused(first, EPOCH + 0.1, RateLimitHeaders(1, 0, 59.0))
    ledger.answered(second, EPOCH + 0.1)
    assert ledger.wait("batch", EPOCH + 0.1) >= 59.9


def test_a_window_that_ends_otherwise_than_we_thought_was_not_opened_by_our_call() -> None:
    # Catches: an account that is kept though the server has contradicted it, and opens the window too early.
    ledger = Ledger([MINUTE])
    spent(ledger, 1, EPOCH)  # by our account it ends in a minute; but others had opened it before
    ledger.refused(ledger.spend("batch", EPOCH + 1), EPOCH + 1, RateLimitHeaders(2, 0, 9.5))
    assert ledger.wait("batch", EPOCH + 1) == pytest.approx(9.5)


# The order of the answers


def test_a_first_call_that_is_answered_after_a_refusal_still_tells_when_its_window_was_opened() -> None:
    ledger = Ledger([MINUTE])
    first, second, third = [ledger.spend("batch", EPOCH + late) for late in (0.0, 0.01, 0.02)]
    ledger.refused(third, EPOCH + 0.1, RateLimitHeaders(2, 0, 59.0))
    assert ledger.wait("batch", EPOCH + 0.1) > 60.1
    ledger.answered(first, EPOCH + 0.1)
    ledger.answered(second, EPOCH + 0.1)
    assert ledger.wait("batch", EPOCH + 0.1) == pytest.approx(60, abs=0.01)


def test_calls_that_are_let_through_after_a_refusal_count_for_the_limit() -> None:
    # Catches: a limit that is one too low, or forgotten, since a refusal overtook the answer of the last one.
    ledger = Ledger()
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, RateLimitHeaders(None, 0, 30.0))
    now = EPOCH + 31
    *three, fourth = [ledger.spend("batch", now) for _ in range(4)]
    ledger.answered(three[0], now)
    ledger.answered(three[1], now)
    ledger.refused(fourth, now, RateLimitHeaders(None, 0, 60.0))
    ledger.answered(three[2], now)
    assert [state.limit for state in ledger.states(now)] == [3]


def test_the_window_was_opened_by_a_call_that_left_before_the_refused_one() -> None:
    ledger = Ledger()
    _, _, refused, _ = [ledger.spend("batch", EPOCH + late) for late in (0.0, 0.1, 0.2, 0.3)]
    ledger.refused(refused, EPOCH + 0.4, RateLimitHeaders(2, 0, 59.8))
    assert ledger.wait("batch", EPOCH + 0.4) == pytest.approx(60.2, abs=0.01)


def test_a_call_that_one_window_refused_has_not_opened_the_other() -> None:
    ledger = Ledger([MINUTE, QuotaPolicy(5, 3600)])
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, RateLimitHeaders(2, 0, 30.0))
    assert [state.used for state in ledger.states(EPOCH)] == [2, 0]


@pytest.mark.parametrize("signs", [RateLimitHeaders(2, 0), RateLimitHeaders(2, 0, 0.0), RateLimitHeaders()])
def test_calls_that_are_refused_together_are_one_lesson(signs: RateLimitHeaders) -> None:
    # Catches: waits that grow with the number of calls on the wire.
    ledger = Ledger([MINUTE] if signs.limit else [])
    out = [ledger.spend("batch", EPOCH) for _ in range(4)]
    waits = []
    for spend in out:
        ledger.refused(spend, EPOCH + 0.1, signs)
        waits.append(ledger.wait("batch", EPOCH + 0.1))
    assert waits == [waits[0]] * 4


def test_who_comes_too_early_and_is_told_no_time_waits_for_a_moment_and_not_for_a_window() -> None:
    ledger = Ledger([MINUTE])
    spent(ledger, 2, EPOCH)
    now = EPOCH + ledger.wait("batch", EPOCH)
    ledger.refused(ledger.spend("batch", now), now, RateLimitHeaders(2, 0))
    assert 0 < ledger.wait("batch", now) < 10


# Calls that are on the wire when their window becomes known


def test_calls_on_the_wire_count_in_a_window_that_becomes_known() -> None:
    # Catches: as many calls too many as were out.
    ledger = Ledger()
    first, second = ledger.spend("batch", EPOCH), ledger.spend("batch", EPOCH)
    ledger.answered(first, EPOCH + 0.1, RateLimitHeaders(3, 2, 60.0))
    assert ledger.states(EPOCH + 0.1)[0].used == 2
    ledger.answered(second, EPOCH + 0.1, RateLimitHeaders(3, 1, 60.0))
    assert ledger.states(EPOCH + 0.1)[0].used == 2


def test_their_own_answers_tell_whether_they_were_counted_before() -> None:
    # Catches: a call of each window lost, since it was counted by the server and by us.
    ledger = Ledger()
    first, second = ledger.spend("batch", EPOCH), ledger.spend("batch", EPOCH)
    ledger.answered(first, EPOCH + 0.1, RateLimitHeaders(3, 1, 60.0))  # the second one came first
    assert ledger.wait("batch", EPOCH + 0.1) > 0
    ledger.answered(second, EPOCH + 0.1, RateLimitHeaders(3, 2, 60.0))
    assert ledger.states(EPOCH + 0.1)[0].used == 2
    assert ledger.wait("batch", EPOCH + 0.1) == 0
