"""Imports with a journal: resuming, folding, ending."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from omi_async import Fact, ImportStoppedError, Journal, JournalError, JournalInUseError, ServerError, Session
from omi_async.importing.journal.row import Row
from omi_async.importing.journal.rows import Rows
from omi_async.local import Fault, LocalServer
from omi_async.local.faults import Sleep, Work
from omi_async.local.messages import Reply
from tests.journal.helpers import (
    OPEN,
    Crashing,
    begun,
    calls,
    copy,
    database,
    end,
    items,
    known,
    python,
    ran,
    raw,
    run_import,
    sending,
    sent,
    stored,
    texts,
)

pytestmark = pytest.mark.virtual_clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.journal"


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer(text_identity=False) as server:
        yield server


class Hook(Fault):
    """Calls a function in the middle of a call, before or after the work."""

    def __init__(self, function: Any, *, stored: bool = True, kinds: tuple[str, ...] = ("batch",)) -> None:
        self.function = function
        self.stored = stored
        self.kinds = kinds

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        if not self.stored:
            self.function()
            return await work()
        reply = await work()
        self.function()
        return reply


FOREIGN = b"content\nUser is vegetarian\n"


def foreign(path: Path) -> None:
    path.write_bytes(FOREIGN)


# What is durable when


async def test_a_batch_is_written_down_before_it_leaves_and_settled_before_it_is_told(
    server: LocalServer, path: Path, tmp_path: Path
) -> None:
    facts = texts(range(60))
    seen: list[dict[str, str]] = []
    told: list[str] = []

    def look(name: str) -> dict[str, str]:
        return known(copy(path, tmp_path / name), facts, server.url)

    server.faults.add(Hook(lambda: seen.append(look("wire")), stored=False), times=3)

    def on_outcome(outcome: Any) -> None:
        assert look(f"outcome {outcome.index}")[outcome.fact.content] == outcome.state == "created"
        told.append(outcome.fact.content)

    async with Session(server.api_key, base_url=server.url) as session:
        await session.memories.import_facts(facts, journal=path, concurrency=1, on_outcome=on_outcome)
    assert told == facts
    assert [list(states.values()) for states in seen] == [
        ["doubt"] * 25 + ["nothing"] * 35,
        ["created"] * 25 + ["doubt"] * 25 + ["nothing"] * 10,
        ["created"] * 50 + ["doubt"] * 10,
    ]


async def test_what_is_settled_costs_no_call(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.poison("number 7"))
    facts = texts(range(60))
    first = await run_import(server, facts, path)
    assert (first.report.created, first.report.rejected) == (59, 1)
    before = len(server.requests)
    second = await run_import(server, facts, path)
    assert len(server.requests) == before
    assert second.by_text() == first.by_text()
    assert {o.fact: o.memory_id for o in second.outcomes} == {o.fact: o.memory_id for o in first.outcomes}
    (again,) = second.report.failures
    (rejected,) = first.report.failures
    assert "this memory cannot be stored" in str(rejected.error)
    assert str(again.error) == str(rejected.error)


async def test_without_texts_a_rejected_fact_is_tried_again(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.poison("number 7"))
    for _ in range(2):
        result = await run_import(server, texts(range(10)), Journal(path, texts=False))
        assert result.report.rejected == 1
        assert "this memory cannot be stored" in str(result.report.failures[0].error)
    assert [call.items for call in server.requests if call.kind == "batch"] == [10, 9, 1]


async def test_a_rejected_fact_that_was_fixed_is_sent_again(server: LocalServer, path: Path) -> None:
    wrong = Fact("User sings", category="zebra")
    first = await run_import(server, [wrong, "User hums"], path)
    assert (first.report.created, first.report.rejected) == (1, 1)
    again = await run_import(server, [wrong], path)
    assert (again.report.requests, again.report.rejected) == (0, 1)
    fixed = await run_import(server, [Fact("User sings", category="hobbies")], path)
    assert (fixed.report.requests, fixed.report.created) == (1, 1)
    server.assert_each_stored_once(["User sings", "User hums"])
    with Journal(path) as journal:
        assert list(journal.unfinished()) == []


async def test_the_input_may_be_reordered_grow_and_shrink(server: LocalServer, path: Path) -> None:
    await run_import(server, texts(range(40)), path)
    grown = [*reversed(texts(range(20, 70))), *texts(range(60, 80))]
    before = sent(server)
    result = await run_import(server, grown, path)
    assert (result.report.created, result.report.duplicate) == (60, 10)
    assert sent(server) - before == 40
    shrunk = await run_import(server, texts([3]), path)
    assert (shrunk.report.created, shrunk.report.pulled, shrunk.report.requests) == (1, 1, 0)
    server.assert_each_stored_once(texts(range(80)))
    stored(server)


async def test_the_second_occurrence_is_the_duplicate_the_first_is_told_with_its_earlier_state(
    server: LocalServer, path: Path
) -> None:
    server.faults.add(Fault.poison("bad"))
    await run_import(server, ["good", "bad"], path)
    facts = [" good", "bad", "good ", "new", "bad", "", "new", "good"]
    result = await run_import(server, facts, path)
    assert [outcome.state for outcome in sorted(result.outcomes, key=lambda outcome: outcome.index)] == [
        "created", "rejected", "duplicate", "created", "duplicate", "invalid", "duplicate", "duplicate",
    ]  # fmt: skip
    first = next(outcome for outcome in result.outcomes if outcome.index == 0)
    assert first.memory_id == stored(server)["good"]


async def test_each_server_is_sent_everything(server: LocalServer, path: Path) -> None:
    async with LocalServer() as rehearsal:
        assert (await run_import(rehearsal, texts(range(30)), path)).report.created == 30
    result = await run_import(server, texts(range(30)), path)
    assert (result.report.created, sent(server)) == (30, 30)


async def test_a_server_with_a_name_is_known_at_another_address(server: LocalServer, path: Path) -> None:
    async with LocalServer() as other:
        await run_import(other, texts(range(30)), Journal(path, server="mine"))
    result = await run_import(server, texts(range(30)), Journal(path, server="mine"))
    assert (result.report.created, sent(server)) == (30, 0)


# What is in doubt


def left_in_doubt(path: Path, server: LocalServer, contents: list[str]) -> None:
    """As if a process had died with calls on the wire."""
    journal = begun(path, server.url)
    for start in range(0, len(contents), 25):
        sending(journal, items(*contents[start : start + 25]))
    end(journal)


async def test_what_was_on_the_wire_is_looked_for_and_only_what_is_absent_is_sent(
    server: LocalServer, path: Path
) -> None:
    facts = texts(range(50))
    left_in_doubt(path, server, facts)
    server.add(*facts[:20])
    result = await run_import(server, facts, path)
    assert (result.report.created, sent(server)) == (50, 30)
    assert calls(server, "list") > 0
    server.assert_each_stored_once(facts)


async def test_what_was_stored_before_the_call_is_existing(server: LocalServer, path: Path) -> None:
    server.add("old", created_at="2020-01-01T00:00:00Z")
    left_in_doubt(path, server, ["old", "new"])
    server.add("new")
    result = await run_import(server, ["old", "new"], path)
    assert result.by_text() == {"old": "existing", "new": "created"}
    assert known(path, ["old", "new"], server.url) == result.by_text()


async def test_report_tells_unknown_at_once_however_many_there_are(server: LocalServer, path: Path) -> None:
    facts = texts(range(1000))
    left_in_doubt(path, server, facts)
    result = await run_import(server, [*facts, "new"], path, concurrency=1, on_unknown="report")
    assert (result.report.unknown, result.report.created, sent(server)) == (1000, 1, 1)
    assert calls(server, "list") == 0
    assert set(known(path, facts, server.url).values()) == {"doubt"}


@pytest.mark.slow
async def test_many_in_doubt_do_not_hold_the_import_up(server: LocalServer, path: Path) -> None:
    facts = texts(range(3000))
    left_in_doubt(path, server, facts)
    server.add(*facts[::2])
    result = await run_import(server, facts, path, concurrency=1)
    assert (result.report.created, sent(server)) == (3000, 1500)
    server.assert_each_stored_once(facts)


async def test_resend_sends_without_looking(path: Path) -> None:
    facts = texts(range(60))
    async with LocalServer() as server:
        left_in_doubt(path, server, facts)
        server.add(*facts[:30])
        result = await run_import(server, facts, path, on_unknown="resend")
        assert (result.report.created, sent(server), calls(server, "list")) == (60, 60, 0)
        server.assert_each_stored_once(facts)


@pytest.mark.parametrize("on_unknown", ["resend", "reconcile"])
async def test_a_run_that_ends_before_it_got_to_a_fact_in_doubt_leaves_it_in_doubt(
    server: LocalServer, path: Path, on_unknown: Any
) -> None:
    facts = texts(range(25))
    left_in_doubt(path, server, facts)
    server.add(*facts)
    server.revoke_key(server.api_key)
    result = await run_import(server, facts, path, on_unknown=on_unknown)
    assert (result.report.unknown, result.report.not_sent) == (25, 0)
    assert set(known(path, facts, server.url).values()) == {"doubt"}
    server.add_key(server.api_key)
    again = await run_import(server, facts, path)
    assert (again.report.created, sent(server) - 25 * (on_unknown == "resend")) == (25, 0)
    stored(server)


async def test_what_could_not_be_found_out_is_looked_for_in_the_next_run(
    server: LocalServer, path: Path
) -> None:
    facts = texts(range(10))
    server.faults.add(Fault.reset(stored=True), on="batch")
    server.faults.add(Fault.answer(413, "too deep"), on="list", times=50)
    first = await run_import(server, facts, path)
    assert first.report.unknown == 10
    server.faults.clear()
    second = await run_import(server, facts, path)
    assert (second.report.created, sent(server)) == (10, 10)


async def test_after_forget_unknown_the_next_run_sends_without_looking(
    server: LocalServer, path: Path
) -> None:
    facts = texts(range(30))
    left_in_doubt(path, server, facts)
    with Journal(path) as journal:
        assert journal.forget("unknown") == 30
    result = await run_import(server, facts, path)
    assert (result.report.created, calls(server, "list"), sent(server)) == (30, 0, 30)


async def test_a_fact_in_doubt_is_never_invalid_because_of_what_others_taught(
    server: LocalServer, path: Path
) -> None:
    """The server learned to refuse a category meanwhile; what it stored before is stored."""
    left_in_doubt(path, server, ["stored long ago"])
    server.add("stored long ago")
    detail = [
        {"type": "enum", "loc": ["body", "memories", 0, "category"], "msg": "no such category", "input": ""}
    ]
    server.faults.add(Fault.answer(422, detail), on="batch")
    facts = [Fact(text, category="new") for text in texts(range(25))] + [
        Fact("stored long ago", category="new")
    ]
    result = await run_import(server, facts, path, concurrency=1)
    states = result.by_text()
    assert states.pop("stored long ago") == "created"
    assert set(states.values()) <= {"rejected", "invalid"}


async def test_what_skip_existing_finds_is_noted_if_the_journal_has_a_line(
    server: LocalServer, path: Path
) -> None:
    """A fact that was not sent in the first run, and that another client stored since."""
    server.revoke_key(server.api_key)
    facts = texts(range(5))
    assert (await run_import(server, facts, path)).report.not_sent == 5
    server.add_key(server.api_key)
    server.add(*facts)
    result = await run_import(server, facts, path, skip_existing=True)
    assert (result.report.existing, sent(server)) == (5, 5)  # only those of the refused call
    assert set(known(path, facts, server.url).values()) == {"existing"}


# Endings


async def test_a_stopped_import_goes_on_where_it_was(server: LocalServer, path: Path) -> None:
    facts = texts(range(200))
    async with Session(server.api_key, base_url=server.url) as session:
        importer = session.memories.importer(facts, journal=path, concurrency=2)
        server.faults.add(Hook(importer.stop))
        report = await importer.run()
    assert 0 < report.created < 200
    assert report.unknown == 0
    second = await run_import(server, facts, path)
    assert (second.report.created, sent(server)) == (200, 200)
    server.assert_each_stored_once(facts)


async def test_a_cancelled_import_leaves_the_journal_complete_and_closed(
    server: LocalServer, path: Path
) -> None:
    facts = texts(range(200))
    async with Session(server.api_key, base_url=server.url) as session:
        importer = session.memories.importer(facts, journal=path, concurrency=2, drain_timeout=0)
        task = asyncio.create_task(importer.run())
        server.faults.add(Hook(task.cancel))
        with pytest.raises(asyncio.CancelledError):
            await task
    report = importer.report
    assert report.settled == report.pulled
    with Journal(path) as journal:
        counts = journal.counts()[server.url]
    assert counts.get("created", 0) == report.created
    assert counts.get("unknown", 0) == report.unknown
    second = await run_import(server, facts, path)
    assert second.report.created == 200
    server.assert_each_stored_once(facts)
    stored(server)


async def test_a_source_that_raises_what_is_no_unicode_leaves_the_books_in_order(
    server: LocalServer, path: Path
) -> None:
    """The reason is written to the journal for what was about to be sent."""

    async def source() -> AsyncIterator[str]:
        for content in texts(range(50)):
            yield content
        await asyncio.sleep(10)  # until the calls are held back
        raise OSError("cannot read \udcff.csv")

    server.faults.add(Fault.rate_limited(3600), on="batch", times=4)
    result = await run_import(server, source(), path, drain_timeout=0)
    assert isinstance(result.error, ImportStoppedError)
    assert result.report.not_sent == 50
    assert (await run_import(server, texts(range(50)), path)).report.created == 50
    server.assert_each_stored_once(texts(range(50)))


# The disk


def read_only(journal: Journal) -> None:
    """As if the disk were full from now on."""
    database(journal).execute("PRAGMA query_only = 1")


async def test_nothing_is_sent_that_could_not_be_written_down(server: LocalServer, path: Path) -> None:
    facts = texts(range(500))
    journal = Journal(path)
    server.faults.add(Hook(lambda: None), Hook(lambda: read_only(journal)))
    result = await run_import(server, facts, journal, concurrency=1)
    assert isinstance(result.error, ImportStoppedError)
    assert isinstance(result.error.__cause__, JournalError)
    assert "cannot be written" in str(result.error)
    # The answer to the second call came, and is told, although it could not be written down.
    assert (result.report.created, sent(server)) == (50, 50)
    assert not journal.is_open
    assert list(known(path, facts[:51], server.url).values()) == ["created"] * 25 + ["doubt"] * 25 + [
        "nothing"
    ]
    second = await run_import(server, facts, path)
    assert (second.report.created, sent(server)) == (500, 500)
    stored(server)


async def test_a_call_that_could_not_be_written_down_does_not_leave(server: LocalServer, path: Path) -> None:
    facts = texts(range(100))
    journal = Journal(path)
    outcomes = []

    def on_outcome(outcome: Any) -> None:
        outcomes.append(outcome)
        if outcome.state == "created":
            read_only(journal)

    async with Session(server.api_key, base_url=server.url) as session:
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(facts, journal=journal, concurrency=1, on_outcome=on_outcome)
    assert isinstance(stopped.value.__cause__, JournalError)
    assert [outcome.state for outcome in outcomes] == ["created"] * 25 + ["not_sent"] * 25
    assert sent(server) == 25
    second = await run_import(server, facts, path)
    assert (second.report.created, sent(server)) == (100, 100)


async def test_calls_in_flight_land_when_the_disk_is_full(server: LocalServer, path: Path) -> None:
    facts = texts(range(500))
    journal = Journal(path)
    server.faults.add(Hook(lambda: read_only(journal)))
    result = await run_import(server, facts, journal, concurrency=4)
    assert isinstance(result.error, ImportStoppedError)
    assert isinstance(result.error.__cause__, JournalError)
    assert result.report.created == sent(server) == len(server.memories())
    second = await run_import(server, facts, path)
    assert (second.report.created, sent(server)) == (500, 500)
    stored(server)


async def test_a_journal_that_fails_after_the_server_is_told_too(server: LocalServer, path: Path) -> None:
    server.faults.add(*[Fault.answer(503, "Rate limiter unavailable")] * 4)
    failing = Crashing(path, path.with_suffix(".left"), crash_at=8)  # four times before and after `sending`
    result = await run_import(server, texts(range(3)), failing)
    assert isinstance(result.error, ImportStoppedError)
    assert isinstance(result.error.__cause__, ServerError)
    assert result.error.__notes__ == ["while it was ending: crashed"]
    # What was told is true; the journal errs on the careful side, and the next run looks.
    assert (result.report.not_sent, server.memories()) == (3, [])
    assert set(known(path, texts(range(3)), server.url).values()) == {"doubt"}
    assert (await run_import(server, texts(range(3)), path)).report.created == 3


async def test_what_a_journal_that_cannot_be_read_may_know_is_unknown(
    server: LocalServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = texts(range(30))  # in two rows
    left_in_doubt(path, server, facts)
    get = Rows.get

    def damaged(rows: Rows, number: int) -> Row:
        if number == 2:
            raise sqlite3.OperationalError("disk I/O error")
        return get(rows, number)

    monkeypatch.setattr(Rows, "get", damaged)
    result = await run_import(server, facts[20:], path)
    assert isinstance(result.error, ImportStoppedError)
    assert isinstance(result.error.__cause__, JournalError)
    assert (result.report.unknown, result.report.not_sent) == (10, 0)


async def test_the_first_failure_is_the_cause(server: LocalServer, path: Path) -> None:
    """A call is out, and comes back with a 401, after the journal has failed for another."""
    journal = Journal(path)
    server.faults.add(Fault.slow(0), Fault.slow(3), on="batch")
    server.faults.add(Fault.poison("number 33.", status=401), on="batch")

    async def facts() -> AsyncIterator[str]:
        for number in range(75):
            if number == 50:
                await asyncio.sleep(2)
                read_only(journal)
            yield f"number {number}."

    result = await run_import(server, facts(), journal, concurrency=2)
    assert isinstance(result.error, ImportStoppedError)
    assert isinstance(result.error.__cause__, JournalError)


async def test_a_journal_that_cannot_grow_stops_the_import(server: LocalServer, path: Path) -> None:
    facts = [f"{'x' * 400} {number}" for number in range(500)]
    with Journal(path) as journal:
        database(journal).execute("PRAGMA max_page_count = 32")
        result = await run_import(server, facts, journal, concurrency=4)
        assert isinstance(result.error, ImportStoppedError)
        assert "database or disk is full" in str(result.error.__cause__)
        assert sent(server) == result.report.created > 0
        database(journal).execute("PRAGMA max_page_count = 16000")
        second = await run_import(server, facts, journal)  # the same journal, still open
    assert (second.report.created, sent(server)) == (500, 500)
    stored(server)


LIMITED = """
import asyncio, resource, sys
from omi_async import ImportStoppedError, JournalError, Session

