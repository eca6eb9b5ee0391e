"""What the ledger foretells, against what it then does."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaPolicy
from omi_async.constants import BASE_URL
from tests.quotas.model import EPOCH

DAY = 86_400.0


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [(0, 0), (100, 0), (101, 60), (10_000, 99 * 60), (10_001, DAY), (10_101, DAY + 60), (20_001, 2 * DAY),
     (1_000_101, 100 * DAY + 60)],
)  # fmt: skip  # a table
def test_the_documented_limits_are_waited_for_together(calls: int, seconds: float) -> None:
    # Catches: the minutes of the last day left out, since the days take longer.
    assert Ledger.for_server(BASE_URL, None).seconds_for("batch", calls, EPOCH) == pytest.approx(seconds)


policies = st.builds(
    QuotaPolicy,
    limit=st.integers(1, 12),
    window=st.sampled_from([1.0, 7.0, 60.0, 600.0, 3600.0]),
    name=st.uuids().map(str),
)


def make_calls(ledger: Ledger, calls: int, now: float) -> float:
    """Make calls as soon as they may go; return when the last one went."""
    for _ in range(calls):
        now += ledger.wait("batch", now)
        ledger.answered(ledger.spend("batch", now), now)
    return now


@given(
    policies=st.lists(policies, max_size=3),
    before=st.integers(0, 20),
    after=st.floats(0, 100),
    calls=st.integers(0, 150),
)
@example(
    policies=[QuotaPolicy(1, 1.0, name="second"), QuotaPolicy(5, 7.0, name="week")],
    before=0,
    after=0.0,
    calls=9,
)
def test_what_is_foretold_comes_true(
    policies: list[QuotaPolicy], before: int, after: float, calls: int
) -> None:
    ledger = Ledger(policies)
    now = make_calls(ledger, before, EPOCH) + after
    foretold = ledger.seconds_for("batch", calls, now, live=True)
    # Each window is waited for by some milliseconds more than its length.
    assert make_calls(ledger, calls, now) - now == pytest.approx(foretold, abs=0.02 * (calls + 1))
