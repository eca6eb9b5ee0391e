"""What an import waits for, and what it does not: over real HTTP, on a virtual clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omi_async import Fact, Session
from omi_async.local import REAL_QUOTAS, Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.importing.helpers import counts, facts, serving

pytestmark = pytest.mark.virtual_clock

HOUR = 3600.0


def refused(server: LocalServer, operation: str = "batch") -> int:
    return sum(record.status == 429 for record in server.requests if record.kind == operation)


async def after(session: Session, batches: int, seconds: float, **options: Any) -> tuple[Any, float]:
    """Import 350 facts when so many batches went so many seconds ago."""
    for number in range(batches):
        await session.memories.create_batch([Fact(f"before {number}", category="system")])
    await asyncio.sleep(seconds)
    before = asyncio.get_running_loop().time()
    report = await session.memories.import_facts(facts(350), **options)
    return report, elapsed(before)


@pytest.mark.parametrize(("batches", "seconds"), [(15, 3000), (10, 1800), (15, 600)])
async def test_two_lanes_are_never_the_slower_if_the_window_is_half_over(batches: int, seconds: int) -> None:
    # Catches: a single fact that waits an hour for its own window, when a batch could go in ten minutes.
    took = {}
    for lanes in ("batch", "both"):
        async with serving(quotas=REAL_QUOTAS) as (server, session):
            report, took[lanes] = await after(session, batches, seconds, lanes=lanes)
            assert counts(report) == {"created": 350}
            server.assert_each_stored_once(facts(350))
    assert took["both"] <= took["batch"] + 70


async def test_two_lanes_do_not_give_up_if_one_does_not() -> None:
    async with serving(quotas=REAL_QUOTAS) as (_, session):
        report, seconds = await after(session, 15, 3000, lanes="both", max_wait=900)
        assert counts(report) == {"created": 350}
        assert seconds < 700


async def test_a_list_that_is_out_of_quota_does_not_end_the_batches() -> None:
    # Catches: an import of thousands that ends after five calls, because one lost answer cannot be looked up.
    async with serving(quotas=[Quota("list", 1, 3600, ("list",))], text_identity=False) as (server, session):
        await session.memories.list()
        server.faults.add(Fault.reset(stored=True), on="batch")
        report = await session.memories.import_facts(facts(2500), max_wait=600)
        assert counts(report) == {"created": 2475, "unknown": 25}
        assert report.complete
        assert report.resume_at is not None
        assert report.waiting_for is None


async def test_a_list_that_waits_is_not_shown_while_batches_go() -> None:
    # Catches: a progress bar that counts down an hour while facts are stored.
    async with serving(quotas=[Quota("list", 1, 3600, ("list",))], text_identity=False) as (server, session):
        await session.memories.list()
        server.faults.add(Fault.reset(stored=True), on="batch")
        server.faults.add(*[Fault.slow(1.0)] * 99, on="batch")
        shown: list[tuple[int, str | None]] = []

        def show(report: Any) -> None:
            shown.append((report.created, report.waiting_for and report.waiting_for.policy))

        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(facts(1250), on_progress=show)
        assert counts(report) == {"created": 1250}
        assert elapsed(before) >= 3590
        assert {policy for created, policy in shown if created < 1225} == {None}
        assert any(policy for created, policy in shown if created == 1225)
        server.assert_each_stored_once(facts(1250))


async def test_refused_list_calls_do_not_multiply_timers() -> None:
    # Catches: a timer for each refusal, of which none ends before the import does: 1,000 refused looks, 1,000
    # timers that go off each second.
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.reset(stored=True), on="batch")
        server.faults.add(Fault.rate_limited(2), on="list", times=100)
        importing = asyncio.create_task(session.memories.import_facts(facts(50)))
        await asyncio.sleep(150)
        assert refused(server, "list") > 50
        assert timers() < 20
        await importing
        server.assert_each_stored_once(facts(50))


def timers() -> int:
    """Return how many timers the running loop has, that will go off."""
    loop: Any = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)


async def test_a_single_fact_that_is_out_of_quota_does_not_end_the_batches() -> None:
    quotas = [Quota("single", 1, 3600, ("create",))]
    async with serving(quotas=quotas) as (server, session):
        await session.memories.create("before")
        server.faults.add(Fault.poison("fact 7 "), times=99)
        texts = [Fact(f"fact {number} .", category="system") for number in range(1500)]
        report = await session.memories.import_facts(texts, max_wait=600)
        assert report.created >= 1475
        assert report.created + report.rejected + report.not_sent == 1500
        assert report.complete
        server.assert_each_stored_once([text for text in texts if text.content != "fact 7 ."][:7])


@pytest.mark.slow
async def test_a_learned_limit_is_tested_by_one_call_and_stays_what_it_is() -> None:
    # Catches: the test call that leaves at the end of a window, is counted in the next one, and is taken for
    # the proof of a raised limit.
    async with serving(quotas=[Quota("batches", 3, 3600, ("batch",))]) as (server, session):
        report = await session.memories.import_facts(facts(25 * 3 * 55), concurrency=4)
        assert report.created == 25 * 3 * 55
        learning, tests = 4, 2
        assert refused(server) <= learning + tests
        assert [state.limit for state in session.quotas] == [3]
