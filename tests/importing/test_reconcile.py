"""Lost answers: what is found out, what is sent again, and what stays unknown."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_async import FactOutcome, ImportStoppedError, ResponseFormatError, ServerError, Session
from omi_async._api import json
from omi_async._api.messages import ListedMemory
from omi_async.importing import looks
from omi_async.importing.looks import FallingOrder
from omi_async.local import FOREVER, Chaos, Fault, LocalServer
from tests.clock import elapsed, run
from tests.importing.helpers import assert_complete, calls, counts, facts, serving, sizes

LOSSES = [
    Fault.answer(500, "x"),
    Fault.answer(500, "x", stored=True),
    Fault.answer(503, "Canonical memory unavailable"),
    Fault.after_prefix(0),
    Fault.after_prefix(7),
    Fault.after_prefix(24),
    Fault.after_all(),
    Fault.empty(504),
    Fault.empty(504, stored=True),
    Fault.html(502),
    Fault.html(502, stored=True),
    Fault.garbage(),
    Fault.garbage(b"[]"),
    Fault.garbage(b'{"memories": 7}', stored=False),
    Fault.reset(),
    Fault.reset(stored=True),
    Fault.half_body(),
    Fault.names_only(0),
    Fault.names_only(23),
    Fault.slow(130),
    Fault.slow(130, stored=True),
]


@pytest.mark.parametrize("fault", LOSSES, ids=str)
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.virtual_clock
async def test_nothing_is_lost_and_nothing_stored_twice(fault: Fault, times: int) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(fault, on="batch", times=times)
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(facts(110), concurrency=2, on_outcome=outcomes.append)
        assert counts(report) == {"created": 110}
        assert_complete(report, outcomes)
        server.assert_each_stored_once(facts(110))
        assert len(server.memories()) == 110
        ids = {memory["content"]: memory["id"] for memory in server.memories()}
        assert all(o.fact is not None and o.memory_id == ids[o.fact.content] for o in outcomes)


@pytest.mark.virtual_clock
async def test_a_short_answer_in_another_order_is_read_by_text() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.reordered(), Fault.names_only(23), on="batch")
        moments: dict[int, float] = {}
        before = asyncio.get_running_loop().time()

        def on_outcome(outcome: FactOutcome) -> None:
            moments[outcome.index] = elapsed(before)

        report = await session.memories.import_facts(facts(50), concurrency=1, on_outcome=on_outcome)
        assert counts(report) == {"created": 50}
        late = sorted(index for index, moment in moments.items() if moment >= 1)
        assert late == [48, 49]  # the two that the second answer did not name
        assert sizes(server) == [25, 25]
        assert calls(server, "list") == 1


@pytest.mark.virtual_clock
async def test_several_doubtful_batches_share_one_look() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.after_all(), on="batch", times=4)
        report = await session.memories.import_facts(facts(100), concurrency=4)
        assert counts(report) == {"created": 100}
        assert calls(server, "list") == 1
        assert calls(server, "batch") == 4


@pytest.mark.virtual_clock
async def test_absence_takes_two_whole_looks() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.after_prefix(0), on="batch")
        report = await session.memories.import_facts(facts(25))
        assert counts(report) == {"created": 25}
        assert calls(server, "list") == 2
        assert [record.kind for record in server.requests] == ["batch", "list", "list", "batch"]


@pytest.mark.parametrize("lag", [0.5, 2, 4, 5.9])
@pytest.mark.parametrize("fault", [Fault.after_all(), Fault.after_prefix(10), Fault.reset(stored=True)])
@pytest.mark.virtual_clock
async def test_a_list_that_lags_causes_no_doubles(lag: float, fault: Fault) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.list_lag(lag))
        server.faults.add(fault, on="batch", times=3)
        report = await session.memories.import_facts(facts(100), concurrency=2)
        assert counts(report) == {"created": 100}
        server.assert_each_stored_once(facts(100))
        assert len(server.memories()) == 100


@pytest.mark.parametrize("batch_timeout", [5.0, 120.0])
@pytest.mark.virtual_clock
async def test_a_server_may_go_on_writing_after_the_client_gave_up(batch_timeout: float) -> None:
    async with serving(text_identity=False, session={"batch_timeout": batch_timeout}) as (server, session):
        server.faults.add(Fault.slow(batch_timeout + 9), on="batch", times=2)
        report = await session.memories.import_facts(facts(50), concurrency=2)
        assert counts(report) == {"created": 50}
        server.assert_each_stored_once(facts(50))
        assert len(server.memories()) == 50


# Evidence withheld


class Hidden(Fault):
    """The list is read, then bent: a header added, elements replaced, texts cut."""

    kinds = ("list",)

    def __init__(self, *, headers: dict[str, str] | None = None, bend: Any = None) -> None:
        self.headers = headers or {}
        self.bend = bend

    async def happen(self, work: Any, sleep: Any) -> Any:
        reply = await work()
        body = reply.body if self.bend is None else json.dumps(self.bend(json.loads(reply.body)))
        return attrs.evolve(reply, body=body, headers=(*reply.headers, *self.headers.items()))


def locked(memories: list[Any]) -> list[Any]:
    return [memory | {"content": memory["content"][:70] + "..."} for memory in memories]


def one_unreadable(memories: list[Any]) -> list[Any]:
    return [{"id": "bad"}, *memories[1:]]


def without_the_first_batch(memories: list[Any]) -> list[Any]:
    return [memory for memory in memories if int(memory["content"].split()[-1]) >= 25]


def shifting(memories: list[Any]) -> list[Any]:
    """The last page does not begin with the last memory of the page before: something was removed."""
    return without_the_first_batch(memories) if len(memories) == 57 else []


class CutShort(Hidden):
    async def happen(self, work: Any, sleep: Any) -> Any:
        """Say so on the first page only."""
        reply = await super().happen(work, sleep)
        return reply if reply.body.count(b'"content"') > 1 else attrs.evolve(reply, headers=())


HIDDEN: dict[str, tuple[Fault, str]] = {
    "truncated": (Hidden(headers={"X-Omi-List-Truncated": "true"}, bend=lambda m: m[:5]), "list"),
    "truncated in its middle": (
        CutShort(headers={"X-Omi-List-Truncated": "true"}, bend=without_the_first_batch),
        "list",
    ),
    "shifting": (Hidden(bend=shifting), "list"),
    "empty and truncated": (Hidden(headers={"X-Omi-List-Truncated": "true"}, bend=lambda _: []), "list"),
    "unreadable": (Hidden(bend=one_unreadable), "list"),
    "too deep": (Fault.answer(413, "Historical memory pagination window exceeded"), "list"),
    "write-only key": (Fault.answer(403, "Insufficient permissions. Required scope: memories:read"), "list"),
    "failing": (Fault.answer(500, "x"), "list"),
    "garbage": (Fault.garbage(), "list"),
    "reset": (Fault.reset(), "list"),
    "the same forever": (Hidden(bend=lambda m: [{"id": "1", "content": "x"}] * 2), "list"),
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("text", ["short", "long"])
@pytest.mark.virtual_clock
async def test_what_the_list_hides_stays_unknown_and_is_not_sent_again(name: str, text: str) -> None:
    async with serving(text_identity=False) as (server, session):
        given = facts(75, prefix=text if text == "short" else "x" * 100)
        if text == "long":
            given = [type(f)(f"{n} {f.content}", category="system") for n, f in enumerate(given)]
        fault, on = HIDDEN[name]
        server.faults.add(fault, on=on, times=FOREVER)
        server.faults.add(Fault.after_all(), Fault.slow(0), Fault.after_prefix(7), on="batch")
        outcomes: list[FactOutcome] = []
        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(given, concurrency=2, on_outcome=outcomes.append)
        assert elapsed(before) < 400
        assert report.pulled == 75
        assert_complete(report, outcomes)
        # However little the list shows, no fact is believed absent: nothing is sent again.
        assert calls(server, "batch") == 3
        assert calls(server, "create") == 0
        assert len(server.memories()) == 57
        stored = {memory["content"] for memory in server.memories()}
        assert {o.fact.content for o in outcomes if o.state == "created" and o.fact} <= stored
        assert report.created + report.unknown == 75
        assert report.unknown >= 18
        assert all(isinstance(o.error, ServerError) for o in report.failures)
        assert {o.state for o in report.failures} == {"unknown"}


@pytest.mark.virtual_clock
async def test_what_a_bad_page_does_show_is_found() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(HIDDEN["unreadable"][0], on="list", times=FOREVER)
        server.faults.add(Fault.after_all(), on="batch")
        report = await session.memories.import_facts(facts(25))
        assert counts(report) == {"created": 24, "unknown": 1}


@pytest.mark.parametrize("prefix", ["short", "long " + "x" * 100])
@pytest.mark.virtual_clock
async def test_a_locked_memory_is_no_evidence_of_absence(prefix: str) -> None:
    async with serving(text_identity=False) as (server, session):
        given = [f"{n} {prefix}" for n in range(50)]
        server.faults.add(Hidden(bend=locked), times=FOREVER)
        server.faults.add(Fault.after_all(), Fault.after_prefix(7), on="batch")
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(given, concurrency=1, on_outcome=outcomes.append)
        # Of what may stand there cut short, nothing is sent again; the others are.
        assert counts(report) == {"created": 18, "unknown": 32}
        assert sizes(server) == [25, 25, 18]
        server.assert_each_stored_once(given)
        assert len(server.memories()) == 50


@pytest.mark.parametrize("listed", [0, 10])
@pytest.mark.virtual_clock
async def test_a_list_that_cannot_be_read_to_its_end_proves_nothing(listed: int) -> None:
    async with serving(text_identity=False, list_window=1005) as (server, session):
        # So many of one category that its own list does not show them all either.
        server.add(*(f"old {n}" for n in range(3_600)), category="system")
        server.faults.add(Fault.after_prefix(listed), on="batch")
        report = await session.memories.import_facts(facts(25))
        # The newest come first, so what was stored is seen; the rest may stand deeper.
        assert counts(report) == {k: v for k, v in {"created": listed, "unknown": 25 - listed}.items() if v}
        assert calls(server, "batch") == 1


@pytest.mark.virtual_clock
async def test_a_long_list_is_read_to_its_end() -> None:
    async with serving(text_identity=False) as (server, session):
        server.add(*(f"old {n}" for n in range(2_500)))
        server.faults.add(Fault.after_prefix(10), on="batch")
        report = await session.memories.import_facts(facts(25))
        assert counts(report) == {"created": 25}
        assert len(server.memories()) == 2_525


@pytest.mark.virtual_clock
async def test_the_looks_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "LIST_CALLS", 3)
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.after_prefix(0), on="batch", times=6)
        report = await session.memories.import_facts(facts(75), concurrency=1)
        assert calls(server, "list") == 3
        assert report.created + report.unknown == 75
        assert report.unknown > 0
        assert report.created == len(server.memories())


@pytest.mark.parametrize("held", [0, 4_500, 7_000])
@pytest.mark.parametrize("created", ["2025-01-01T00:00:00.000000Z", None], ids=["aged", "just filled"])
@pytest.mark.parametrize("text_identity", [True, False])
@pytest.mark.parametrize("seconds", [0.0, 0.5])
@pytest.mark.parametrize(
    "fault", [Fault.after_all(), Fault.after_prefix(10), Fault.answer(500, "x")], ids=str
)
@pytest.mark.virtual_clock
async def test_a_look_reads_no_further_back_than_it_needs(
    held: int, created: str | None, text_identity: bool, seconds: float, fault: Fault
) -> None:
    # Catches: looks through the whole account, in vain beyond 5,000 and while the import goes on writing;
    # memories taken for ours because they are young.
    async with serving(text_identity=text_identity) as (server, session):
        server.add(*(f"old {n}" for n in range(held)), **({} if created is None else {"created_at": created}))
        slow = Fault.slow(seconds)
        server.faults.add(*[slow] * 9, fault, *[slow] * 9, fault, on="batch")
        server.faults.add(slow, on="batch", times=FOREVER)
        report = await session.memories.import_facts(facts(1500))
        assert counts(report) == {"created": 1500}
        assert calls(server, "list") <= 8
        assert len(server.memories()) == held + 1500
        server.assert_each_stored_once(facts(1500))


@pytest.mark.parametrize(("held", "settled"), [(0, True), (4_500, True), (7_000, False)])
@pytest.mark.virtual_clock
async def test_without_other_answers_a_young_account_is_read_as_far_as_it_is_shown(
    held: int, settled: bool
) -> None:
    # Nothing shows how far the clocks differ, so nothing proves that what is hidden is older.
    async with serving(text_identity=False) as (server, session):
        server.add(*(f"old {n}" for n in range(held)))
        server.faults.add(Fault.answer(500, "x"), times=2, on="batch")
        report = await session.memories.import_facts(facts(50))
        assert counts(report) == ({"created": 50} if settled else {"unknown": 50})
        assert calls(server, "list") <= 8
        assert len(server.memories()) == held + report.created


def listed(created: int | None, *, updated: int | None = None, scored: bool = False) -> ListedMemory:
    texts = ["" if day is None else f"2026-01-{day:02}T00:00:00Z" for day in (created, updated)]
    return ListedMemory("id", "text", texts[0], texts[1], scored)


@pytest.mark.parametrize(
    ("pages", "reaches"),
    [
        ([[listed(9), listed(8)], [listed(8), listed(4)]], True),
        ([[listed(9), listed(8)], [listed(6)]], False),
        ([[]], False),
        # A young one behind an old one: the next page may hold another.
        ([[listed(9), listed(4)], [listed(8), listed(3)]], False),
        ([[listed(9), listed(None), listed(4)]], False),
        ([[listed(9), listed(4, scored=True)]], False),
        # Ordered by the last change: an old memory that was changed stands in front.
        ([[listed(2, updated=9), listed(8, updated=8), listed(3, updated=3)]], True),
        ([[listed(2, updated=9), listed(8, updated=8), listed(3, updated=6)]], False),
    ],
)
def test_a_look_stops_only_if_the_order_is_proven(pages: list[list[ListedMemory]], reaches: bool) -> None:
    order = FallingOrder()
    for page in pages:
        order.read(page)
    assert order.reaches(datetime(2026, 1, 5, tzinfo=UTC)) is reaches
    assert not order.reaches(None)


@pytest.mark.virtual_clock
async def test_a_memory_that_was_changed_does_not_hide_the_order() -> None:
    async with serving(text_identity=False) as (server, session):
        server.add(*(f"old {n}" for n in range(7_000)), created_at="2025-01-01T00:00:00.000000Z")
        await session.memories.update(server.memories()[5]["id"], visibility="public")
        server.faults.add(Fault.after_prefix(10), on="batch")
        report = await session.memories.import_facts(facts(25))
        assert counts(report) == {"created": 25}
        assert calls(server, "list") <= 4


@pytest.mark.virtual_clock
async def test_a_failing_list_is_asked_again() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.answer(500, "x"), Fault.reset(), Fault.rate_limited(60), on="list")
        server.faults.add(Fault.after_prefix(12), on="batch")
        report = await session.memories.import_facts(facts(50))
        assert counts(report) == {"created": 50}
        assert len(server.memories()) == 50


@pytest.mark.virtual_clock
async def test_strangers_in_an_answer_may_be_the_facts_in_other_words() -> None:
    class Reworded(Hidden):
        kinds = ("batch",)

    async with serving(text_identity=False) as (server, session):

        def reword(body: Any) -> Any:
            body["memories"][3]["content"] = "in other words"
            return body

        server.faults.add(Reworded(bend=reword))
        server.faults.add(Hidden(bend=lambda m: [x for x in m if x["content"] != "fact 3"]), times=FOREVER)
        report = await session.memories.import_facts(facts(25))
        assert counts(report) == {"created": 24, "unknown": 1}
        assert report.failures[0].index == 3
        assert isinstance(report.failures[0].error, ResponseFormatError)
        assert calls(server, "batch") == 1
        assert len(server.memories()) == 25


@pytest.mark.parametrize("text_identity", [True, False])
@pytest.mark.parametrize(
    "fault", [Fault.after_prefix(1), Fault.names_only(1), Fault.after_all(), Fault.reset()]
)
@pytest.mark.virtual_clock
async def test_one_memory_is_not_taken_for_three_equal_facts(fault: Fault, text_identity: bool) -> None:
    async with serving(text_identity=text_identity) as (server, session):
        server.faults.add(fault, on="batch")
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(
            ["same", "same", "same", "other"], dedupe=False, on_outcome=outcomes.append
        )
        assert_complete(report, outcomes)
        assert report.created + report.existing == 4
        stored = [memory["id"] for memory in server.memories()]
        assert len(stored) == (2 if text_identity else 4)
        assert {outcome.memory_id for outcome in outcomes} == {*stored}


# The other modes


@pytest.mark.parametrize("fault", [f for f in LOSSES if "slow" not in str(f)], ids=str)
@pytest.mark.virtual_clock
async def test_report_neither_looks_nor_sends_again(fault: Fault) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(fault, on="batch")
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(
            facts(50), concurrency=1, on_unknown="report", on_outcome=outcomes.append
        )
        assert_complete(report, outcomes)
        named = 23 if fault == Fault.names_only(23) else 0
        assert counts(report) == {"created": 25 + named, "unknown": 25 - named}
        assert sizes(server) == [25, 25]
        assert calls(server, "list") == 0


@pytest.mark.parametrize("fault", [f for f in LOSSES if "slow" not in str(f)], ids=str)
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.virtual_clock
async def test_resend_trusts_the_servers_identity(fault: Fault, times: int) -> None:
    async with serving(text_identity=True) as (server, session):
        server.faults.add(fault, on="batch", times=times)
        report = await session.memories.import_facts(facts(50), concurrency=1, on_unknown="resend")
        assert counts(report) == {"created": 50}
        assert len(server.memories()) == 50
        assert calls(server, "list") == 0


@pytest.mark.virtual_clock
async def test_resend_ends_too() -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.names_only(20), on="batch", times=FOREVER)
        report = await session.memories.import_facts(facts(25), on_unknown="resend")
        assert counts(report) == {"created": 20, "unknown": 0} or report.created + report.unknown == 25
        assert calls(server, "batch") <= 4


@pytest.mark.parametrize("then", [Fault.rate_limited(3600), Fault.answer(401, "no")], ids=str)
@pytest.mark.virtual_clock
async def test_resent_facts_stay_in_doubt_while_their_second_call_is_refused(then: Fault) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.after_all(), then, on="batch")
        importer = session.memories.importer(facts(25), on_unknown="resend")
        asyncio.get_running_loop().call_later(30, importer.stop)
        async with importer:
            async for _ in importer:
                break
        assert len(server.memories()) == 25
        assert counts(importer.report) == {"unknown": 25}


# Poison


@pytest.mark.parametrize("stored_prefix", [True, False])
@pytest.mark.parametrize("place", [0, 7, 24])
@pytest.mark.virtual_clock
async def test_a_fact_that_makes_the_server_fail_harms_no_other(stored_prefix: bool, place: int) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.poison("poison", status=500, stored_prefix=stored_prefix))
        given = [f"poison {n}" if n == place else f"fact {n}" for n in range(60)]
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(given, concurrency=2, on_outcome=outcomes.append)
        assert_complete(report, outcomes)
        assert counts(report) == {"created": 59, "rejected": 1}
        assert report.failures[0].index == place
        assert isinstance(report.failures[0].error, ServerError)
        if stored_prefix:  # what comes first and is absent is to blame: only that goes alone
            assert 1 <= calls(server, "create") <= 6
        server.assert_each_stored_once([text for text in given if "poison" not in text])
        assert len(server.memories()) == 59


@pytest.mark.parametrize("text_identity", [True, False])
@pytest.mark.parametrize("stored_prefix", [True, False])
@pytest.mark.parametrize("on", [None, "batch"])
@pytest.mark.parametrize("places", [(0, 1), (0, 24), (7, 55)])
@pytest.mark.virtual_clock
async def test_two_equal_facts_that_make_the_server_fail_are_in_no_doubt(
    text_identity: bool, stored_prefix: bool, on: str | None, places: tuple[int, int]
) -> None:
    async with serving(text_identity=text_identity) as (server, session):
        server.faults.add(Fault.poison("poison", status=500, stored_prefix=stored_prefix), on=on)
        given = ["poison" if n in places else f"fact {n}" for n in range(110)]
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(given, dedupe=False, on_outcome=outcomes.append)
        assert_complete(report, outcomes)
        assert report.unknown == 0
        # One by one they go through, if it is only in a batch that they do harm.
        assert report.created == (110 if on == "batch" else 108)
        server.assert_each_stored_once([text for text in given if text != "poison"])


@pytest.mark.virtual_clock
async def test_no_fact_is_blamed_while_the_server_stores_none() -> None:
    async with serving() as (server, session):
        empty = Fault.answer(200, body=b'{"memories": [], "created_count": 0}')
        server.faults.add(empty, on="batch", times=FOREVER)
        server.faults.add(Fault.answer(500, "x"), on="create", times=FOREVER)
        report = await session.memories.import_facts(facts(3))
        assert counts(report) == {"not_sent": 3}
        assert not report.complete


# Endings


@pytest.mark.virtual_clock
async def test_what_is_in_doubt_at_the_stop_is_unknown() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(0), Fault.slow(10), Fault.after_all(), on="batch")
        importer = session.memories.importer(facts(75), concurrency=2)
        asyncio.get_running_loop().call_later(0.5, importer.stop)
        report = await importer.run()
        assert counts(report) == {"created": 50, "unknown": 25}
        assert calls(server, "list") == 0
        assert len(server.memories()) == 75
        assert not report.complete


@pytest.mark.virtual_clock
async def test_what_was_proved_absent_is_not_sent_at_the_stop() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.after_prefix(5), Fault.rate_limited(3600), on="batch")
        importer = session.memories.importer(facts(25))
        asyncio.get_running_loop().call_later(60, importer.stop)
        report = await importer.run()
        assert counts(report) == {"created": 5, "not_sent": 20}
        assert len(server.memories()) == 5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([0.2, 0.5]))
def test_chaos_loses_and_doubles_nothing(seed, rate) -> None:
    async def scenario() -> None:
        async with serving(text_identity=False, chaos=Chaos(seed, rate=rate)) as (server, session):
            outcomes: list[FactOutcome] = []
            allowed = {"created", "unknown"}
            try:
                report = await session.memories.import_facts(
                    facts(300), concurrency=3, on_outcome=outcomes.append
                )
                assert_complete(report, outcomes)
            except ImportStoppedError as error:  # so many calls in a row failed that it gave up
                report = error.report
                allowed |= {"not_sent"}
                assert len(outcomes) == report.pulled == report.settled
            texts = [memory["content"] for memory in server.memories()]
            assert len(texts) == len(set(texts))
            stored = {o.fact.content for o in outcomes if o.state == "created" and o.fact is not None}
            assert stored <= set(texts)
            assert counts(report).keys() <= allowed

    run(scenario())


async def test_a_real_clock_does_as_well(server: LocalServer) -> None:
    server.faults.add(Fault.reset(stored=True), on="batch")
    async with Session(server.api_key, base_url=server.url) as session:
        report = await session.memories.import_facts(facts(30))
    assert counts(report) == {"created": 30}


@pytest.mark.parametrize("loc", [True, False])
@pytest.mark.virtual_clock
async def test_a_resent_fact_that_is_refused_may_be_stored_all_the_same(loc: bool) -> None:
    async with serving() as (server, session):
        detail = [{"loc": ["body", "memories", 0, "content"], "type": "odd", "msg": "no"}] if loc else "no"
        server.faults.add(Fault.after_all(), Fault.answer(422, detail), on="batch")
        server.faults.add(Fault.answer(422, "no"), on="create")
        report = await session.memories.import_facts(["a"], on_unknown="resend")
        assert counts(report) == {"unknown": 1}
        assert "no" in str(report.failures[0].error)
        assert len(server.memories()) == 1
