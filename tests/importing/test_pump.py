"""Async sources that hold something across their yields: it belongs to the one task that reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from omi_async import Fact, FactOutcome, ImportStoppedError
from omi_async.local import FOREVER, Fault
from tests.clock import elapsed
from tests.importing.helpers import assert_complete, assert_no_task_left, counts, facts, serving

pytestmark = pytest.mark.virtual_clock

HOUR = 3600.0

variable: ContextVar[str] = ContextVar("variable", default="unset")


@asynccontextmanager
async def context_variable() -> AsyncIterator[None]:
    token = variable.set("set")
    try:
        yield
        assert variable.get() == "set"
    finally:
        variable.reset(token)  # ValueError in another context


@asynccontextmanager
async def task_group() -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(asyncio.sleep(10 * HOUR))
        try:
            yield
        finally:
            ticking.cancel()


@asynccontextmanager
async def task_group_of_anyio() -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 10 * HOUR)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def scope_of_anyio() -> AsyncIterator[None]:
    with anyio.fail_after(HOUR):
        yield


HELD: dict[str, Callable[[], Any]] = {
    "timeout": lambda: asyncio.timeout(HOUR),
    "task group": task_group,
    "anyio's scope": scope_of_anyio,
    "anyio's task group": task_group_of_anyio,
    "context variable": context_variable,
}


class Holder:
    """A source that holds something from its first to its last fact, and notes which tasks it ran in."""

    def __init__(self, held: Callable[[], Any], given: list[Fact], *, pause: float = 0.0) -> None:
        self.held = held
        self.given = given
        self.pause = pause
        self.tasks = set[asyncio.Task[Any] | None]()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Fact]:
        try:
            async with self.held():
                for fact in self.given:
                    self.tasks.add(asyncio.current_task())
                    await asyncio.sleep(self.pause)
                    yield fact
        finally:
            self.tasks.add(asyncio.current_task())
            self.closed = True


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("flush_after", [None, 1.0])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_what_a_source_holds_is_held_by_one_task(
    held: str, flush_after: float | None, concurrency: int
) -> None:
    # Catches: scopes that are left in another task than the one that entered them.
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(1), on="batch", times=FOREVER)
        source = Holder(HELD[held], facts(300), pause=0.01)
        outcomes: list[FactOutcome] = []
        report = await session.memories.import_facts(
            source, flush_after=flush_after, concurrency=concurrency, on_outcome=outcomes.append
        )
        assert counts(report) == {"created": 300}
        assert report.complete
        assert_complete(report, outcomes)
        assert len(source.tasks) == 1


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("how", ["stop", "cancel", "callback", "leave"])
@pytest.mark.parametrize("pause", [0.0, 0.4])
async def test_a_source_that_is_left_is_closed_by_the_task_that_read_it(
    held: str, how: str, pause: float
) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(1), on="batch", times=FOREVER)
        source = Holder(HELD[held], facts(3_000), pause=pause)
        tasks = asyncio.all_tasks()

        def on_outcome(outcome: FactOutcome) -> None:
            if how == "callback" and outcome.index == 60:
                raise ValueError("no")

        importer = session.memories.importer(source, concurrency=2, on_outcome=on_outcome)
        if how == "leave":
            async with importer:
                async for outcome in importer:
                    if outcome.index == 60:
                        break
        else:
            running = asyncio.create_task(importer.run())
            if how != "callback":
                asyncio.get_running_loop().call_later(
                    30.5, importer.stop if how == "stop" else running.cancel
                )
            await asyncio.wait({running})
            error = None if running.cancelled() else running.exception()
            assert (type(error) is ImportStoppedError) == (how == "callback"), error
        report = importer.report
        assert 60 < report.pulled < 3_000
        assert report.settled == report.pulled
        assert report.created == len(server.memories())
        assert source.closed
        assert len(source.tasks) == 1
        assert_no_task_left(tasks)


@pytest.mark.parametrize("flush_after", [None, 1.0])
async def test_a_timeout_of_the_sources_ends_it_also_while_nothing_is_asked_of_it(
    flush_after: float | None,
) -> None:
    # Catches: a cancellation that breaks into our own waiting, and never reaches the timeout.
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(100), on="batch", times=FOREVER)
        source = Holder(lambda: asyncio.timeout(50), facts(300))
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(source, concurrency=1, flush_after=flush_after)
        assert isinstance(stopped.value.__cause__, TimeoutError)
        assert counts(stopped.value.report) == {"created": 25}
        assert source.closed


@pytest.mark.parametrize("flush_after", [None, 1.0])
async def test_a_source_may_move_on_from_a_scope_that_has_run_out(flush_after: float | None) -> None:
    async def source() -> AsyncIterator[Fact]:
        with anyio.move_on_after(50):
            for fact in facts(200):
                yield fact
        for fact in facts(10, prefix="later"):
            yield fact

    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(100), on="batch", times=FOREVER)
        report = await session.memories.import_facts(source(), concurrency=1, flush_after=flush_after)
        assert counts(report) == {"created": 35}
        assert report.complete


async def test_a_task_group_of_the_sources_that_fails_ends_the_import() -> None:
    async def fail() -> None:
        await asyncio.sleep(50)
        raise OSError("the feed is gone")

    @asynccontextmanager
    async def feed() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            yield

    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(100), on="batch", times=FOREVER)
        source = Holder(feed, facts(300))
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(source, concurrency=1)
        group = stopped.value.__cause__
        assert isinstance(group, ExceptionGroup)
        assert str(group.exceptions[0]) == "the feed is gone"


class Deaf:
    """A source that does not hear when it is cancelled, until it is told otherwise."""

    def __init__(self, given: int) -> None:
        self.given = given
        self.leave = asyncio.Event()
        self.heard = 0

    async def __aiter__(self) -> AsyncIterator[Fact]:
        for fact in facts(self.given):
            yield fact
        while not self.leave.is_set():
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                self.heard += 1


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize("flush_after", [None, 1.0])
@pytest.mark.parametrize("seconds", [0.0, 8.0, 100.0])
async def test_a_source_that_swallows_cancellation_holds_up_the_end_no_longer_than_calls_may(
    how: str, flush_after: float | None, seconds: float
) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(0), on="batch")
        server.faults.add(Fault.slow(seconds), on="batch")
        source = Deaf(50)
        importer = session.memories.importer(source, flush_after=flush_after, drain_timeout=10)
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(5)
        before = asyncio.get_running_loop().time()
        if how == "stop":
            importer.stop()
        else:
            running.cancel()
        await asyncio.wait({running})
        assert elapsed(before) == pytest.approx(10, abs=0.1)
        assert source.heard
        assert counts(importer.report) == {"created": 50} if seconds < 15 else {"created": 25, "unknown": 25}
        source.leave.set()
        await asyncio.sleep(1)  # it is left to itself, and ends when it likes


async def test_errors_of_a_source_are_told_with_what_it_gave_before() -> None:
    async def source() -> AsyncIterator[Any]:
        for fact in facts(30):
            yield fact
        yield ""
        raise KeyError("lost")

    async with serving(text_identity=False) as (_, session):
        outcomes: list[FactOutcome] = []
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(source(), on_outcome=outcomes.append)
        assert isinstance(stopped.value.__cause__, KeyError)
        assert counts(stopped.value.report) == {"created": 25, "invalid": 1, "not_sent": 5}
        assert_complete(stopped.value.report, outcomes)


@pytest.mark.parametrize("flush_after", [None, 1.0])
async def test_nothing_is_pulled_that_nobody_asked_for(flush_after: float | None) -> None:
    pulled = 0

    async def source() -> AsyncIterator[Fact]:
        nonlocal pulled
        for fact in facts(500):
            pulled += 1
            yield fact

    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.slow(HOUR), on="batch")
        importer = session.memories.importer(source(), concurrency=2, flush_after=flush_after)
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(100)
        assert 25 <= pulled <= 75
        assert pulled == importer.report.pulled
        running.cancel()
        await asyncio.wait({running})
