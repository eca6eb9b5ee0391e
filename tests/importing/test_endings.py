"""How an import ends: stop, cancel, a source or a callback that raises, calls that do not land."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omi_async import Fact, FactOutcome, ImportStoppedError, Journal, Session
from omi_async.importing.importer import Importer
from omi_async.local import FOREVER, Fault, LocalServer
from tests.clock import elapsed
from tests.importing.helpers import (
    Source,
    assert_complete,
    assert_law,
    assert_no_task_left,
    calls,
    counts,
    facts,
    imports_tasks,
    serving,
)


def stop_after(importer: Callable[[], Importer], number: int, outcomes: list[FactOutcome]) -> Any:
    def on_outcome(outcome: FactOutcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == number:
            importer().stop()

    return on_outcome


# A stop


@pytest.mark.parametrize("number", [1, 25, 30, 99])
@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.virtual_clock
async def test_a_stop_lets_the_calls_on_the_wire_land(number: int, awaits: bool) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(5), on="batch", times=FOREVER)
        outcomes: list[FactOutcome] = []
        source = Source(facts(1000))
        importer = session.memories.importer(
            source.aiter() if awaits else source,
            concurrency=3,
            on_outcome=stop_after(lambda: importer, number, outcomes),
        )
        report = await importer.run()
        assert_complete(report, outcomes)
        assert report.created == len(server.memories())
        assert report.created >= 25
        assert report.created + report.not_sent == report.pulled == source.pulled
        assert not report.complete
        assert source.closed is awaits
        assert all("stopped first" in str(o.error) for o in report.failures)


@pytest.mark.virtual_clock
async def test_what_does_not_land_in_time_is_unknown_and_leaves_nothing_behind() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(0), on="batch", times=3)  # clean calls, so that three may go at a time
        server.faults.add(Fault.slow(50), on="batch", times=FOREVER)
        outcomes: list[FactOutcome] = []
        importer = session.memories.importer(
            facts(1000), concurrency=3, drain_timeout=10, on_outcome=outcomes.append
        )
        tasks = asyncio.all_tasks()
        asyncio.get_running_loop().call_later(2, importer.stop)
        before = asyncio.get_running_loop().time()
        report = await importer.run()
        assert elapsed(before) == pytest.approx(12, abs=0.1)
        assert (report.created, report.unknown) == (75, 75)
        assert report.not_sent == report.pulled - 150
        assert_complete(report, outcomes)
        assert_no_task_left(tasks)
        connector = session._client.connector  # type: ignore[union-attr]  # it is open
        assert not connector._acquired  # type: ignore[union-attr]  # it is open


@pytest.mark.virtual_clock
async def test_a_stop_before_the_start_pulls_nothing(server: LocalServer, session: Session) -> None:
    source = Source(facts(10))
    importer = session.memories.importer(source)
    importer.stop()
    report = await importer.run()
    assert (report.pulled, source.pulled, len(server.requests), report.complete) == (0, 0, 0, False)


@pytest.mark.parametrize("what", ["quota", "paused", "slow source", "looking", "full"])
@pytest.mark.virtual_clock
async def test_a_stop_ends_every_wait_at_once(what: str) -> None:
    async with serving(text_identity=False) as (server, session):
        given: Any = facts(300)
        options: dict[str, Any] = {"concurrency": 2}
        if what == "quota":
            server.faults.add(Fault.rate_limited(3600), on="batch", times=FOREVER)
        elif what == "paused":
            server.faults.add(Fault.answer(503, "Rate limiter unavailable"), on="batch", times=FOREVER)
        elif what == "slow source":
            given = Source(facts(30)).aiter(pause=1000)
        elif what == "looking":
            server.faults.add(Fault.after_all(), on="batch", times=FOREVER)
            server.faults.add(Fault.rate_limited(3600), on="list", times=FOREVER)
        importer = session.memories.importer(given, **options)
        before = asyncio.get_running_loop().time()
        if what == "full":
            async with importer:
                await anext(importer)
                await asyncio.sleep(100)
        else:
            asyncio.get_running_loop().call_later(0.2, importer.stop)
            await importer.run()
        report = importer.report
        assert elapsed(before) < 101
        assert report.settled == report.pulled
        assert report.unknown == (report.pulled - report.not_sent if what == "looking" else 0)
        if what not in {"looking", "full"}:
            assert server.memories() == []
            assert report.not_sent == report.pulled


# Cancellation


@pytest.mark.virtual_clock
async def test_a_cancellation_lets_calls_land_and_comes_through() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(5), on="batch", times=FOREVER)
        outcomes: list[FactOutcome] = []
        importer = session.memories.importer(facts(1000), concurrency=3, on_outcome=outcomes.append)
        task = asyncio.create_task(importer.run())
        await asyncio.sleep(12)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_complete(importer.report, outcomes)
        # One call in the first five seconds, two in the next, and three that land after the cancellation.
        assert importer.report.created == len(server.memories()) == 6 * 25
        assert importer.report.unknown == 0


@pytest.mark.parametrize("times", [2, 3, 7])
@pytest.mark.virtual_clock
async def test_cancelled_again_it_ends_at_once_and_still_keeps_its_books(times: int) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(0), on="batch")
        server.faults.add(Fault.slow(20), on="batch", times=FOREVER)
        outcomes: list[FactOutcome] = []

        async def on_outcome(outcome: FactOutcome) -> None:
            outcomes.append(outcome)
            await asyncio.sleep(1 if outcome.state != "created" else 0)

        importer = session.memories.importer(facts(1000), concurrency=2, on_outcome=on_outcome)
        tasks = asyncio.all_tasks()
        task = asyncio.create_task(importer.run())
        await asyncio.sleep(2)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.1)
        before = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert elapsed(before) < 100
        assert_complete(importer.report, outcomes)
        assert importer.report.unknown == 50
        await asyncio.sleep(0)
        assert_no_task_left(tasks)


@pytest.mark.virtual_clock
async def test_a_callback_that_waits_for_its_turn_is_not_lost_when_time_is_up() -> None:
    async with serving(text_identity=False) as (server, session):
        outcomes: list[FactOutcome] = []

        async def on_outcome(outcome: FactOutcome) -> None:
            await asyncio.sleep(2)
            outcomes.append(outcome)

        importer = session.memories.importer(
            facts(100), concurrency=4, on_outcome=on_outcome, drain_timeout=3
        )
        asyncio.get_running_loop().call_later(1, importer.stop)
        report = await importer.run()
        # The answers had come: they are believed, although the caller could not hear of all of them in time.
        assert report.created == len(server.memories())
        assert report.unknown == 0
        # One was interrupted in its middle when the time was up.
        assert len(outcomes) == report.pulled - 1
        assert len({o.index for o in outcomes}) == len(outcomes)


@pytest.mark.virtual_clock
async def test_an_async_callback_is_not_interrupted_by_a_stop() -> None:
    async with serving(text_identity=False) as (_, session):
        outcomes: list[FactOutcome] = []

        async def on_outcome(outcome: FactOutcome) -> None:
            if outcome.index == 30:
                importer.stop()
            await asyncio.sleep(0.01)
            outcomes.append(outcome)

        importer = session.memories.importer(
            [t for n in range(300) for t in (f"f {n}", "")], concurrency=2, on_outcome=on_outcome
        )
        report = await importer.run()
        assert_complete(report, outcomes)
        assert report.pulled < 600


# A source that raises


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("at", [0, 1, 24, 25, 60, 110])
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.virtual_clock
async def test_a_source_that_raises_ends_it(awaits: bool, at: int, concurrency: int) -> None:
    async with serving(text_identity=False) as (server, session):
        source = Source(facts(300), fail_at=at)
        outcomes: list[FactOutcome] = []
        with pytest.raises(ImportStoppedError, match="the disk is gone") as stopped:
            await session.memories.import_facts(
                source.aiter() if awaits else source, concurrency=concurrency, on_outcome=outcomes.append
            )
        assert stopped.value.__cause__ is source.error
        report = stopped.value.report
        assert_complete(report, outcomes)
        assert report.pulled == at
        assert not report.complete
        assert report.created == len(server.memories())
        assert report.created + report.not_sent == at


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.virtual_clock
async def test_a_source_that_raises_cancelled_error_is_not_at_its_end(concurrency: int) -> None:
    async with serving() as (_, session):
        source = Source(facts(300), fail_at=60, error=asyncio.CancelledError())
        with pytest.raises(ImportStoppedError, match="raised CancelledError") as stopped:
            await session.memories.import_facts(source.aiter(), concurrency=concurrency)
        assert stopped.value.report.settled == stopped.value.report.pulled == 60
        assert not stopped.value.report.complete


@pytest.mark.parametrize("error", [OSError("no"), asyncio.CancelledError()])
@pytest.mark.virtual_clock
async def test_a_source_may_fail_to_close(error: BaseException) -> None:
    class Stubborn:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            await asyncio.sleep(1)
            return str(asyncio.get_running_loop().time())

        async def aclose(self) -> None:
            raise error

    async with serving() as (_, session):
        importer = session.memories.importer(Stubborn())
        asyncio.get_running_loop().call_later(60, importer.stop)
        with contextlib.suppress(ImportStoppedError):
            await importer.run()
            assert isinstance(error, asyncio.CancelledError)
        assert importer.report.settled == importer.report.pulled > 50


# A callback that raises


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), StopIteration()])
@pytest.mark.parametrize("at", [0, 30, 59])
@pytest.mark.virtual_clock
async def test_a_callback_that_raises_ends_it_but_hears_of_all(
    awaits: bool, error: BaseException, at: int
) -> None:
    async with serving(text_identity=False) as (server, session):
        outcomes: list[FactOutcome] = []

        def on_outcome(outcome: FactOutcome) -> None:
            outcomes.append(outcome)
            if outcome.index == at:
                raise error

        async def on_outcome_async(outcome: FactOutcome) -> None:
            outcomes.append(outcome)
            await asyncio.sleep(0)
            if outcome.index == at:
                raise error

        awaits = awaits and not isinstance(error, StopIteration)  # a coroutine cannot raise that
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(
                facts(2_500), concurrency=2, on_outcome=on_outcome_async if awaits else on_outcome
            )
        report = stopped.value.report
        assert_complete(report, outcomes)
        assert report.pulled < 500
        assert report.created == len(server.memories())
        if not isinstance(error, asyncio.CancelledError):
            assert stopped.value.__cause__ is error


@pytest.mark.virtual_clock
async def test_a_callback_that_raises_ends_an_endless_source_of_duplicates() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "same"

    async with serving() as (_, session):
        heard = 0

        def on_outcome(_outcome: FactOutcome) -> None:
            nonlocal heard
            heard += 1
            raise ValueError("no")

        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(endless(), on_outcome=on_outcome)
        assert heard == stopped.value.report.pulled <= 600


@pytest.mark.virtual_clock
async def test_on_progress_that_raises_ends_it() -> None:
    async with serving() as (_, session):

        def on_progress(_: object) -> None:
            raise ValueError("no")

        with pytest.raises(ImportStoppedError, match="no"):
            await session.memories.import_facts(facts(2_500), on_progress=on_progress)


@pytest.mark.virtual_clock
async def test_a_callback_that_fails_only_while_the_books_are_closed_is_heard() -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.rate_limited(3600), on="batch", times=FOREVER)

        def on_outcome(_: object) -> None:
            raise ValueError("no")

        importer = session.memories.importer(facts(30), on_outcome=on_outcome)
        asyncio.get_running_loop().call_later(1, importer.stop)
        with pytest.raises(ImportStoppedError, match="no") as stopped:
            await importer.run()
        assert counts(stopped.value.report) == {"not_sent": 30}


# Streaming


@pytest.mark.parametrize("read", [0, 1, 30])
@pytest.mark.virtual_clock
async def test_leaving_early_stops_the_import(read: int) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(1), on="batch", times=FOREVER)
        source = Source(facts(1000))
        tasks = asyncio.all_tasks()
        async with session.memories.importer(source.aiter()) as importer:
            for _ in range(read):
                await anext(importer)
        report = importer.report
        assert report.settled == report.pulled
        assert report.pulled <= 125 + read
        assert report.created == len(server.memories())
        assert source.closed or source.pulled == 0
        assert_no_task_left(tasks)
        rest = [outcome async for outcome in importer]
        assert len(rest) + read == report.pulled


@pytest.mark.virtual_clock
async def test_what_the_reader_raises_comes_through() -> None:
    async with serving() as (_, session):
        importer = session.memories.importer(facts(1000))

        async def read() -> None:
            async with importer:
                async for _outcome in importer:
                    raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await read()
        assert importer.report.settled == importer.report.pulled


@pytest.mark.virtual_clock
async def test_a_stopped_stream_raises_after_its_last_outcome() -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.answer(401, "no"), on="batch", times=FOREVER)
        outcomes: list[FactOutcome] = []

        async def read() -> None:
            async with session.memories.importer(facts(1000)) as importer:
                async for outcome in importer:
                    outcomes.append(outcome)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(ImportStoppedError) as stopped:
            await read()
        assert_complete(stopped.value.report, outcomes)
        assert calls(server, "batch") <= 4


@pytest.mark.virtual_clock
async def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(5), on="batch", times=FOREVER)
        importer = session.memories.importer(facts(1000))

        async def read() -> None:
            async with importer:
                async for _ in importer:
                    await asyncio.sleep(0.1)

        tasks = asyncio.all_tasks()
        task = asyncio.create_task(read())
        await asyncio.sleep(6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_no_task_left(tasks)
        assert importer.report.settled == importer.report.pulled
        assert importer.report.created == len(server.memories())


async def test_the_end_of_the_program_leaves_nothing_behind() -> None:
    """What asyncio.run does at its end: it cancels every task, the import's own too."""
    async with serving() as (server, session):
        server.faults.add(Fault.slow(30), on="batch", times=FOREVER)
        before = asyncio.all_tasks()
        outcomes: list[FactOutcome] = []
        importer = session.memories.importer(facts(1000), on_outcome=outcomes.append)
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(0.1)
        for task in imports_tasks(before) | {running}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert_complete(importer.report, outcomes)
        assert importer.report.unknown == 25 * importer.report.requests > 0