async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    facts = [f"{'x' * 400} {number}" for number in range(1000)]
    async with Session(sys.argv[2], base_url=sys.argv[1]) as session:
        try:
            await session.memories.import_facts(facts, journal=sys.argv[3])
        except ImportStoppedError as error:
            assert isinstance(error.__cause__, JournalError), repr(error.__cause__)
            report = error.report
            assert report.pulled == report.settled
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            print(report.created, report.not_sent, report.unknown)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_real_limit_of_the_file_system_is_met_in_the_same_way(path: Path) -> None:
    facts = [f"{'x' * 400} {number}" for number in range(1000)]
    with LocalServer.in_thread(path.parent / "memories.db", text_identity=False) as threaded:
        status, output = ran(LIMITED, threaded.url, threaded.api_key, path)
        assert status == 0, output
        created, not_sent, unknown = map(int, output.split())
        assert created == len(threaded.memories()) > 0
        assert not_sent > 0
        assert unknown == 0
    async with LocalServer(path.parent / "memories.db", text_identity=False) as server:
        # Another address: what the first run did is known under its own.
        result = await run_import(server, facts, Journal(path, server=threaded_url(path)))
        assert (result.report.created, sent(server)) == (1000, 1000 - created)
        stored(server)


def threaded_url(path: Path) -> str:
    with Journal(path) as journal:
        (url,) = journal.counts()
    return url


