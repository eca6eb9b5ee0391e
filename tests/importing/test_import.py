"""Imports on which nothing, or only the input, is wrong: laziness, packing, folding, outcomes."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from omi_async import (
    ConfigurationError,
    Fact,
    FactOutcome,
    ImportReport,
    ImportStoppedError,
    InvalidFactError,
    ListLimitError,
    Session,
)
from omi_async.local import Fault, LocalServer
from omi_async.sources import Facts, open_facts
from tests.importing.helpers import Source, assert_complete, counts, facts, serving, sizes


async def test_every_fact_is_stored_once_in_full_batches(server: LocalServer, session: Session) -> None:
    given = facts(260)
    outcomes: list[FactOutcome] = []
    report = await session.memories.import_facts(given, on_outcome=outcomes.append)
    assert counts(report) == {"created": 260}
    assert report.ok
    assert report.complete
    assert_complete(report, outcomes)
    server.assert_each_stored_once(given)
    assert len(server.memories()) == 260
    assert sizes(server) == [25] * 10 + [10]
    assert report.requests == len(server.requests) == 11
    assert report.retries == 0
    ids = {memory["content"]: memory["id"] for memory in server.memories()}
    assert all(o.fact is not None and o.memory_id == ids[o.fact.content] for o in outcomes)
    assert all(o.fact == given[o.index] for o in outcomes)


@pytest.mark.parametrize("concurrency", [1, 2, 5])
@pytest.mark.virtual_clock
async def test_as_many_calls_as_allowed_are_on_the_wire(concurrency: int) -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.slow(1), on="batch", times=1000)
        before = asyncio.get_running_loop().time()
        await session.memories.import_facts(facts(25 * 20), concurrency=concurrency)
        assert server.max_in_flight == concurrency
        # Each call takes a second; the first goes alone, then two, four, and so on.
        assert 20 / concurrency <= asyncio.get_running_loop().time() - before < 20 / concurrency + 2.5


async def test_duplicates_are_folded_before_packing(server: LocalServer, session: Session) -> None:
    given = [text for n in range(50) for text in (f"fact {n}", f" fact {n} ", f"FACT {n}")]
    outcomes: list[FactOutcome] = []
    report = await session.memories.import_facts(given, on_outcome=outcomes.append)
    assert counts(report) == {"created": 100, "duplicate": 50}
    assert report.ok
    assert_complete(report, outcomes)
    assert {o.index % 3 for o in outcomes if o.state == "duplicate"} == {1}
    assert sizes(server) == [25] * 4
    server.assert_each_stored_once(given)


@pytest.mark.parametrize("text_identity", [True, False])
@pytest.mark.virtual_clock
async def test_without_folding_equal_texts_are_all_sent(text_identity: bool) -> None:
    async with serving(text_identity=text_identity) as (server, session):
        given = ["same", "other", "same"] * 10
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(given, dedupe=False, on_outcome=outcomes.append)
        assert report.settled == report.created + report.existing == 30
        assert_complete(report, outcomes)
        assert len(server.memories()) == (2 if text_identity else 30)
        if not text_identity:
            assert len({o.memory_id for o in outcomes}) == 30


async def test_what_cannot_be_a_fact_costs_no_other(server: LocalServer, session: Session) -> None:
    class Broken(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise KeyError("no")

    def broken_tags() -> Iterator[str]:
        yield "a"
        raise OSError("gone")

    bad: list[Any] = [
        "",
        "  ",
        "x" * 501,
        {"text": "no content"},
        {"content": None},
        {"content": 7},
        {"content": "x", "visibility": "secret"},
        {"content": "x", "tags": "a"},
        {"content": "x", "tags": broken_tags()},
        {"content": "half a \ud83d"},
        Broken(content="x"),
        7,
        None,
    ]
    good: list[Any] = [" padded ", {"content": "mapped", "tags": ["t"], "visibility": "public"}, Fact("made")]
    outcomes: list[FactOutcome] = []
    report = await session.memories.import_facts([*bad, *good], on_outcome=outcomes.append)
    assert counts(report) == {"created": 3, "invalid": len(bad)}
    assert not report.ok
    assert_complete(report, outcomes)
    server.assert_each_stored_once(["padded", "mapped", "made"])
    invalid = [o for o in outcomes if o.state == "invalid"]
    assert all(isinstance(o.error, InvalidFactError) and o.fact is None for o in invalid)
    assert [o.error.record for o in invalid if isinstance(o.error, InvalidFactError)] == bad


async def test_broken_records_pass_through_and_failures_can_be_given_again(
    server: LocalServer, session: Session
) -> None:
    broken = FactOutcome(99, None, "invalid", error=InvalidFactError("no"), origin="f.csv:3")
    failed = FactOutcome(98, Fact("again", origin="f.csv:4"), "not_sent")
    outcomes: list[FactOutcome] = []
    report = await session.memories.import_facts([broken, failed], on_outcome=outcomes.append)
    assert counts(report) == {"created": 1, "invalid": 1}
    assert_complete(report, outcomes)
    assert [(o.index, o.origin) for o in sorted(outcomes, key=lambda o: o.index)] == [
        (0, "f.csv:3"),
        (1, "f.csv:4"),
    ]
    server.assert_each_stored_once(["again"])


async def test_nothing_makes_no_call(server: LocalServer, session: Session) -> None:
    report = await session.memories.import_facts([])
    assert (report.pulled, report.complete, report.requests, len(server.requests)) == (0, True, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"concurrency": 0}, "concurrency"), ({"on_unknown": "guess"}, "on_unknown")],
)
async def test_senseless_arguments_are_refused(session: Session, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        session.memories.importer([], **arguments)


async def test_an_importer_runs_once(session: Session) -> None:
    importer = session.memories.importer(["a"])
    with pytest.raises(ConfigurationError, match="async with"):
        await anext(importer)
    await importer.run()
    with pytest.raises(ConfigurationError, match="runs once"):
        await importer.run()
    with pytest.raises(ConfigurationError, match="runs once"):
        async with importer:
            pass


# Laziness


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.virtual_clock
async def test_no_more_is_pulled_than_the_senders_need(concurrency: int, awaits: bool) -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.slow(1), on="batch", times=1000)
        source = Source(facts(600))
        ahead = []

        def watch(outcome: FactOutcome) -> None:
            ahead.append(source.pulled - settled())

        def settled() -> int:
            return importer.report.settled

        importer = session.memories.importer(
            source.aiter() if awaits else source, concurrency=concurrency, on_outcome=watch
        )
        report = await importer.run()
        assert report.created == 600
        assert max(ahead) <= (concurrency + 1) * 25
        assert source.closed is awaits


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.virtual_clock
async def test_a_slow_reader_slows_the_senders(concurrency: int, awaits: bool) -> None:
    async with serving() as (_, session):
        source = Source([text for n in range(300) for text in (f"f {n}", f"f {n}", "")])
        importer = session.memories.importer(source.aiter() if awaits else source, concurrency=concurrency)
        read = []
        async with importer:
            async for outcome in importer:
                read.append(outcome)
                await asyncio.sleep(0.05)
                assert source.pulled - len(read) <= (concurrency + 1) * 25
        assert_complete(importer.report, read)
        assert counts(importer.report) == {"created": 300, "duplicate": 300, "invalid": 300}
        assert importer.report.complete


async def test_memory_does_not_grow_with_the_number_of_facts(session: Session) -> None:
    def many(number: int) -> Iterator[str]:
        return (" " * 400 for _ in range(number))  # each is invalid: this measures us, not the server

    def forget(outcome: FactOutcome) -> None:
        importer.report.failures.clear()

    peaks = []
    for number in (2_000, 20_000):
        importer = session.memories.importer(many(number), on_outcome=forget)
        tracemalloc.start()
        await importer.run()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 2 + 50_000


async def test_the_event_loop_breathes_while_a_source_needs_no_call(session: Session) -> None:
    breaths = 0

    async def breathe() -> None:
        nonlocal breaths
        while True:
            await asyncio.sleep(0)
            breaths += 1

    task = asyncio.create_task(breathe())
    await session.memories.import_facts("same" for _ in range(5_000))
    task.cancel()
    assert breaths > 10


# Callbacks and streaming


@pytest.mark.virtual_clock
async def test_async_callbacks_come_one_at_a_time_and_all() -> None:
    async with serving() as (_, session):
        outcomes: list[FactOutcome] = []
        running = 0

        async def on_outcome(outcome: FactOutcome) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0.01)
            outcomes.append(outcome)
            running -= 1

        seen = []

        async def on_progress(report: ImportReport) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0.01)
            seen.append(report.settled)
            running -= 1

        report = await session.memories.import_facts(
            [*facts(90), *facts(90), *[""] * 90], on_outcome=on_outcome, on_progress=on_progress
        )
        assert_complete(report, outcomes)
        assert seen == sorted(seen)
        assert seen[-1] == 270
        assert len(seen) >= 4


async def test_streaming_yields_every_outcome_then_ends(server: LocalServer, session: Session) -> None:
    importer = session.memories.importer([*facts(60), "", "fact 0"])
    async with importer:
        outcomes = [outcome async for outcome in importer]
        with pytest.raises(StopAsyncIteration):
            await anext(importer)
    assert_complete(importer.report, outcomes)
    assert counts(importer.report) == {"created": 60, "duplicate": 1, "invalid": 1}
    server.assert_each_stored_once(facts(60))


# Existing


async def test_a_second_import_finds_all_existing(server: LocalServer, session: Session) -> None:
    first = await session.memories.import_facts(facts(60))
    assert first.created == 60
    outcomes: list[FactOutcome] = []
    second = await session.memories.import_facts([*facts(60), "new"], on_outcome=outcomes.append)
    assert counts(second) == {"created": 1, "existing": 60}
    assert second.ok
    assert_complete(second, outcomes)
    assert all(o.memory_id for o in outcomes)
    assert len(server.memories()) == 61


@pytest.mark.parametrize(("held", "shown"), [(4_500, True), (5_000, False), (7_000, False)])
@pytest.mark.virtual_clock
async def test_what_the_account_holds_is_skipped_if_all_of_it_is_shown(held: int, shown: bool) -> None:
    async with serving(text_identity=False) as (server, session):
        server.add(*(f"old {number}" for number in range(held)), created_at="2025-01-01T00:00:00.000000Z")
        importer = session.memories.importer(["old 3", f"old {held - 1}", "new"], skip_existing=True)
        if shown:
            assert counts(await importer.run()) == {"created": 1, "existing": 2}
        else:  # what is not shown would be stored twice
            with pytest.raises(ImportStoppedError) as stopped:
                await importer.run()
            assert isinstance(stopped.value.__cause__, ListLimitError)
            assert importer.report.pulled == 0
        assert len(server.memories()) == held + shown


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
@pytest.mark.virtual_clock
async def test_the_servers_clock_may_be_wrong(
    server: LocalServer, session: Session, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    our_clock = SimpleNamespace(time=lambda: time.time() + skew)
    for module in ("importing.importer", "_transport"):
        monkeypatch.setattr(f"omi_async.{module}.time", our_clock)
    server.add("old", created_at="2020-01-01T00:00:00.000000Z")
    report = await session.memories.import_facts(["old", *facts(30)])
    assert counts(report) == {"created": 30, "existing": 1}
    # Also if the list has to tell, because the answer is lost.
    server.faults.add(Fault.reset(stored=True), on="batch")
    server.add("older", created_at="2020-01-01T00:00:00.000000Z")
    second = session.memories.importer(["older", *facts(20, prefix="more")])
    report = await second.run()
    assert counts(report) == {"created": 20, "existing": 1}


@pytest.mark.parametrize("awaits", [False, True])
async def test_a_source_may_use_one_mapping_for_all_of_its_facts(
    server: LocalServer, session: Session, awaits: bool
) -> None:
    def one_mapping() -> Iterator[dict[str, Any]]:
        mapping: dict[str, Any] = {"tags": []}
        for number in range(60):
            mapping["content"] = f"fact {number}"
            mapping["tags"].append(str(number))
            yield mapping

    async def later() -> AsyncIterator[dict[str, Any]]:
        for mapping in one_mapping():
            yield mapping

    report = await session.memories.import_facts(later() if awaits else one_mapping())
    assert counts(report) == {"created": 60}
    tags = {memory["content"]: len(memory["tags"]) for memory in server.memories()}
    assert tags == {f"fact {number}": number + 1 for number in range(60)}


class _Cancelled(dict[str, Any]):
    def get(self, *_arguments: Any) -> Any:
        raise asyncio.CancelledError


@pytest.mark.parametrize("awaits", [False, True])
async def test_a_fact_that_raises_what_nobody_catches_costs_no_other_its_place(
    session: Session, awaits: bool
) -> None:
    given: list[Any] = [*facts(10), _Cancelled(), *facts(10, prefix="more")]
    outcomes: list[FactOutcome] = []
    source = Source(given).aiter() if awaits else Source(given)
    with pytest.raises(ImportStoppedError, match="CancelledError") as stopped:
        await session.memories.import_facts(source, on_outcome=outcomes.append)
    assert counts(stopped.value.report) == {"not_sent": 10}
    assert_complete(stopped.value.report, outcomes)


async def test_an_outcome_may_hold_a_fact_in_any_form(server: LocalServer, session: Session) -> None:
    forms: list[Any] = ["a text", {"content": "a mapping"}, {"content": ""}]
    given = [FactOutcome(7, form, "not_sent") for form in forms]
    report = await session.memories.import_facts(given)
    assert counts(report) == {"created": 2, "invalid": 1}


async def test_failures_hold_nothing_of_the_facts_that_were_pulled_with_them(session: Session) -> None:
    class Record(dict[str, Any]):
        """Can be referred to weakly."""

    records: list[weakref.ref[Record]] = []

    def given() -> Iterator[Record]:
        for number in range(200):
            record = Record(content=f"fact {number}" if number % 25 else 5, tags=["x"])
            records.append(weakref.ref(record))
            yield record

    report = await session.memories.import_facts(given())
    assert counts(report) == {"created": 192, "invalid": 8}
    gc.collect()
    assert sum(record() is not None for record in records) == 8


class _Upper:
    """Wraps an async source, and is in the way of what it does not know."""

    def __init__(self, facts: Any) -> None:
        self._facts = facts

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fact:
        return Fact((await anext(self._facts)).content.upper())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._facts, name)


class _UpperFacts(Facts):
    async def __anext__(self) -> Any:
        item = await super().__anext__()
        return Fact(item.content.upper()) if isinstance(item, Fact) else item


@pytest.mark.parametrize("way", ["wrapped", "derived"])
async def test_a_wrapper_of_a_source_sees_each_fact(
    server: LocalServer, session: Session, tmp_path: Path, way: str
) -> None:
    path = tmp_path / "facts.txt"
    path.write_text("".join(f"fact {number}\n" for number in range(30)))
    source = open_facts(path)
    if way == "derived":
        source.__class__ = _UpperFacts
    async with source:
        report = await session.memories.import_facts(_Upper(source) if way == "wrapped" else source)
    assert counts(report) == {"created": 30}
    assert {memory["content"] for memory in server.memories()} == {f"FACT {n}" for n in range(30)}


async def test_a_text_that_came_again_is_a_duplicate_also_if_its_source_breaks_off(session: Session) -> None:
    def facts() -> Iterator[str]:
        yield from ["a"] * 3
        raise ValueError

    with pytest.raises(ImportStoppedError) as stopped:
        await session.memories.import_facts(facts())
    report = stopped.value.report
    assert (report.pulled, report.duplicate) == (3, 2)
    assert report.created + report.not_sent == 1