# Cancellation by level: again at every turn of the loop, as anyio's scopes do it


def slow(server: LocalServer, where: str) -> None:
    """Let an import stay at a place: a call on the wire, a quota window, the look for lost facts."""
    if where == "on the wire":
        server.faults.add(Fault.slow(0.4), on="batch", times=FOREVER)
    elif where == "waiting":
        server.faults.add(Fault.slow(0), Fault.rate_limited(3600), on="batch")
    else:
        server.faults.add(Fault.after_all(), on="batch")


async def used(importer: Importer, way: str) -> None:
    """Use an importer as a caller would."""
    if way == "run":
        await importer.run()
    else:
        async with importer:
            async for _ in importer:
                pass


@pytest.mark.parametrize("way", ["run", "async with"])
@pytest.mark.parametrize("where", ["on the wire", "waiting", "looking"])
async def test_cancelled_at_every_turn_it_comes_to_its_end(way: str, where: str, tmp_path: Path) -> None:
    # Catches: an end that begins again with each cancellation, and so never comes.
    async with (
        LocalServer(text_identity=False) as server,
        Session(server.api_key, base_url=server.url) as session,
    ):
        slow(server, where)
        before = asyncio.all_tasks()
        journal = Journal(tmp_path / "facts.journal")
        importer = session.memories.importer(facts(400), journal=journal, drain_timeout=5)
        task = asyncio.create_task(used(importer, way))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        assert time.monotonic() - began < 4
        assert_no_task_left(before)
        assert not journal.is_open
        report = importer.report
        assert_law(report)
        assert not report.complete
        assert report.waiting_for is None
        # What was on the wire had the time to land, and is recorded.
        assert report.unknown == (25 if where == "looking" else 0)
        assert report.created + report.unknown == len(server.memories()) > 0