# Who may use it


async def test_a_second_import_of_this_process_is_refused_and_pulls_nothing(
    server: LocalServer, path: Path
) -> None:
    pulled: list[int] = []

    def source() -> Iterator[str]:
        pulled.append(1)
        yield "never pulled"

    shared = Journal(path)
    async with Session(server.api_key, base_url=server.url) as session:
        async with session.memories.importer(texts(range(1000)), journal=shared) as importer:
            await anext(importer)
            for journal in (path, str(path), Journal(path), shared):
                with pytest.raises(JournalInUseError, match="is in use by another import"):
                    await session.memories.import_facts(source(), journal=journal)
            assert await asyncio.to_thread(ran, OPEN, path) == (
                0,
                f"the journal {path} is in use by another import; wait for its end, or stop it",
            )
            rest = [outcome async for outcome in importer]
        assert len(rest) == 999
        assert pulled == []
        report = await session.memories.import_facts(source(), journal=shared)
    assert (report.created, pulled) == (1, [1])


async def test_two_imports_that_begin_at_the_same_time_do_not_share_a_closed_journal(
    server: LocalServer, path: Path
) -> None:
    shared = Journal(path)
    results = await asyncio.gather(*(run_import(server, texts(range(100)), shared) for _ in range(4)))
    refused = [result for result in results if result.error is not None]
    assert len(refused) == 3
    assert all(isinstance(result.error, JournalError) for result in refused)
    assert {result.report.pulled for result in refused} == {0}
    assert sum(result.report.created for result in results) == 100
    assert not shared.is_open
    server.assert_each_stored_once(texts(range(100)))


