"""Imports that live for hours inside quota windows, on a virtual clock over real HTTP."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from omi_async import ImportReport
from omi_async._quota.policy import QuotaPolicy
from omi_async.importing.journal.journal import Journal
from omi_async.local import DOCUMENTED_QUOTAS, FOREVER, REAL_QUOTAS, Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.importing.helpers import assert_law, counts, facts, serving

pytestmark = pytest.mark.virtual_clock

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waited hour shall not be 120 turns of the loop; what the looks are for is tested elsewhere."""
    monkeypatch.setattr("omi_async._quota.pacer.LOOK_AGAIN", 7200.0)


def hourly(limit: int = 15) -> Quota:
    return Quota("batches", limit, HOUR, ("batch",))


def statuses(server: LocalServer, operation: str = "batch") -> list[int | None]:
    return [record.status for record in server.requests if record.kind == operation]


def refused(server: LocalServer) -> int:
    return sum(record.status == 429 for record in server.requests)


async def timed(session: Any, count: int, **options: Any) -> tuple[ImportReport, float]:
    before = asyncio.get_running_loop().time()
    report = await session.memories.import_facts(facts(count), **options)
    assert_law(report)
    return report, elapsed(before)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
async def test_45_batches_at_15_an_hour(concurrency: int) -> None:
    # Catches: a leaky bucket (29 calls in the first hour), a learning round for each window, hammering.
    async with serving(quotas=[hourly()]) as (server, session):
        report, seconds = await timed(session, 45 * 25, concurrency=concurrency)
        assert counts(report) == {"created": 1125}
        assert statuses(server).count(200) == 45
        assert refused(server) <= concurrency
        assert seconds == pytest.approx(2 * HOUR, rel=0.02)
        assert report.waiting_for is None
        server.assert_each_stored_once(facts(1125))


@pytest.mark.parametrize(
    ("quota", "batches", "ideal"),
    [
        (Quota("second", 5, 1, ("batch",)), 50, 9.0),
        (Quota("minute", 30, 60, ("batch",)), 100, 180.0),
        (Quota("ten minutes", 15, 600, ("batch",)), 100, 3600.0),
        (Quota("day", 60, 86_400, ("batch",)), 100, 86_400.0),
    ],
    ids=lambda it: getattr(it, "name", None),
)
async def test_windows_of_all_lengths(quota: Quota, batches: int, ideal: float) -> None:
    async with serving(quotas=[quota]) as (server, session):
        report, seconds = await timed(session, batches * 25)
        assert counts(report) == {"created": batches * 25}
        assert ideal <= seconds <= ideal * 1.02 + 1.5  # the second that is rounded down, and its like
        assert refused(server) <= 2 * 4 + 2


async def test_announced_limits_cost_no_refusal() -> None:
    async with serving(quotas=DOCUMENTED_QUOTAS) as (server, session):
        report, seconds = await timed(session, 350 * 25, concurrency=16)
        assert counts(report) == {"created": 350 * 25}
        assert refused(server) == 0
        assert seconds == pytest.approx(180, abs=5)


async def test_given_limits_cost_no_refusal() -> None:
    policies = [QuotaPolicy(15, HOUR, kinds=frozenset({"batch"}))]
    async with serving(quotas=[hourly()], session={"quotas": policies}) as (server, session):
        _, seconds = await timed(session, 45 * 25)
        assert refused(server) == 0
        assert seconds == pytest.approx(2 * HOUR, rel=0.001)


async def test_a_limit_that_is_lowered_in_flight() -> None:
    async with serving(quotas=[hourly(20)]) as (server, session):
        asyncio.get_running_loop().call_later(1.5 * HOUR, lambda: server.quotas.change("batches", limit=5))
        _, seconds = await timed(session, 60 * 25)  # 20, 20, then 5 an hour
        assert seconds == pytest.approx(5 * HOUR, rel=0.02)
        assert refused(server) <= 2 * 4