async def test_cancelled_at_every_turn_what_does_not_land_in_time_is_unknown() -> None:
    async with (
        LocalServer(text_identity=False) as server,
        Session(server.api_key, base_url=server.url) as session,
    ):
        server.faults.add(Fault.slow(60), on="batch", times=FOREVER)
        importer = session.memories.importer(facts(400), drain_timeout=0.3)
        task = asyncio.create_task(importer.run())
        await asyncio.sleep(0.1)
        began = time.monotonic()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert 0.2 < time.monotonic() - began < 2
        assert importer.report.unknown == 25
        assert_law(importer.report)


@pytest.mark.parametrize("way", ["run", "async with"])
async def test_a_scope_of_anyios_is_left_without_a_busy_loop(way: str) -> None:
    anyio = pytest.importorskip("anyio", reason="it is of the extra test")
    async with (
        LocalServer(text_identity=False) as server,
        Session(server.api_key, base_url=server.url) as session,
    ):
        server.faults.add(Fault.slow(1), on="batch", times=FOREVER)
        importer = session.memories.importer(facts(400))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        before = time.process_time()
        with anyio.move_on_after(0.2) as scope:
            await used(importer, way)
        counting.cancel()
        assert scope.cancelled_caught
        assert importer.report.created == len(server.memories()) == 25
        # Catches: a loop that anyio keeps turning for as long as the last call takes.
        assert time.process_time() - before < 0.6 * 0.01 * turns


