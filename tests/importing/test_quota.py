"""429s, failing servers, and the pauses that they make."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from omi_async import Fact, FactOutcome, ImportStoppedError, ServerError, Session
from omi_async._api.endpoints import import_batch
from omi_async._api.messages import Request, Response
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacer import Pacer
from omi_async._quota.permit import Permit
from omi_async.fact import fact_payload
from omi_async.importing.answers import ServerClock
from omi_async.importing.calls import Calls
from omi_async.importing.concurrency import Caution, Concurrency
from omi_async.importing.stopping import StopSignal
from omi_async.importing.tracker import Tracker
from omi_async.importing.waiting import WaitBudget
from omi_async.local import FOREVER, Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.importing.helpers import assert_complete, calls, counts, facts, serving


class Timed(Fault):
    """Notes when calls come, by the loop's clock; answers with what it is given, then as always."""

    kinds = ("batch",)

    def __init__(self, answers: list[Fault]) -> None:
        self.answers = answers
        self.moments: list[float] = []

    async def happen(self, work: Any, sleep: Any) -> Any:
        self.moments.append(asyncio.get_running_loop().time())
        if self.answers:
            return await self.answers.pop(0).happen(work, sleep)
        return await work()


@pytest.mark.virtual_clock
async def test_a_window_is_waited_out_to_the_second_by_all() -> None:
    async with serving(quotas=[Quota("batches", 15, 3600, ("batch",))]) as (server, session):
        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(facts(25 * 40), concurrency=4)
        assert counts(report) == {"created": 1000}
        assert elapsed(before) == pytest.approx(7200, abs=5)
        refused = sum(record.status == 429 for record in server.requests)
        assert refused <= 2 * 4
        assert report.retries == refused
        server.assert_each_stored_once(facts(1000))


@pytest.mark.virtual_clock
@pytest.mark.parametrize(("max_wait", "windows"), [(0, 1), (3599, 1), (3700, 2), (7300, 3)])
async def test_max_wait_bounds_the_waiting_in_all(max_wait: float, windows: int) -> None:
    async with serving(quotas=[Quota("batches", 4, 3600, ("batch",))]) as (server, session):
        report = await session.memories.import_facts(facts(25 * 40), concurrency=2, max_wait=max_wait)
        assert report.created == 100 * windows
        assert report.pulled == report.created + report.not_sent
        assert not report.complete
        assert report.resume_at is not None
        assert 3590 < (report.resume_at - datetime.now(UTC)).total_seconds() < 3610
        server.assert_each_stored_once(facts(100 * windows))


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.virtual_clock
async def test_each_run_uses_its_window_up_before_it_gives_up(concurrency: int, tmp_path: Path) -> None:
    # Catches: permits that are given back, because in the same moment another worker was told to wait.
    async with serving(quotas=[Quota("batches", 4, 3600, ("batch",))], text_identity=False) as (
        server,
        session,
    ):
        for run in range(1, 4):
            options: dict[str, Any] = {"concurrency": concurrency, "journal": tmp_path / "facts.journal"}
            report = await session.memories.import_facts(facts(25 * 40), max_wait=30, **options)
            assert len(server.memories()) == 100 * run
            assert report.resume_at is not None
            await asyncio.sleep((report.resume_at - datetime.now(UTC)).total_seconds())


@pytest.mark.virtual_clock
async def test_an_import_within_max_wait_has_nothing_to_resume() -> None:
    async with serving(quotas=[Quota("batches", 4, 3600, ("batch",))]) as (_, session):
        report = await session.memories.import_facts(facts(25 * 8), max_wait=3700)
        assert counts(report) == {"created": 200}
        assert report.resume_at is None


@pytest.mark.virtual_clock
async def test_no_call_comes_before_the_opening() -> None:
    async with serving() as (server, session):
        timed = Timed([Fault.rate_limited(100)])
        server.faults.add(timed, times=FOREVER)
        await session.memories.import_facts(facts(500), concurrency=3)
        first, *others = timed.moments
        assert sum(moment == first for moment in timed.moments) <= 3  # already on their way
        assert all(moment == first or moment >= first + 100 for moment in others)
        assert min(moment for moment in others if moment > first) == pytest.approx(first + 100.5, abs=0.6)