async def test_a_limit_that_is_raised_in_flight_and_announced() -> None:
    quota = Quota("batches", 5, HOUR, ("batch",), announced=True)
    async with serving(quotas=[quota]) as (server, session):
        asyncio.get_running_loop().call_later(1.5 * HOUR, lambda: server.quotas.change("batches", limit=50))
        _, seconds = await timed(session, 60 * 25)  # 5, 5, then 50 an hour
        assert seconds == pytest.approx(2 * HOUR, rel=0.02)
        assert refused(server) == 0


async def test_a_limit_that_is_raised_in_silence_is_found_out_by_a_rare_test() -> None:
    # Catches: a learned limit that stands forever; and one that is tested at each window.
    async with serving(quotas=[Quota("batches", 2, 300, ("batch",))]) as (server, session):
        asyncio.get_running_loop().call_later(6000, lambda: server.quotas.change("batches", limit=100))
        _, seconds = await timed(session, 150 * 25, concurrency=1)
        assert 24 * 300 <= seconds <= 30 * 300
        assert refused(server) <= 4


async def test_the_tests_of_a_limit_that_stands_are_rare() -> None:
    async with serving(quotas=[Quota("batches", 2, 300, ("batch",))]) as (server, session):
        _, seconds = await timed(session, 2 * 31 * 25, concurrency=1)
        assert seconds == pytest.approx(30 * 300, rel=0.02)
        assert refused(server) <= 2 + 1 + 1  # it is learned, and tested once


async def test_pages_of_the_load_balancer_do_not_shut_the_hour() -> None:
    async with serving(quotas=[hourly()]) as (server, session):
        server.faults.add(Fault.html(429), on="batch", times=5)
        report, seconds = await timed(session, 15 * 25)
        assert counts(report) == {"created": 375}
        assert seconds < 60


async def test_a_server_without_limits_is_never_waited_for() -> None:
    async with serving() as (server, session):
        _, seconds = await timed(session, 500 * 25, concurrency=16)
        assert refused(server) == 0
        assert seconds < 1


async def test_a_reserve_is_there_for_a_live_call_in_the_midst_of_an_import() -> None:
    policies = [QuotaPolicy(10, HOUR)]
    async with serving(session={"quotas": policies, "reserve": 0.3, "max_wait": 0}) as (server, session):
        importing = asyncio.create_task(timed(session, 20 * 25))
        for _ in range(2):
            await asyncio.sleep(HOUR / 2)
            for number in range(3):
                await session.memories.list(limit=1, offset=number)
            await asyncio.sleep(HOUR / 2 + 10)
        _, seconds = await importing
        assert seconds == pytest.approx(2 * HOUR, abs=60)
        assert refused(server) == 0


async def test_an_open_window_is_no_reason_to_stop() -> None:
    # Catches: the head start of the first call through an opening taken for a wait, with max_wait=0.
    async with serving(quotas=[hourly(8)]) as (_, session):
        await timed(session, 8 * 25)
        await timed(session, 25, max_wait=0)
        await asyncio.sleep(HOUR + 5)
        report, _ = await timed(session, 8 * 25, max_wait=0)
        assert report.not_sent == 0


async def test_what_is_waited_for_is_known_while_it_is() -> None:
    seen: list[Any] = []

    def on_progress(report: ImportReport) -> None:
        seen.append((report.waiting_for, report.created))

    async with serving(quotas=[hourly(4)]) as (_, session):
        report, _ = await timed(session, 12 * 25, on_progress=on_progress)
    waits = [(it.policy, it.kinds, created) for it, created in seen if it is not None]
    assert ("4-an-hour", frozenset({"batch"}), 100) in waits
    assert ("4-an-hour", frozenset({"batch"}), 200) in waits
    assert seen[-1] == (None, 300)
    assert report.waiting_for is None