async def test_a_first_shield_that_takes_long_to_make_is_no_impatience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Anyio:
        """anyio, whose first scope loads the module that serves asyncio."""

        @staticmethod
        def CancelScope(*, shield: bool) -> contextlib.AbstractContextManager[None]:  # noqa: N802  # anyio's name
            assert shield
            time.sleep(0.2)  # an import blocks the loop
            return contextlib.nullcontext()

    async with LocalServer() as server, Session(server.api_key, base_url=server.url) as session:
        server.faults.add(Fault.slow(0.5), on="batch")
        importer = session.memories.importer(facts(400))
        task = asyncio.create_task(importer.run())
        await asyncio.sleep(0.1)
        monkeypatch.setitem(sys.modules, "anyio", Anyio)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert importer.report.unknown == 0
        assert importer.report.created == len(server.memories()) == 25


async def test_a_journal_that_is_opened_meanwhile_is_closed_again(tmp_path: Path) -> None:
    async with LocalServer() as server, Session(server.api_key, base_url=server.url) as session:
        for turns in range(12):
            journal = Journal(tmp_path / "facts.journal")
            task = asyncio.create_task(session.memories.import_facts(facts(10), journal=journal))
            for _ in range(turns):
                await asyncio.sleep(0)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert not journal.is_open
        assert (await session.memories.import_facts(facts(10), journal=journal)).ok


