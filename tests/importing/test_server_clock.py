"""How far back a look must read: clocks that differ, answers that take their time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import assume, example, given
from hypothesis import strategies as st

from omi_async._api.messages import Response
from omi_async.errors import ServerError
from omi_async.importing.answers import ENOUGH_WITNESSES, MARGIN, ServerClock, moment_of
from omi_async.importing.item import Item

START = 1_790_000_000.0


class Call(NamedTuple):
    """A call: when it left, how long it took, after which share of that it stored its memory, and where."""

    after: float
    took: float
    share: float
    machine: int


def written(seconds: float, digits: int) -> str:
    """Write a moment as a server does that leaves out what is finer."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6]
    return (text[:-7] if digits == 0 else text[: digits - 6 or None]) + "Z"


def learn(clock: ServerClock, call: Call, offsets: list[float], digits: int) -> None:
    """Let the clock see the answer to a call."""
    sent = START + call.after
    received, offset = sent + call.took, offsets[call.machine]
    stored = written(sent + call.took * call.share + offset, digits)
    date = datetime.fromtimestamp(received + offset, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    answer = Response(200, {"Date": date}, sent=sent, received=received)
    clock.learn(answer)
    clock.witness(stored, answer)


def in_doubt(sent: float) -> Item:
    item = Item(0, {"content": "a"})  # type: ignore[typeddict-item]  # the clock reads none of the rest
    item.doubt(ServerError("x", status=500), sent)
    return item


moments = st.floats(0.0, 3600.0)
shares = st.floats(0.0, 1.0)
offsets = st.floats(0.0, MARGIN - 0.01)
skews = st.floats(-1e6, 1e6)


def calls(durations: Any, machines: Any) -> Any:
    return st.builds(Call, moments, durations, shares, machines)


@given(
    st.lists(calls(st.floats(0.0, 30.0), st.integers(0, 2)), min_size=1, max_size=ENOUGH_WITNESSES - 1),
    calls(st.floats(0.0, 30.0), st.integers(0, 2)),
    st.lists(offsets, min_size=3, max_size=3),
    skews,
)
@example([Call(0, 0, 0, 0)], Call(0, 0, 0, 1), [MARGIN - 0.01, 0, 0], 0.0)
def test_with_few_answers_any_machine_may_have_stored_it(
    seen: list[Call], lost: Call, machines: list[float], skew: float
) -> None:
    # Catches: a margin that is less than the machines' clocks may differ.
    machines = [offset + skew for offset in machines]
    clock = ServerClock(START)
    for call in sorted(seen):
        learn(clock, call, machines, 6)
    assert_not_missed(clock, lost, machines, 6)


@given(
    st.lists(calls(st.floats(0.0, 2.0), st.integers(0, 2)), min_size=ENOUGH_WITNESSES, max_size=24),
    calls(st.floats(0.0, 30.0), st.integers(0, 2)),
    st.lists(offsets, min_size=3, max_size=3),
    skews,
    st.sampled_from([0, 3, 6]),
)
@example([Call(n, 0.01, 1.0, n % 2) for n in range(8)], Call(3, 5.0, 0.0, 1), [0.5, 0, 0], 0.0, 6)
@example(
    [Call(0, 0, 0, 0), *[Call(n, 0.5, 1.0, 1) for n in range(1, 8)]], Call(9, 0, 0, 1), [0.5, 0.1, 0], 0.0, 6
)
@example([Call(n, 0.0, 0.0, 0) for n in range(1, 10)], Call(3.7, 0.0, 0.0, 0), [0, 0, 0], 0.0, 0)
@example([*[Call(0, 0, 0, 0)] * 7, Call(1.5, 0, 0, 1)], Call(0, 0, 0, 0), [0, 1.75, 0], 1.75, 0)
def test_with_many_answers_each_machine_that_gave_one_of_the_quickest_may_have(
    seen: list[Call], lost: Call, machines: list[float], skew: float, digits: int
) -> None:
    # Catches: a margin that is less than the answers prove; a server's clock of whole seconds taken for a
    # fine one.
    quickest = sorted(call.took for call in seen)[ENOUGH_WITNESSES - 1]
    assume(any(call.machine == lost.machine and call.took <= quickest for call in seen))
    machines = [offset + skew for offset in machines]
    clock = ServerClock(START)
    for call in sorted(seen):
        learn(clock, call, machines, digits)
    assert_not_missed(clock, lost, machines, digits)


def assert_not_missed(clock: ServerClock, lost: Call, machines: list[float], digits: int) -> None:
    before = clock.before(in_doubt(START + lost.after))
    stored = moment_of(written(START + lost.after + lost.took * lost.share + machines[lost.machine], digits))
    assert before is not None
    assert stored is not None
    assert (before - stored).total_seconds() < 1e-4  # a float of epoch seconds is no finer after some sums


@given(st.lists(calls(st.floats(0.0, 0.01), st.just(0)), min_size=ENOUGH_WITNESSES, max_size=24), skews)
@example([Call(0, 0, 0, 0)] * ENOUGH_WITNESSES, 60.0)
def test_of_one_clock_the_margin_is_as_narrow_as_the_answers_are_quick(seen: list[Call], skew: float) -> None:
    # Catches: seconds of an account that was just filled read again, beyond what the list shows.
    clock = ServerClock(START - 2.0)  # a Date leaves a second open
    for call in sorted(seen):
        learn(clock, call, [skew], 6)
    before = clock.before(in_doubt(START))
    assert before is not None
    assert abs(before.timestamp() - START - skew) < 0.021
