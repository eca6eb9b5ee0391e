"""What a ledger knows, as text: nothing is lost on the way, and no garbage does harm."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omi_async._api.headers import RateLimitHeaders
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import KINDS, QuotaPolicy
from omi_async._quota.sharing import NO_STATE, dump, load
from tests.quotas.model import EPOCH
from tests.quotas.test_ledger_model import act

KEY = "omi_dev_0123456789abcdef"


def become(ledger: Ledger, text: bytes) -> Ledger:
    ledger.become(load(text, {}))
    return ledger


def read(ledger: Ledger, now: float) -> Any:
    fields = json.loads(dump(ledger.known(), now))
    calls = {kind: sorted(calls) for kind, calls in fields["calls"].items()}  # many are sent in one moment
    return {**fields, "out": sorted(fields["out"]), "calls": calls}


def numbered(out: list[Any]) -> None:
    """Give ids to calls, as a keeper does."""
    for number, call in enumerate(out):
        call.id = call.id or f"x-{number}-{call.sent}"


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["spend", "ok", "told", "refused", "edge", "lost", "back"]),
            st.sampled_from(sorted(KINDS)),
            st.floats(0, 5000),
            st.integers(0, 50),
            st.sampled_from([0.0, 1.0, 59.0, 60.0, 0.5, 3599.0, 3600.0, 86_400.0]),
        ),
        max_size=40,
    ),
    given_=st.booleans(),
)
@example(steps=[*[("spend", "batch", 1.0, 1, 60.0)] * 3, ("refused", "batch", 1.0, 2, 59.0)], given_=False)
def test_who_reads_it_knows_what_its_writer_knew(steps: list[Any], *, given_: bool) -> None:
    # Catches: an opener, a count or a wait that is lost, calls that are counted twice in a window.
    policies = [QuotaPolicy(9, 3600, kinds=frozenset({"create"}))] if given_ else []
    ledger, now = Ledger(policies, reserve=0.2), EPOCH
    out: list[Any] = []
    for step, kind, seconds, number, left in steps:
        now += seconds if step == "spend" else 0.01
        ledger = act(ledger, step, kind, now, number, left, out)
        numbered(out)
    text = dump(ledger.known(), now)
    other = become(Ledger(policies, reserve=0.2), text)
    assert read(other, now) == read(ledger, now)
    for kind in KINDS:
        for live in (True, False):
            for later in (0.0, 30.0, 3000.0):
                assert other.wait(kind, now + later, live=live) == ledger.wait(kind, now + later, live=live)
    shut = [state for state in ledger.states(now) if state.opens_at]
    assert [state for state in other.states(now) if state.opens_at] == shut
    calls = {call.id: call for call in other.known().out}
    assert calls.keys() == {call.id for call in out}
    for call in out:  # and each has its end there as well
        other.answered(calls[call.id], now + 1)
        ledger.answered(call, now + 1)
    assert read(other, now + 1) == read(ledger, now + 1)


def test_the_text_has_a_bound() -> None:
    # Catches: a record that grows with each call of a busy key, and is written before each of them.
    ledger = Ledger()
    for number in range(5000):
        for kind in ("batch", "create"):
            ledger.answered(ledger.spend(kind, EPOCH + number), EPOCH + number + 0.5)
    assert len(dump(ledger.known(), EPOCH + 5000)) < 8000


def _text() -> bytes:
    ledger = Ledger()
    for number in range(3):
        call = ledger.spend("batch", EPOCH + number, probe=number == 2)
        call.id = f"x-{number}"
    ledger.answered(next(iter(ledger.known().calls)), EPOCH + 3)
    ledger.refused([*ledger.known().calls][1], EPOCH + 3, RateLimitHeaders(1, 0, 3500.0))
    return dump(ledger.known(), EPOCH + 3)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[it for key, each in inner for it in paths(each, (*path, key))]]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_garbage_breaks_a_ledger(data: st.DataObject) -> None:
    # Catches: a record that another release, or a person, has written, and that every process stumbles over.
    fields: Any = {"": json.loads(_text())}
    path = ["", *data.draw(st.sampled_from(paths(fields[""])))]
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(JUNK)
    ledger = Ledger()
    try:
        ledger.become(load(json.dumps(fields[""]), {}))
    except NO_STATE:
        return
    ledger.tidy(EPOCH, "y-")
    for kind in KINDS:
        assert 0 <= ledger.wait(kind, EPOCH) < math.inf
        ledger.answered(ledger.spend(kind, EPOCH), EPOCH)
    dump(ledger.known(), EPOCH)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_text_of_ours_is_told_apart(text: bytes) -> None:
    with pytest.raises(NO_STATE):
        load(text, {})