HOLD = """
import sys
from omi_async import Journal
with Journal(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""


async def test_another_process_keeps_an_import_out(server: LocalServer, path: Path) -> None:
    with python(HOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        result = await run_import(server, iter(["never pulled"]), path)
        holder.kill()
    assert isinstance(result.error, JournalInUseError)
    assert "is in use by another import" in str(result.error)
    assert result.report.pulled == 0
    assert (await run_import(server, ["a fact"], path)).report.created == 1


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_path_is_opened_and_closed_by_the_import(server: LocalServer, path: Path, kind: Any) -> None:
    await run_import(server, ["a fact"], kind(path))
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]  # no -wal: it was closed
    assert known(path, ["a fact"], server.url) == {"a fact": "created"}


async def test_a_journal_of_ones_own_stays_open_for_several_imports(server: LocalServer, path: Path) -> None:
    with Journal(path) as journal:
        for count in (10, 40, 40):
            result = await run_import(server, texts(range(count)), journal)
            assert result.report.created == count
            assert journal.is_open
        assert journal.counts() == {server.url: {"created": 40}}
    assert sent(server) == 40


async def test_what_is_settled_costs_no_call_through_an_open_journal_either(
    server: LocalServer, path: Path
) -> None:
    server.faults.add(Fault.poison("number 7"))
    with Journal(path) as journal:
        await run_import(server, texts(range(10)), journal)
        before = len(server.requests)
        again = await run_import(server, texts(range(10)), journal)
    assert (again.report.created, again.report.rejected) == (9, 1)
    assert len(server.requests) == before


async def test_dedupe_cannot_be_off_with_a_journal(server: LocalServer, path: Path) -> None:
    async with Session(server.api_key, base_url=server.url) as session:
        with pytest.raises(ValueError, match="dedupe=False"):
            session.memories.importer(["a fact"], journal=path, dedupe=False)
    assert raw(path) == b""


async def test_an_unusable_journal_stops_before_anything_is_pulled(server: LocalServer, path: Path) -> None:
    foreign(path)
    result = await run_import(server, iter(["never pulled"]), path)
    assert isinstance(result.error, JournalError)
    assert result.report.pulled == 0
    assert raw(path) == FOREIGN


# Opening


class Slow(Journal):
    """A journal that takes its time to open."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opening = threading.Event()
        self.may_open = threading.Event()

    def open(self) -> None:
        self.opening.set()
        assert self.may_open.wait(20)
        super().open()