@pytest.mark.parametrize("how", ["stop", "cancel", "close"])
async def test_an_import_that_ends_while_waiting_accounts_for_all(how: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with serving(quotas=[hourly(4)]) as (server, session):
        importer = session.memories.importer(facts(250), journal=journal)
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(100)
        assert importer.report.waiting_for is not None
        before = asyncio.get_running_loop().time()
        if how == "stop":
            importer.stop()
        elif how == "cancel":
            running.cancel()
        else:
            await session.close()
        await asyncio.wait({running})
        assert elapsed(before) < 1
        assert_law(importer.report)
        assert importer.report.created == 100
        assert importer.report.unknown == 0
        assert importer.report.created + importer.report.not_sent == importer.report.pulled
        if how == "close":
            assert running.exception() is not None
        assert len({memory["content"] for memory in server.memories()}) == 100


async def test_nothing_is_in_doubt_in_the_journal_while_an_import_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Catches: "sending" written before the wait: a crash in that hour leaves facts in doubt that never left.
    written: list[float] = []
    sending = Journal.sending

    async def noted(journal: Journal, items: Any) -> None:
        written.append(asyncio.get_running_loop().time())
        await sending(journal, items)

    monkeypatch.setattr(Journal, "sending", noted)
    async with serving(quotas=[hourly(4)]) as (server, session):
        before = asyncio.get_running_loop().time()
        importer = session.memories.importer(facts(250), journal=tmp_path / "journal")
        running = asyncio.create_task(importer.run())
        await asyncio.sleep(100)
        assert len(written) == len(statuses(server))
        await running
        assert len(written) == len(statuses(server))
        assert [round((moment - before) / HOUR) for moment in written if moment - before > 10] == [1] * 4 + [
            2
        ] * 2


# Two lanes


@pytest.mark.parametrize("count", [10, 375, 380, 400, 500, 525, 600, 1125])
async def test_two_lanes_finish_sooner_if_they_can_and_later_never(count: int) -> None:
    # Catches: facts sent twice, batches that go half empty, an hour waited for what could go in a minute.
    times, sent = {}, {}
    for lanes in ("batch", "both"):
        async with serving(quotas=REAL_QUOTAS) as (server, session):
            report, times[lanes] = await timed(session, count, lanes=lanes)
            assert counts(report) == {"created": count}
            server.assert_each_stored_once(facts(count))
            sent[lanes] = [r.items for r in server.requests if r.kind == "batch" and r.status == 200]
            # The last one; and with both lanes what a single fact was that was refused when it had left.
            assert sum(items < 25 for items in sent[lanes]) <= (1 if lanes == "batch" else 2)
            assert refused(server) <= 4 + 2 * 4 + 8
    windows = math.ceil(count / 25 / 15)
    assert times["batch"] == pytest.approx((windows - 1) * HOUR, rel=0.02, abs=5)
    assert times["both"] <= times["batch"] * 1.01 + 10
    if 375 < count <= 375 + 100:
        assert times["both"] < 600


async def test_two_lanes_and_a_bound_to_the_waiting() -> None:
    async with serving(quotas=REAL_QUOTAS) as (server, session):
        report, seconds = await timed(session, 2000, lanes="both", max_wait=600)
        assert seconds < 700
        assert not report.complete
        assert report.resume_at is not None
        assert report.created + report.not_sent == report.pulled
        assert report.created >= 375
        assert len({memory["content"] for memory in server.memories()}) == report.created


# How many are on the wire


async def test_a_fast_server_is_never_throttled() -> None:
    async with serving(session={"connections": 16}) as (server, session):
        server.faults.add(Fault.slow(0.01), on="batch", times=FOREVER)
        _, seconds = await timed(session, 400 * 25, concurrency=16)
        assert seconds <= 400 / 16 * 0.01 * 1.1 + 0.02
        assert server.max_in_flight == 16


async def test_contention_halves_what_is_on_the_wire_and_success_brings_it_back() -> None:
    async with serving(session={"connections": 16}) as (server, session):
        busy = Fault.answer(503, "Rate limiter unavailable")
        server.faults.add(Fault.slow(1.0), on="batch", times=30)
        server.faults.add(*[busy] * 2, on="batch")
        server.faults.add(Fault.slow(1.0), on="batch", times=FOREVER)
        report, seconds = await timed(session, 400 * 25, concurrency=16)
        assert counts(report) == {"created": 10_000}
        assert seconds <= 400 / 16 + 25