@pytest.mark.virtual_clock
async def test_a_429_uses_up_no_attempts_and_without_a_hint_the_waits_grow() -> None:
    async with serving() as (server, session):
        timed = Timed([Fault.rate_limited() for _ in range(12)])
        server.faults.add(timed, times=FOREVER)
        report = await session.memories.import_facts(facts(30), concurrency=1)
        assert counts(report) == {"created": 30}
        assert report.retries == 12
        waits = [after - before for before, after in pairwise(timed.moments)][:12]
        for number, wait in enumerate(waits):
            longest = min(0.5 * 2**number, 8.0)
            assert longest / 2 <= wait <= longest + 0.1
        assert len({round(wait / min(0.5 * 2**n, 8.0), 6) for n, wait in enumerate(waits)}) > 6  # jitter


@pytest.mark.virtual_clock
async def test_a_shut_window_blocks_no_other_kind_of_call() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.after_all(), Fault.rate_limited(3600), on="batch")
        moments: list[tuple[float, int]] = []
        before = asyncio.get_running_loop().time()

        def on_outcome(outcome: FactOutcome) -> None:
            moments.append((elapsed(before), outcome.index))

        report = await session.memories.import_facts(facts(50), concurrency=1, on_outcome=on_outcome)
        assert counts(report) == {"created": 50}
        # The first batch is found in the list while the second waits for its window.
        assert all(moment < 60 for moment, index in moments if index < 25)
        assert all(moment >= 3600 for moment, index in moments if index >= 25)
        server.assert_each_stored_once(facts(50))


@pytest.mark.virtual_clock
async def test_retry_after_zero_is_a_short_wait() -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.rate_limited(0), on="batch", times=5)
        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(facts(25))
        assert counts(report) == {"created": 25}
        assert 0 < elapsed(before) < 4


# A server that fails


@pytest.mark.parametrize("fault", [Fault.answer(500, "down"), Fault.reset(), Fault.empty(504)])
@pytest.mark.virtual_clock
async def test_a_server_that_only_fails_is_probed_by_single_calls_and_given_up(fault: Fault) -> None:
    async with serving() as (server, session):
        timed = Timed([fault] * 1000)
        server.faults.add(timed, on="any", times=FOREVER)
        outcomes: list[FactOutcome] = []
        before = asyncio.get_running_loop().time()
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(facts(5_000), concurrency=4, on_outcome=outcomes.append)
        assert elapsed(before) < 300
        report = stopped.value.report
        assert_complete(report, outcomes)
        assert report.created == 0
        assert report.unknown > 0
        assert len(timed.moments) < 25
        # Once it is known to fail, one call at a time, ever more rarely.
        probes = [after - earlier for earlier, after in pairwise(timed.moments[-6:])]
        assert all(2 <= earlier <= after for earlier, after in pairwise(probes))


@pytest.mark.virtual_clock
async def test_a_server_that_recovers_is_imported_into() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.answer(500, "down"), on="any", times=9)
        report = await session.memories.import_facts(facts(500), concurrency=4)
        assert counts(report) == {"created": 500}
        server.assert_each_stored_once(facts(500))
        assert len(server.memories()) == 500


@pytest.mark.virtual_clock
async def test_those_who_wait_for_a_slot_do_not_pass_a_breaker_that_shuts_meanwhile() -> None:
    moments: list[float] = []

    class Failing:
        base_url = "http://x"
        pacing = Pacer(Ledger(), connections=8)

        async def send(self, request: Request[Any], /, *, permit: Permit | None = None) -> Any:
            moments.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.01)
            assert permit is not None
            permit.answered(Response(500))
            raise ServerError("down", status=500)

    signal = StopSignal()
    tracker = Tracker(
        room=100, signal=signal, journal=None, clock=ServerClock(), on_outcome=None, on_progress=None
    )
    calls = Calls(
        Failing(),
        concurrency=Concurrency(1, Caution()),
        budget=WaitBudget(None, signal, tracker.report),
        signal=signal,
        tracker=tracker,
    )
    request = import_batch([fact_payload(Fact("x"))])
    before = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(failing(calls.make("batch", request)))
    assert [moment - before < 1 for moment in moments] == [True] * 5 + [False] * 5
    assert all(later - earlier >= 2 for earlier, later in pairwise(moments[4:]))
    assert calls.server_is_down is (len(moments) >= 11)


async def failing(call: Any) -> None:
    with pytest.raises(ServerError):
        await call


async def test_calls_of_other_callers_are_not_held_back(server: LocalServer, session: Session) -> None:
    server.faults.add(Fault.rate_limited(0.2), on="batch")
    importing = asyncio.create_task(session.memories.import_facts(facts(25)))
    await session.memories.create("meanwhile")
    assert counts(await importing) == {"created": 25}
    assert calls(server, "create") == 1