async def test_opening_does_not_hold_the_loop_up(server: LocalServer, path: Path) -> None:
    journal = Slow(path)
    task = asyncio.create_task(run_import(server, ["a fact"], journal))
    while not journal.opening.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    journal.may_open.set()  # only a loop that turns gets here
    assert (await task).report.created == 1


@pytest.mark.parametrize("times", [1, 3])
async def test_an_import_that_is_cancelled_while_it_opens_lets_go_of_the_journal(
    server: LocalServer, path: Path, times: int
) -> None:
    journal = Slow(path)
    task = asyncio.create_task(run_import(server, ["a fact"], journal))
    while not journal.opening.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    journal.may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not journal.is_open
    assert server.memories() == []
    assert ran(OPEN, path) == (0, "opened")
    assert (await run_import(server, ["a fact"], journal)).report.created == 1


async def test_an_import_that_is_cancelled_while_it_fails_to_open_is_just_cancelled(
    server: LocalServer, path: Path
) -> None:
    foreign(path)
    journal = Slow(path)
    task = asyncio.create_task(run_import(server, ["a fact"], journal))
    while not journal.opening.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    journal.may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await task


# Secrets


WORDS = "Xylophone Quartz"


async def secretive(server: LocalServer, path: Path, folder: Path, journal: Journal) -> bytes:
    """Import facts that end in every state, and gather the bytes of the file at every moment."""
    found = []

    def look() -> None:
        found.append(
            b"".join(file.read_bytes() for file in folder.iterdir() if file.name.startswith(path.name))
        )

    class Looking(Fault):
        kinds = ("batch", "create", "list")

        async def happen(self, work: Work, sleep: Sleep) -> Reply:
            look()
            return await work()

    server.faults.add(Fault.poison("poison"))
    server.faults.add(Looking(), times=3)
    server.faults.add(Fault.names_only(3), on="batch")
    server.faults.add(Fault.answer(422, f"refused: {WORDS}"), on="batch")
    server.faults.add(Looking(), times=1000)
    facts = [
        *(f"{WORDS} {number}" for number in range(60)),
        f"{WORDS} poison",
        f"{WORDS} poison 2",
        "x" * 501,
    ]
    async with Session(server.api_key, base_url=server.url) as session:
        report = await session.memories.import_facts(
            facts, journal=journal, concurrency=1, on_outcome=lambda _outcome: look()
        )
    look()
    assert report.rejected >= 2
    assert report.created >= 50
    server.faults.clear()
    server.faults.add(Fault.answer(500, "down"), on=("batch", "list"), times=1000)
    await run_import(server, [f"{WORDS} {number}" for number in range(60, 100)], journal)
    look()
    return b"".join(found)