# A source that has nothing to give


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize("given", [0, 3, 30])
@pytest.mark.virtual_clock
async def test_a_source_that_waits_forever_does_not_hold_up_the_end(how: str, given: int) -> None:
    closed = False

    async def source() -> AsyncIterator[Fact]:
        nonlocal closed
        try:
            for fact in facts(given):
                yield fact
            await asyncio.get_running_loop().create_future()
        finally:
            closed = True

    async with serving(text_identity=False) as (server, session):
        importer = session.memories.importer(source())
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(100)
        assert importer.report.pulled == given
        before = asyncio.get_running_loop().time()
        if how == "stop":
            importer.stop()
        else:
            running.cancel()
        await asyncio.wait({running})
        assert elapsed(before) == 0
        assert closed
        assert importer.report.created == given // 25 * 25 == len(server.memories())
        assert importer.report.not_sent == given % 25
        assert not importer.report.complete


@pytest.mark.virtual_clock
async def test_a_source_that_does_not_let_go_is_left_to_itself() -> None:
    class Stubborn:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            await asyncio.sleep(1)
            return str(asyncio.get_running_loop().time())

        async def aclose(self) -> None:
            await asyncio.get_running_loop().create_future()

    async with serving() as (_, session):
        importer = session.memories.importer(Stubborn(), drain_timeout=7)
        asyncio.get_running_loop().call_later(60, importer.stop)
        before = asyncio.get_running_loop().time()
        report = await importer.run()
        assert elapsed(before) <= 67.5
        assert report.settled == report.pulled > 50
