"""The importer's small parts, without a server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import Fact, FactOutcome, ImportFailedError, InvalidFactError, ServerError, Session
from omi_async._api.messages import BatchAnswer, Response
from omi_async.errors import InvalidRequestError
from omi_async.fact import fact_payload
from omi_async.importing.answers import KnownRefusals, ServerClock, match, may_be_locked
from omi_async.importing.breaker import Breaker
from omi_async.importing.item import Item, content_key
from omi_async.importing.report import FAILURES_KEPT, ImportReport
from omi_async.importing.stopping import ImportHalted, StopSignal
from tests.clock import elapsed


@pytest.mark.parametrize("source", ["text", b"bytes", {"content": "x"}, 7, None, Fact("x")])
async def test_one_fact_is_no_source_of_facts(session: Session, source: Any) -> None:
    with pytest.raises(TypeError, match="must be an iterable of facts"):
        session.memories.importer(source)


async def test_a_data_frame_would_give_the_names_of_its_columns(session: Session) -> None:
    class Frame(list[str]):
        columns = ("content",)

    with pytest.raises(TypeError, match="gives its columns, not its rows"):
        session.memories.importer(Frame(["content"]))


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_equal_keys_mean_equal_texts(one, other) -> None:
    assert (content_key(one) == content_key(other)) == (one == other)
    assert content_key(one) == blake2b(one.encode(), digest_size=16).digest()


def item(content: str, index: int = 0, category: str | None = None) -> Item:
    return Item(index, fact_payload(Fact(content, category=category)))


def test_an_answer_is_matched_by_text() -> None:
    items = [item("a", 0), item("b", 1), item("b", 2), item("c", 3), item("d", 4), item("d", 5)]
    memories = BatchAnswer([*"94321"], ["stranger", " d ", "b", "b", "a"], [""] * 5, Response(200))
    matched = match(items, memories, ServerClock(0.0))
    assert {found.state for found in matched.found} == {"created"}
    assert [(found.index, found.memory_id) for found in matched.found] == [
        (0, "1"),
        (1, "3"),
        (2, "2"),
        (4, "4"),
    ]
    # A fact that has no memory of its own in the answer may not be stored: three equal ones are not one.
    assert [missing.index for missing in matched.missing] == [3, 5]
    assert [missing.others for missing in matched.missing] == [set(), {"4"}]
    assert matched.strangers == 1


texts = st.lists(st.sampled_from("abcde"), max_size=8)


@given(texts, texts, st.sampled_from(["", " "]))
@example(["a", "a", "b"], ["a", "a", "b"], "")
@example(["a", "b"], ["b", "c"], "")  # one is missing
def test_each_of_equal_texts_takes_a_memory_of_its_own_while_there_are_enough(sent, named, pad) -> None:
    items = [item(content, index) for index, content in enumerate(sent)]
    ids = [*map(str, range(len(named)))]
    matched = match(
        items,
        BatchAnswer(ids, [f"{pad}{text}" for text in named], [""] * len(named), Response(200)),
        ServerClock(0.0),
    )
    left = {
        text: [number for number, other in zip(ids, named, strict=True) if other == text] for text in named
    }
    expected = [(each, left[text].pop(0)) for each, text in zip(items, sent, strict=True) if left.get(text)]
    assert [(each, each.memory_id) for each in matched.found] == expected
    assert {*matched.missing} == {*items} - {each for each, _ in expected}
    if matched.missing:
        assert matched.strangers == len(set(named) - set(sent))


@pytest.mark.parametrize(
    ("text", "listed", "locked"),
    [
        ("x" * 90, "x" * 70 + "...", True),
        ("x" * 90, "x" * 69 + "...", False),
        ("x" * 90, "x" * 70, False),
        ("y" * 90, "x" * 70 + "...", False),
        ("x" * 70, "x" * 70 + "...", True),
        ("short", "short...", True),
        ("shorter", "short...", False),
    ],
)
def test_a_locked_memory_may_be_any_that_begins_like_it(text: str, listed: str, locked: bool) -> None:
    assert may_be_locked(item(text), listed) is locked


# Clocks


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC), usegmt=True)


def created(seconds: float, timespec: str = "microseconds") -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def dated(date: str | None, sent: float, received: float) -> Response:
    return Response(200, {} if date is None else {"Date": date}, sent=sent, received=received)


@given(
    started=st.floats(1e9, 2e9),
    before_sending=st.floats(0, 100),
    on_the_way=st.floats(0.001, 5),
    work=st.floats(0, 100),
    skew=st.one_of(st.just(0.0), st.floats(2, 1e6), st.floats(-1e6, -200)),
)
def test_what_this_import_stored_is_never_called_existing(
    started, before_sending, on_the_way, work, skew
) -> None:
    start = ServerClock(started)
    sent = started + before_sending
    stored = sent + on_the_way
    answered = stored + work
    received = answered + on_the_way
    start.learn(dated(http_date(answered + skew), sent, received))
    assert start.state_of(created(stored + skew + 1e-5)) == "created"
    # The evidence is as good as the round trip is short.
    assert start.state_of(created(started + skew - (received - sent) - 1.1)) == "existing"


def test_the_first_date_counts() -> None:
    start = ServerClock(1e9)
    start.learn(dated(http_date(1e9), 1e9, 1e9 + 0.5))
    start.learn(dated(http_date(2e9), 1e9, 1e9 + 0.5))
    assert start.state_of(created(1e9 + 1)) == "created"
    assert start.state_of(created(1e9 - 0.001)) == "existing"


@pytest.mark.parametrize("date", [None, "", "nonsense", "Fri, 31 Dec 9999 23:59:59 -0100"])
def test_without_a_date_the_clocks_are_taken_to_agree(date: str | None) -> None:
    start = ServerClock(1e9)
    assert start.state_of(created(1e9 - 5)) == "created"  # nothing known yet
    start.learn(dated(date, 1e9, 1e9 + 1))
    assert start.state_of(created(1e9 - 5)) == "existing"
    assert start.state_of(created(1e9 + 5)) == "created"


@pytest.mark.parametrize("moment", ["", "yesterday", "2001-13-45T00:00:00Z"])
def test_an_unreadable_moment_is_no_evidence(moment: str) -> None:
    start = ServerClock(2e9)
    start.learn(dated(None, 2e9, 2e9))
    assert start.state_of(moment) == "created"


def test_a_moment_without_a_zone_is_utc_and_whole_seconds_may_be_a_second_later() -> None:
    start = ServerClock(1e9 + 0.5)
    start.learn(dated(None, 1e9, 1e9))
    assert start.state_of(created(1e9, "seconds")) == "created"
    assert start.state_of(created(1e9)) == "existing"
    assert start.state_of(created(1e9 - 1, "seconds")) == "existing"
    assert start.state_of("2001-09-09T01:46:30") == "existing"
    assert start.state_of("9999-12-31T23:59:59.9Z") == "created"


# Rules


def refusal(*problems: Any) -> InvalidRequestError:
    return InvalidRequestError("no", status=422, detail=list(problems))


def test_rules_are_learned_only_from_what_can_be_true() -> None:
    rules = KnownRefusals()
    items = [item("x" * 50, category="odd"), item("y" * 10)]
    place = ["body", "memories", 0]
    long = {"type": "string_too_long", "ctx": {"max_length": 40}}
    rules.learn(refusal({"loc": ["body", "memories", 7, "content"], **long}), items)
    rules.learn(refusal({"loc": ["body", "memories", 1, "content"], **long}), items)
    rules.learn(refusal({"loc": ["body", "memories", 9, "category"], "type": "enum"}), items)
    rules.learn(refusal("nonsense", {"loc": "?"}), items)
    rules.learn(InvalidRequestError("no", status=422, detail="a sentence"), items)
    assert rules.any is False
    rules.learn(refusal({"loc": [*place, "content"], **long}), items)
    rules.learn(refusal({"loc": [*place, "category"], "type": "enum"}), items)
    assert bool(rules.any)  # mypy still knows it from above
    too_long = rules.refuse(fact_payload(Fact("z" * 41)))
    assert too_long is not None
    assert too_long.field == "content"
    assert "at most 40" in str(too_long)
    odd = rules.refuse(fact_payload(Fact("fine", category="odd")))
    assert odd is not None
    assert odd.field == "category"
    assert rules.refuse(fact_payload(Fact("z" * 40, category="system"))) is None
    assert rules.refuse(fact_payload(Fact("no category"))) is None


# The breaker


def broken(breaker: Breaker) -> bool:
    return breaker.broken is not None


def failure() -> ServerError:
    return ServerError("down", status=500)


@pytest.mark.virtual_clock
async def test_a_breaker_lets_one_probe_through_after_growing_pauses_and_gives_up() -> None:
    breaker = Breaker()
    for _ in range(5):
        assert await breaker.passage() is False
        breaker.failed(failure(), probe=False)
    breaker.failed(failure(), probe=False)  # one that was on its way
    pauses = []
    for _ in range(6):
        assert breaker.broken is None
        before = asyncio.get_running_loop().time()
        assert await breaker.passage() is True
        pauses.append(elapsed(before))
        other = asyncio.create_task(breaker.passage())
        await asyncio.sleep(1)
        assert not other.done()
        other.cancel()
        breaker.failed(failure(), probe=True)
        breaker.done(probe=True)
    assert pauses == pytest.approx([2, 4, 8, 16, 32, 60], abs=1.01)
    assert broken(breaker)
    breaker.succeeded()
    assert not broken(breaker)
    assert await breaker.passage() is False


@pytest.mark.virtual_clock
async def test_those_who_wait_for_a_probe_follow_it() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(failure(), probe=False)
    assert await breaker.passage() is True
    followers = [asyncio.create_task(breaker.passage()) for _ in range(3)]
    await asyncio.sleep(0)
    breaker.done(probe=True)  # taken back without an answer: the next is the probe
    await asyncio.sleep(0.1)
    assert sorted(task.done() for task in followers) == [False, False, True]
    breaker.succeeded()
    breaker.done(probe=True)
    assert sorted(await asyncio.gather(*followers)) == [False, False, True]


# Stopping


@pytest.mark.virtual_clock
async def test_a_stop_interrupts_what_waits_and_nothing_else() -> None:
    signal = StopSignal()
    waits = asyncio.create_task(signal.wait_for(asyncio.sleep(1000)))
    works = asyncio.create_task(asyncio.sleep(5, "done"))
    await asyncio.sleep(0)
    signal.stop()
    signal.stop()
    before = asyncio.get_running_loop().time()
    with pytest.raises(ImportHalted):
        await waits
    assert elapsed(before) == 0
    assert await works == "done"
    with pytest.raises(ImportHalted):
        await signal.wait_for(asyncio.sleep(1))


@pytest.mark.virtual_clock
async def test_what_may_land_has_so_many_seconds_from_the_stop() -> None:
    # Catches: seconds that are counted from the beginning, and a stop beforehand that gives none at all.
    for stopped_before in (False, True):
        signal = StopSignal()
        asyncio.get_running_loop().call_later(0 if stopped_before else 100, signal.stop)
        await asyncio.sleep(0.01)
        before = asyncio.get_running_loop().time()
        with pytest.raises(ImportHalted):
            async with signal.ends_after(7):
                await asyncio.sleep(1000)
        assert elapsed(before) == pytest.approx(7 if stopped_before else 107, abs=0.1)


@pytest.mark.virtual_clock
async def test_a_time_out_of_the_source_is_its_own() -> None:
    async def source() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await StopSignal().wait_for(source())


@pytest.mark.virtual_clock
async def test_a_task_that_stops_itself_goes_on_to_where_it_waits_next() -> None:
    signal = StopSignal()

    async def ends() -> str:
        signal.stop()
        return "landed"

    async def waits() -> None:
        signal.stop()
        await asyncio.sleep(1000)

    task = asyncio.create_task(signal.wait_for(ends()))
    assert await task == "landed"
    signal = StopSignal()
    with pytest.raises(ImportHalted):
        await asyncio.create_task(signal.wait_for(waits()))


@pytest.mark.virtual_clock
async def test_a_cancellation_is_no_stop() -> None:
    signal = StopSignal()
    task = asyncio.create_task(signal.wait_for(asyncio.sleep(1000)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    both = asyncio.create_task(signal.wait_for(asyncio.sleep(1000)))
    await asyncio.sleep(0)
    both.cancel()
    signal.stop()
    with pytest.raises(asyncio.CancelledError):
        await both


# The report


def outcome(index: int, state: Any, **about: Any) -> FactOutcome:
    return FactOutcome(index, Fact("x"), state, **about)


def test_a_report_tells_all_in_words() -> None:
    report = ImportReport(pulled=1203, complete=True, requests=50, retries=2, elapsed=1.25)
    for index in range(1200):
        report.add(outcome(index, "created"))
    assert report.ok
    report.raise_for_failures()
    assert str(report) == "1,203 facts: 1,200 created\n50 calls (2 of them repeats) in 1.2 s"
    report.add(outcome(1200, "rejected", error=failure(), origin="facts.csv:17"))
    report.add(FactOutcome(1201, None, "invalid", error=InvalidFactError("content: is empty")))
    report.add(outcome(1202, "not_sent"))
    report.complete = False
    assert report.failed == 3
    assert report.settled == report.pulled
    assert str(report).splitlines() == [
        "1,203 facts: 1,200 created, 1 invalid, 1 rejected, 1 not sent; the import did not come to its end",
        "50 calls (2 of them repeats) in 1.2 s",
        "  facts.csv:17: rejected: down",
        "  fact 1201: invalid: content: is empty",
    ]


def test_failures_are_raised_together_each_with_its_place() -> None:
    shared = failure()
    shared.add_note("said by the server")
    report = ImportReport(pulled=3)
    report.add(outcome(0, "unknown", error=shared))
    report.add(outcome(1, "unknown", error=shared))
    report.add(outcome(2, "not_sent"))
    with pytest.raises(ImportFailedError, match="3 of 3 facts are not safely stored") as raised:
        report.raise_for_failures()
    notes = [error.__notes__ for error in raised.value.exceptions]
    assert notes == [
        ["said by the server", "fact 0: unknown"],
        ["said by the server", "fact 1: unknown"],
        ["fact 2: not_sent"],
    ]
    first = raised.value.exceptions[0]
    assert isinstance(first, ServerError)
    assert (first.status, first.maybe_applied, str(first)) == (500, True, "down")
    assert shared.__notes__ == ["said by the server"]


def test_a_report_of_many_failures_stays_small() -> None:
    report = ImportReport(pulled=FAILURES_KEPT + 5)
    for index in range(report.pulled):
        report.add(outcome(index, "rejected", error=failure()))
    assert report.rejected == FAILURES_KEPT + 5
    assert len(report.failures) == FAILURES_KEPT
    assert str(report).endswith("\n  ... and 9,995 more")
