"""Sources that give facts now and then."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from omi_async import FactOutcome
from tests.clock import elapsed
from tests.importing.helpers import assert_complete, assert_no_task_left, counts, serving, sizes

pytestmark = pytest.mark.virtual_clock


async def trickle(pauses: list[float], *, then: float = 0.0) -> AsyncIterator[str]:
    """Yield a fact after each pause, and end after another."""
    for number, pause in enumerate(pauses):
        await asyncio.sleep(pause)
        yield f"fact {number}"
    await asyncio.sleep(then)


async def test_a_batch_leaves_when_its_oldest_fact_has_waited_long_enough() -> None:
    # Catches: a batch that waits forever for its 25th fact; and a time that begins again with each fact.
    async with serving(text_identity=False) as (server, session):
        before = asyncio.get_running_loop().time()
        moments: dict[int, float] = {}

        def on_outcome(outcome: FactOutcome) -> None:
            moments[outcome.index] = elapsed(before)

        report = await session.memories.import_facts(
            trickle([1, 1, 1, 100, *[0.01] * 30], then=1000), flush_after=2.5, on_outcome=on_outcome
        )
        assert counts(report) == {"created": 34}
        assert report.complete
        assert sizes(server) == [25, 6, 3]
        assert [moments[n] for n in range(3)] == pytest.approx([3.5] * 3, abs=0.1)
        assert moments[3] == pytest.approx(103.25, abs=0.1)  # it is full before
        assert moments[33] == pytest.approx(105.8, abs=0.1)


async def test_facts_that_need_no_call_make_no_batch_leave() -> None:
    async def source() -> AsyncIterator[str]:
        yield "same"
        await asyncio.sleep(10)
        for _ in range(5):
            yield " same"
            await asyncio.sleep(10)

    async with serving(text_identity=False) as (server, session):
        report = await session.memories.import_facts(source(), flush_after=1)
        assert counts(report) == {"created": 1, "duplicate": 5}
        assert sizes(server) == [1]


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_source_that_gives_nothing_more_does_not_hold_up_the_end(how: str) -> None:
    async with serving(text_identity=False) as (server, session):
        tasks = asyncio.all_tasks()
        outcomes: list[FactOutcome] = []
        importer = session.memories.importer(
            trickle([0, 0, 0, 50], then=10**6), flush_after=100, on_outcome=outcomes.append
        )
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(120)
        before = asyncio.get_running_loop().time()
        if how == "stop":
            importer.stop()
        else:
            running.cancel()
        await asyncio.wait({running})
        assert elapsed(before) == 0
        assert counts(importer.report) == {"created": 4}
        assert_complete(importer.report, outcomes)
        assert_no_task_left(tasks)
        assert len(server.memories()) == 4


@pytest.mark.parametrize("last", [StopAsyncIteration, OSError])
async def test_what_a_source_says_when_it_is_left_is_not_logged(last: type[Exception]) -> None:
    async def stubborn() -> AsyncIterator[str]:
        yield "fact"
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            if last is OSError:
                raise last("gone already") from None

    told = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    async with serving() as (_, session):
        importer = session.memories.importer(stubborn(), flush_after=1)
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(10)
        importer.stop()
        assert counts(await running) == {"created": 1}
    del importer, running  # asyncio tells of it when the last one who could ask has gone
    gc.collect()
    assert told == []


@pytest.mark.parametrize("error", [TimeoutError("mine"), OSError("gone")])
async def test_what_the_source_raises_comes_through(error: Exception) -> None:
    async def source() -> AsyncIterator[str]:
        yield "fact"
        await asyncio.sleep(5)
        raise error

    async with serving() as (_, session):
        importer = session.memories.importer(source(), flush_after=1)
        with pytest.raises(Exception, match=str(error)) as raised:
            await importer.run()
        assert raised.value.__cause__ is error
        assert counts(importer.report) == {"created": 1}
