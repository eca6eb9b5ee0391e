"""The same fact with other tags: kept and counted, or added; and no tag of a memory is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import attrs
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from omi_async import Fact, PaymentRequiredError, Session
from omi_async._api import json
from omi_async.local import FOREVER, Fault, LocalServer, Quota
from tests.clock import run
from tests.importing.helpers import assert_complete, assert_law, calls, counts, facts, serving

UPDATES_AN_HOUR = Quota("memories", 2, 3600, ("create", "update", "delete"))


def tagged(*tags: str, text: str = "I like tea") -> Fact:
    return Fact(text, category="system", tags=tags)


def hold(server: LocalServer, *texts: str, tags: list[str]) -> None:
    """Let the account hold memories since long ago."""
    server.add(*texts, tags=tags, created_at="2026-01-02T03:04:05Z")


def tags_of(server: LocalServer, text: str = "I like tea") -> list[list[str]]:
    return [memory["tags"] for memory in server.memories() if memory["content"] == text]


@attrs.frozen
class WithoutTags(Fault):
    """Leaves the tags out of the memories of an answer, or puts something else there."""

    kinds = ("batch", "create", "list", "update")
    instead: Any = None

    async def happen(self, work: Any, sleep: Any) -> Any:
        reply = await work()
        body = json.loads(reply.body)
        for memory in body["memories"] if isinstance(body, dict) and "memories" in body else [body]:
            for each in memory if isinstance(memory, list) else [memory]:
                if isinstance(each, dict) and each.pop("tags", None) is not None and self.instead is not None:
                    each["tags"] = self.instead
        return attrs.evolve(reply, body=json.dumps(body))


@pytest.mark.virtual_clock
@pytest.mark.parametrize("skip_existing", [False, True])
async def test_by_default_the_tags_of_the_memory_stay_and_the_report_says_so(skip_existing: bool) -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", "I like jam", tags=["mine"])
        report = await session.memories.import_facts(
            [tagged("mine", "new"), tagged("mine", text="I like jam"), *facts(3)], skip_existing=skip_existing
        )
        assert counts(report) == {"created": 3, "existing": 2}
        assert (report.other_tags, report.tags_added, report.tags_error) == (1, 0, None)
        assert "1 fact stored before with other tags" in str(report)
        assert report.to_dict()["other_tags"] == 1
        assert tags_of(server) == [["mine"]]
        assert calls(server, "update") == 0


@pytest.mark.virtual_clock
@pytest.mark.parametrize("skip_existing", [False, True])
@pytest.mark.parametrize("lanes", ["batch", "both"])
async def test_tags_are_added_behind_those_of_the_memory(skip_existing: bool, lanes: Any) -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", tags=["Mine", "b"])
        report = await session.memories.import_facts(
            [tagged("mine", "b", "a"), tagged("x", text="new")],
            on_existing="add-tags",
            skip_existing=skip_existing,
            lanes=lanes,
        )
        assert counts(report) == {"created": 1, "existing": 1}
        assert (report.other_tags, report.tags_added) == (0, 1)
        assert report.ok
        assert "the tags of 1 fact added to memories that were there" in str(report)
        assert tags_of(server) == [["Mine", "b", "mine", "a"]]
        assert calls(server, "update") == 1
        assert (calls(server, "list") > 0) == skip_existing


@pytest.mark.virtual_clock
async def test_nothing_is_sent_for_tags_that_are_there() -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", tags=["b", "a"])
        report = await session.memories.import_facts([tagged("a"), *facts(3)], on_existing="add-tags")
        assert (report.existing, report.tags_added, report.other_tags) == (1, 0, 0)
        assert [record.kind for record in server.requests] == ["batch"]


@pytest.mark.virtual_clock
async def test_a_memory_that_a_look_finds_gets_the_tags_too() -> None:
    async with serving(text_identity=False) as (server, session):
        hold(server, "I like tea", tags=["mine"])
        server.faults.add(Fault.reset(), on="batch")
        report = await session.memories.import_facts([tagged("new")], on_existing="add-tags")
        assert counts(report) == {"existing": 1}
        assert tags_of(server) == [["mine", "new"]]


@pytest.mark.virtual_clock
@pytest.mark.parametrize("dedupe", [True, False])
@pytest.mark.parametrize("skip_existing", [True, False])
@pytest.mark.parametrize("there", [True, False])
async def test_equal_facts_of_one_input_are_united(there: bool, skip_existing: bool, dedupe: bool) -> None:
    async with serving() as (server, session):
        if there:
            hold(server, "I like tea", tags=["mine"])
        given = [tagged("a"), tagged("b", "a"), *facts(60), tagged(), tagged("c"), tagged("a")]
        report = await session.memories.import_facts(
            given, on_existing="add-tags", skip_existing=skip_existing, dedupe=dedupe
        )
        assert_law(report)
        assert [sorted(tags) for tags in tags_of(server)] == [["a", "b", "c", "mine"][: 3 + there]]
        assert report.other_tags == 0


@pytest.mark.virtual_clock
async def test_an_answer_from_before_an_update_does_not_undo_it() -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", tags=["mine"])
        server.faults.add(Fault.slow(0), Fault.slow(0.5), Fault.slow(5, stored=True), on="batch")
        given = [*facts(25), tagged("a"), *facts(24, prefix="more"), tagged("b"), *facts(24, prefix="last")]
        report = await session.memories.import_facts(given, on_existing="add-tags", dedupe=False)
        assert (report.existing, report.tags_added) == (2, 2)
        assert server.max_in_flight_by_kind["batch"] == 2
        assert tags_of(server) == [["mine", "a", "b"]]


@pytest.mark.virtual_clock
async def test_a_duplicate_that_comes_before_the_answer_for_the_first_waits_for_it() -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.list_lag(1000), on="list")
        report = await session.memories.import_facts([tagged("a"), tagged("b")], on_existing="add-tags")
        assert counts(report) == {"created": 1, "duplicate": 1}
        assert tags_of(server) == [["a", "b"]]
        assert calls(server, "list") == 0


@pytest.mark.virtual_clock
@pytest.mark.parametrize("first", ["keep", "add-tags"])
async def test_the_same_journal_run_again_adds_what_is_not_there_yet(first: Any, tmp_path: Path) -> None:
    journal = tmp_path / "facts.journal"
    given = [tagged("new"), *facts(30)]
    async with serving(quotas=[UPDATES_AN_HOUR]) as (server, session):
        hold(server, "I like tea", tags=["mine"])
        server.faults.add(Fault.answer(402, "A paid plan is required."), on="update")
        report = await session.memories.import_facts(given, journal=journal, on_existing=first)
        assert (report.other_tags, report.tags_added) == (1, 0)
        assert isinstance(report.tags_error, PaymentRequiredError | None)
        server.faults.clear()
        for added in (1, 0):
            report = await session.memories.import_facts(given, journal=journal, on_existing="add-tags")
            assert counts(report) == {"existing": 1, "created": 30}
            assert (report.tags_added, report.other_tags) == (added, 0)
            assert tags_of(server) == [["mine", "new"]]
        assert calls(server, "batch") == 2


@pytest.mark.virtual_clock
async def test_an_update_window_that_is_shut_holds_no_batch_up_and_is_waited_for_at_the_end() -> None:
    async with serving(quotas=[UPDATES_AN_HOUR]) as (server, session):
        texts = [f"text {number}" for number in range(100)]
        hold(server, *texts[:5], tags=["mine"])
        report = await session.memories.import_facts(
            [tagged("new", text=text) for text in texts], on_existing="add-tags", concurrency=1
        )
        assert counts(report) == {"existing": 5, "created": 95}
        assert report.tags_added == 5
        kinds = [record.kind for record in server.requests if record.status == 200]
        assert kinds.index("update") < 3  # at once, while that costs no wait
        assert kinds[-3:] == ["update"] * 3
        assert report.elapsed == pytest.approx(7200, abs=10)
        assert all(tags_of(server, text) == [["mine", "new"]] for text in texts[:5])


@pytest.mark.virtual_clock
async def test_max_wait_ends_the_wait_for_tags_and_the_next_run_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "facts.journal"
    async with serving(quotas=[UPDATES_AN_HOUR]) as (server, session):
        texts = [f"text {number}" for number in range(5)]
        hold(server, *texts, tags=["mine"])
        given = [tagged("new", text=text) for text in texts]
        for left in (3, 1, 0):
            report = await session.memories.import_facts(
                given, on_existing="add-tags", journal=journal, max_wait=60
            )
            assert counts(report) == {"existing": 5}
            assert report.other_tags == left
            assert report.complete == (not left)
            assert (report.resume_at is None) == (not left)
            await asyncio.sleep(3600)
        assert all(tags_of(server, text) == [["mine", "new"]] for text in texts)


TRANSIENT = [
    Fault.answer(500, "x"),
    Fault.answer(500, "x", stored=True),
    Fault.reset(),
    Fault.reset(stored=True),
    Fault.slow(40, stored=True),
    Fault.rate_limited(30),
    Fault.rate_limited(),
    Fault.empty(504, stored=True),
    Fault.html(502),
    Fault.answer(503, "Memory writes are globally paused"),
]


@pytest.mark.virtual_clock
@pytest.mark.parametrize("fault", TRANSIENT)
async def test_an_update_is_repeated_whatever_became_of_it(fault: Fault) -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", tags=["mine"])
        server.faults.add(fault, fault, on="update")
        report = await session.memories.import_facts([tagged("new")], on_existing="add-tags")
        assert (report.tags_added, report.other_tags, report.tags_error) == (1, 0, None)
        assert tags_of(server) == [["mine", "new"]]


@pytest.mark.virtual_clock
@pytest.mark.parametrize(
    ("fault", "updates"),
    [
        (Fault.answer(404, "Memory not found"), 40),
        (Fault.answer(402, "A paid plan is required to access this memory."), 40),
        (Fault.answer(422, "At least one field must be provided"), 40),
        (Fault.answer(403, "no"), 1),
        (Fault.answer(500, "x"), 12),
        (Fault.reset(), 12),
        (Fault.garbage(b"{}"), 3),
        (Fault.answer(200, body=b'{"id": "x", "tags": ["mine"]}'), 3),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_updates_that_fail_cost_the_tags_and_nothing_else(
    fault: Fault, updates: int, concurrency: int
) -> None:
    async with serving() as (server, session):
        texts = [f"text {number}" for number in range(40)]
        hold(server, *texts, tags=["mine"])
        server.faults.add(fault, on="update", times=FOREVER)
        given = [tagged("new", text=text) for text in texts] + facts(100)
        report = await session.memories.import_facts(given, on_existing="add-tags", concurrency=concurrency)
        assert counts(report) == {"existing": 40, "created": 100}
        assert report.ok
        assert report.complete
        assert (report.tags_added, report.other_tags) == (0, 40)
        assert f"the tags of 40 facts could not be added: {report.tags_error}" in str(report)
        assert report.to_dict()["tags_error"] == str(report.tags_error)
        assert calls(server, "update") == updates


@pytest.mark.virtual_clock
@pytest.mark.parametrize("instead", [7, "mine", [1], None])
async def test_tags_that_cannot_be_read_are_never_replaced(instead: Any) -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", tags=["mine"])
        server.faults.add(WithoutTags(instead), on="batch", times=FOREVER)
        report = await session.memories.import_facts([tagged("new")], on_existing="add-tags")
        assert tags_of(server) == [["mine", "new"]]  # for the list shows them
        assert (report.tags_added, report.other_tags) == (1, 0)
        server.faults.add(WithoutTags(instead or 7), on="list", times=FOREVER)
        report = await session.memories.import_facts([tagged("other")], on_existing="add-tags")
        assert tags_of(server) == [["mine", "new"]]
        assert (report.tags_added, report.other_tags) == (0, 1)
        assert "the server's list does not show" in str(report)


@pytest.mark.virtual_clock
async def test_a_list_that_may_not_be_read_costs_only_what_it_would_have_told(tmp_path: Path) -> None:
    async with serving() as (server, session):
        hold(server, "I like tea", "I like jam", tags=["mine"])
        journal = tmp_path / "facts.journal"
        await session.memories.import_facts([tagged("new")], journal=journal)
        server.faults.add(Fault.answer(403, "no"), on="list", times=FOREVER)
        report = await session.memories.import_facts(
            [tagged("new"), tagged("new", text="I like jam")], journal=journal, on_existing="add-tags"
        )
        assert counts(report) == {"existing": 2}
        assert (report.tags_added, report.other_tags) == (1, 1)
        assert tags_of(server, "I like jam") == [["mine", "new"]]


@pytest.mark.virtual_clock
async def test_more_tags_than_may_wait_are_added_before_more_is_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("omi_async.importing.tags.MOST_WISHES", 30)
    async with serving(quotas=[Quota("memories", 10, 60, ("update",))]) as (server, session):
        texts = [f"text {number}" for number in range(200)]
        hold(server, *texts, tags=["mine"])
        report = await session.memories.import_facts(
            [tagged("new", text=text) for text in texts], on_existing="add-tags"
        )
        assert report.tags_added == 200
        kinds = "".join(record.kind[0] for record in server.requests if record.status == 200)
        last_batch = kinds.rindex("b")
        assert last_batch > len(kinds) // 3


@pytest.mark.virtual_clock
async def test_a_stop_leaves_the_tags_for_the_next_run_and_says_so(tmp_path: Path) -> None:
    journal = tmp_path / "facts.journal"
    async with serving(quotas=[UPDATES_AN_HOUR]) as (server, session):
        texts = [f"text {number}" for number in range(5)]
        hold(server, *texts, tags=["mine"])
        given = [tagged("new", text=text) for text in texts]
        importer = session.memories.importer(given, on_existing="add-tags", journal=journal)
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(10)
        importer.stop()
        report = await running
        assert counts(report) == {"existing": 5}
        assert (report.tags_added, report.other_tags, report.complete) == (2, 3, False)


def test_a_word_that_is_no_choice_is_refused() -> None:
    session = Session("omi_dev_" + "0" * 32)
    with pytest.raises(ValueError, match="on_existing"):
        session.memories.importer([], on_existing="replace")  # type: ignore[arg-type]


# The law, whatever happens: in the end each memory has all tags of its facts, and those that it had.

TAGS = st.lists(st.sampled_from(["a", "A", "b", "c d", "", "é"]), max_size=3, unique=True)


@attrs.frozen
class Scenario:
    held: dict[int, list[str]]
    given: list[tuple[int, list[str]]]
    batch_faults: list[Fault]
    update_faults: list[Fault]
    list_faults: list[Fault]
    ending: Literal["none", "stop", "cancel", "cancel twice"]
    seconds: int
    ticks: int
    skip_existing: bool
    text_identity: bool
    concurrency: int
    contended: float
    quotas: bool


WRITE_FAULTS = [
    Fault.answer(500, "x"),
    Fault.after_prefix(3),
    Fault.reset(stored=True),
    Fault.half_body(),
    Fault.rate_limited(30),
    Fault.names_only(1),
]

SCENARIOS = st.builds(
    Scenario,
    held=st.dictionaries(st.integers(0, 12), TAGS),
    given=st.lists(st.tuples(st.integers(0, 60), TAGS), max_size=70),
    batch_faults=st.lists(st.sampled_from(WRITE_FAULTS), max_size=3),
    update_faults=st.lists(st.sampled_from(TRANSIENT), max_size=2),
    list_faults=st.lists(st.sampled_from([Fault.answer(500, "x"), Fault.rate_limited(5)]), max_size=1),
    ending=st.sampled_from(["none", "stop", "cancel", "cancel twice"]),
    seconds=st.sampled_from([0, 0, 1, 7, 40]),
    ticks=st.integers(0, 300),
    skip_existing=st.booleans(),
    text_identity=st.sampled_from([True, True, False]),
    concurrency=st.integers(1, 4),
    contended=st.sampled_from([0.0, 0.01]),
    quotas=st.booleans(),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCENARIOS)
def test_no_tag_is_lost(scenario: Scenario) -> None:
    run(_play(scenario))


async def _play(scenario: Scenario) -> None:
    given = [tagged(*tags, text=f"text {number}") for number, tags in scenario.given]
    before = {f"text {number}": tags for number, tags in scenario.held.items()}
    # A server that does not know its texts stores again what it holds, unless the list is read first.
    skip_existing = scenario.skip_existing or not scenario.text_identity
    quotas = [Quota("memories", 5, 600, ("update",))] if scenario.quotas else []
    with TemporaryDirectory() as folder:
        async with serving(
            text_identity=scenario.text_identity, contended=scenario.contended, quotas=quotas
        ) as (server, session):
            for text, tags in before.items():
                hold(server, text, tags=tags)
            server.faults.add(*scenario.batch_faults, on="batch")
            server.faults.add(*scenario.update_faults, on="update")
            server.faults.add(*scenario.list_faults, on="list")
            options: dict[str, Any] = {
                "on_existing": "add-tags",
                "journal": Path(folder) / "journal",
                "skip_existing": skip_existing,
                "concurrency": scenario.concurrency,
            }
            await _end(session.memories.importer(given, **options), scenario)
            _assert_nothing_lost(server, before, [])
            server.faults.clear()
            outcomes: list[Any] = []
            report = await session.memories.import_facts(given, **options, on_outcome=outcomes.append)
            assert_complete(report, outcomes)
            assert report.complete
            assert (report.other_tags, report.tags_error) == (0, None)
            event(f"tags added: {report.tags_added > 0}")
            _assert_nothing_lost(server, before, given)


async def _end(importer: Any, scenario: Scenario) -> None:
    running = asyncio.create_task(importer.run())
    if scenario.ending != "none":
        await asyncio.sleep(scenario.seconds)
        for _ in range(scenario.ticks):
            await asyncio.sleep(0)
        importer.stop() if scenario.ending == "stop" else running.cancel()
        if scenario.ending == "cancel twice":
            await asyncio.sleep(0.1)
            running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _assert_nothing_lost(server: LocalServer, before: dict[str, list[str]], given: Iterable[Fact]) -> None:
    has: dict[str, set[str]] = {}
    for memory in server.memories():
        assert memory["content"] not in has  # nothing is stored twice
        has[memory["content"]] = {*memory["tags"]}
    for text, tags in before.items():
        assert has[text] >= {*tags}
    for fact in given:
        assert has[fact.content] >= {*fact.tags}