async def test_the_key_is_in_no_byte_of_the_file(server: LocalServer, path: Path) -> None:
    content = await secretive(server, path, path.parent, Journal(path))
    assert WORDS.encode() in content  # it is the right file
    assert server.api_key.encode() not in content
    assert server.api_key.removeprefix("omi_dev_").encode() not in content


async def test_without_texts_no_word_of_a_fact_is_in_any_byte_of_the_file(
    server: LocalServer, path: Path
) -> None:
    content = await secretive(server, path, path.parent, Journal(path, texts=False))
    assert server.url.encode() in content
    for word in (*WORDS.split(), "poison"):
        assert word.encode() not in content


# The clocks


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
async def test_a_clock_that_is_set_between_two_runs_mixes_up_nothing(path: Path, ahead: float) -> None:
    """In the first run the client's clock is wrong by two hours; then it is set right."""
    wrong = [ahead]
    async with LocalServer(clock=lambda: time.time() - wrong[0]) as server:
        server.add("stored long before")
        await asyncio.sleep(60)
        server.faults.add(Fault.slow(1, stored=True), Fault.reset(stored=True), on="batch")
        facts = [*texts(range(25)), "stored long before", *texts(range(25, 40))]
        first = await run_import(server, facts, path, concurrency=1, on_unknown="report")
        assert (first.report.created, first.report.unknown) == (25, 16)

        wrong[0] = 0.0
        await asyncio.sleep(abs(ahead) + 60)  # the server's clock goes on all the while
        second = await run_import(server, facts, path)
        states = second.by_text()
        assert states.pop("stored long before") == "existing"
        assert set(states.values()) == {"created"}
        assert sent(server) == 41
        stored(server)
