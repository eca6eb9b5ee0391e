"""What single answers teach the ledger: in the order of their coming, with others still on the wire."""

from __future__ import annotations

import pytest

from omi_async._quota import Ledger, QuotaPolicy
from omi_async._quota_signs import Signs
from tests.quotas.model import EPOCH

MINUTE = QuotaPolicy(2, 60, kinds=frozenset({"batch"}))


def spent(ledger: Ledger, count: int, now: float) -> Ledger:
    for _ in range(count):
        ledger.answered(ledger.spend("batch", now), now)
    return ledger


def refused_at_the_opening(ledger: Ledger, now: float, left: float) -> float:
    """Use a window up, and be refused when the next one should open; return when that was."""
    spent(ledger, 2, now)
    now += ledger.wait("batch", now)
    ledger.refused(ledger.spend("batch", now), now, Signs(2, 0, left))
    return now


def test_an_opening_that_came_too_early_is_waited_for_a_little_longer_from_then_on() -> None:
    # Catches: a refusal at each opening of a server whose minutes are a little longer than ours.
    ledger = Ledger([MINUTE])
    before = spent(Ledger([MINUTE]), 2, EPOCH).wait("batch", EPOCH)
    now = refused_at_the_opening(ledger, EPOCH, 0.25)
    now += ledger.wait("batch", now)
    spent(ledger, 2, now)
    assert ledger.wait("batch", now) == pytest.approx(before + 0.25)


def test_an_end_that_was_rounded_down_is_no_reason_to_wait_longer_for_those_we_know() -> None:
    # Catches: a second more at each opening for ever, learned from ends that came in whole seconds.
    ledger = Ledger([MINUTE])
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, Signs(2, 0, 30.0))  # others have opened it
    now = EPOCH + 30
    ledger.refused(ledger.spend("batch", now), now, Signs(2, 0, 0.0))
    now += ledger.wait("batch", now)
    before = spent(Ledger([MINUTE]), 2, now).wait("batch", now)
    assert spent(ledger, 2, now).wait("batch", now) == pytest.approx(before)


def test_a_window_that_others_have_used_up_is_no_reason_to_wait_longer_for_ours() -> None:
    ledger = Ledger([MINUTE])
    ledger.refused(ledger.spend("batch", EPOCH), EPOCH, Signs(2, 0, 30.25))
    now = EPOCH + 31.25
    before = spent(Ledger([MINUTE]), 2, now).wait("batch", now)
    assert spent(ledger, 2, now).wait("batch", now) == pytest.approx(before)


def test_calls_that_left_together_with_the_first_one_do_not_make_it_look_too_early() -> None:
    # Catches: a window that is tried again a second before its end, since the first to leave came second.
    ledger = Ledger()
    first, second = ledger.spend("batch", EPOCH), ledger.spend("batch", EPOCH)
    ledger.refused(first, EPOCH + 0.1, Signs(1, 0, 59.0))
    ledger.answered(second, EPOCH + 0.1)
    assert ledger.wait("batch", EPOCH + 0.1) >= 59.9
