"""How jobs end: stopped while they wait for something, and left by an app that is cancelled or in a hurry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from omi_async import ImportJobs, ImportStoppedError, Session, SessionPool
from omi_async.local import FOREVER, Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.jobs.test_jobs import app, facts, kept, state_is, texts, until

pytestmark = pytest.mark.virtual_clock


def now() -> float:
    return asyncio.get_running_loop().time()


def record(folder: Path, job: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((folder / job / "job.json").read_text())
    return kept


async def test_a_job_that_waits_for_its_turn_is_stopped_and_forgotten_at_once(tmp_path: Path) -> None:
    # Catches: a user who cannot stop an import before the one in front of it has come to its end.
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.slow(100), on="batch", times=FOREVER)
        first = await jobs.start("dana", facts(250), concurrency=1)
        second, third = [await jobs.start("dana", ["never sent"]) for _ in range(2)]
        await until(state_is(first, "running"), first)
        began = now()
        assert (await second.stop()).state == "stopped"
        await jobs.forget(third.id)
        assert elapsed(began) < 1
        assert first.snapshot.state == "running"
        assert kept(it.folder) == {first.id, second.id}


async def test_a_session_that_never_comes_does_not_keep_the_app_from_its_end(tmp_path: Path) -> None:
    async def session_for(_owner: str) -> Session:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with ImportJobs(tmp_path / "jobs", session_for) as jobs:
        job = await jobs.start("dana", facts(1), "mine")
        await until(state_is(job, "running"), job)
        await asyncio.sleep(100)
        began = now()
        other = await jobs.start("lee", facts(1))
        await until(state_is(other, "running"), other)
        assert (await other.stop()).state == "stopped"
    assert elapsed(began) < 1
    assert record(tmp_path / "jobs", "mine")["state"] == "waiting"


async def test_a_source_that_swallows_its_cancellation_does_not_keep_the_app_from_its_end(
    tmp_path: Path,
) -> None:
    given_up = asyncio.Event()

    async def stubborn() -> AsyncIterator[str]:
        while not given_up.is_set():
            try:
                await given_up.wait()
            except asyncio.CancelledError:
                continue
        yield "too late"

    async with app(tmp_path) as it:
        async with it.jobs() as jobs:
            starting = asyncio.create_task(jobs.start("dana", stubborn(), "mine"))
            await asyncio.sleep(1)
            began = now()
        assert elapsed(began) < 10
        given_up.set()
        with pytest.raises(RuntimeError, match="not open"):
            await starting
        assert it.server.memories() == []
        async with it.jobs() as jobs:
            assert await jobs.resume() == []
            assert (await (await jobs.start("dana", facts(1), "mine")).result()).created == 1


async def cancelled_by_level(folder: Path, server: LocalServer) -> float:
    """Run an app with a job, cancel its scope in the middle; return the seconds that it took to leave."""

    async def web_app() -> None:
        async with (
            SessionPool(base_url=server.url) as pool,
            ImportJobs(folder, lambda _owner: pool.session(server.api_key)) as jobs,
        ):
            job = await jobs.start("dana", facts(250), "mine", concurrency=1)
            await until(lambda: job.snapshot.report.created >= 50, job)
            reached.set()
            await anyio.sleep_forever()

    reached = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(web_app)
        await reached.wait()
        began = now()
        tasks.cancel_scope.cancel()
    return elapsed(began)


async def test_a_job_outlives_an_app_that_is_cancelled_by_level(tmp_path: Path) -> None:
    # Catches: jobs that go on behind the block, find the sessions closed, and are marked as failed for good.
    async with LocalServer(text_identity=False) as server:
        server.faults.add(Fault.slow(5), on="batch", times=FOREVER)
        assert await cancelled_by_level(tmp_path / "jobs", server) < 6
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if name.startswith(("import job", "omi_async"))}
        assert record(tmp_path / "jobs", "mine")["state"] == "waiting"
        stored = len(server.memories())
        await asyncio.sleep(100)
        assert len(server.memories()) == stored
        async with (
            Session(server.api_key, base_url=server.url) as session,
            ImportJobs(tmp_path / "jobs", lambda _owner: session) as jobs,
        ):
            (job,) = await jobs.resume()
            assert (await job.result()).ok
        server.assert_each_stored_once(texts(250))


async def test_an_app_that_is_cancelled_twice_waits_for_no_call(tmp_path: Path) -> None:
    async def web_app() -> None:
        async with it.jobs() as jobs:
            job = await jobs.start("dana", facts(30), "mine")
            await until(lambda: len(it.server.requests) > 0, job)
            reached.set()
            await asyncio.Event().wait()

    reached = asyncio.Event()
    async with app(tmp_path) as it:
        it.server.faults.add(Fault.slow(25, stored=True), on="batch")
        running = asyncio.create_task(web_app())
        await reached.wait()
        running.cancel()
        await asyncio.sleep(5)
        began = now()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert elapsed(began) < 1
        async with it.jobs() as jobs:
            (job,) = await jobs.resume()
            assert (await job.result()).ok
        it.server.assert_each_stored_once(texts(30))


async def test_an_app_error_is_told_without_its_key_and_ends_the_job(tmp_path: Path) -> None:
    key = "omi_dev_0123456789abcdef"

    def session_for(_owner: str) -> Session:
        raise LookupError(f"no account for {key} \ud800")

    async with ImportJobs(tmp_path / "jobs", session_for) as jobs:
        job = await jobs.start("dana", facts(1), "mine")
        with pytest.raises(ImportStoppedError, match="no account for"):
            await job.result()
        assert key not in str(job.snapshot)
    assert key not in (tmp_path / "jobs" / "mine" / "job.json").read_text()


async def test_the_jobs_that_there_are_are_read_when_the_app_begins(tmp_path: Path) -> None:
    # Catches: a thousand files read in the event loop, by the first request that asks for its jobs.
    async with app(tmp_path) as it:
        async with it.jobs() as jobs:
            await (await jobs.start("dana", facts(1), "mine")).result()
        async with it.jobs() as jobs:
            (it.folder / "mine" / "job.json").unlink()
            assert [job.snapshot.state for job in jobs.of("dana")] == ["done"]


async def test_jobs_belong_to_one_event_loop(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(jobs.start("dana", facts(1))))


async def test_jobs_that_wait_hold_no_file_each(tmp_path: Path) -> None:
    # Catches: an app that can open no file any longer once a thousand users wait for their windows.
    hourly = Quota("batches", 1, 3600, ("batch",))
    async with app(tmp_path, quotas=[hourly]) as it, it.jobs() as jobs:
        before = open_files()
        for number in range(100):
            await jobs.start(f"owner {number}", [f"fact of {number}"])
        await asyncio.sleep(120)
        assert sum(job.snapshot.state == "waiting" for n in range(100) for job in jobs.of(f"owner {n}")) >= 99
        assert open_files() - before < 20  # some connections


def open_files() -> int:
    """Return how many this process has open, as far as the system says."""
    fds = Path("/proc/self/fd")
    return len([*fds.iterdir()]) if fds.exists() else 0
