"""Background imports through the ends of their processes: SIGTERM, kill -9, and two of them on one folder."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omi_async.local import FOREVER, Fault, LocalServer, ThreadedServer

pytestmark = pytest.mark.slow

PATIENCE = 120.0
FACTS = 400

APP = """
import asyncio, json, signal, sys
from omi_async import ImportJobs, Session

folder, url, key, count = sys.argv[1:]

async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Session(key, base_url=url) as session:
        async with ImportJobs(folder, lambda owner: session) as jobs:
            resumed = await jobs.resume()
            if int(count):
                job = await jobs.start("dana", (f"fact {n}" for n in range(int(count))), "one", concurrency=2)
            else:
                job = jobs["one"]
            print("ready", len(resumed), flush=True)
            end = asyncio.create_task(job.result())
            await asyncio.wait({end, asyncio.create_task(ended.wait())}, return_when="FIRST_COMPLETED")
            if not end.done():
                end.cancel()
    print(json.dumps(job.snapshot.to_dict()), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def server() -> Iterator[ThreadedServer]:
    with LocalServer.in_thread(text_identity=False) as server:
        server.faults.add(Fault.slow(0.02), on="batch", times=FOREVER)
        yield server


class Apps:
    """Starts processes, and ends those that are left."""

    def __init__(self, folder: Path, server: ThreadedServer) -> None:
        self._arguments = [str(folder), server.url, server.api_key]
        self._started: list[subprocess.Popen[str]] = []

    def start(self, count: int = 0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", APP, *self._arguments, str(count)], stdout=subprocess.PIPE, text=True
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()


@pytest.fixture
def apps(tmp_path: Path, server: ThreadedServer) -> Iterator[Apps]:
    apps = Apps(tmp_path / "jobs", server)
    yield apps
    apps.end()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ready(process: subprocess.Popen[str]) -> int:
    """Wait until an app is up; return how many jobs it has resumed."""
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words[0] == "ready"
    return int(words[1])


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    lines = process.stdout.readlines()  # `communicate` would miss what `ready` has read into the buffer
    assert process.wait(timeout=PATIENCE) == 0
    event: dict[str, Any] = json.loads(lines[-1])
    return event


def test_sigterm_leaves_a_job_that_the_next_process_ends(apps: Apps, server: ThreadedServer) -> None:
    server.faults.clear()
    server.faults.add(*[Fault.slow(0)] * 3, on="batch")
    server.faults.add(Fault.slow(2), on="batch", times=FOREVER)  # so the signal comes before the end
    first = apps.start(FACTS)
    ready(first)
    until(lambda: len(server.memories()) >= 50)
    first.send_signal(signal.SIGTERM)
    snapshot = ended(first)
    assert snapshot["state"] == "waiting"
    assert 50 <= len(server.memories()) < FACTS
    server.faults.clear()
    second = apps.start()
    assert ready(second) == 1
    snapshot = ended(second)
    assert (snapshot["state"], snapshot["report"]["created"]) == ("done", FACTS)
    server.assert_each_stored_once(f"fact {number}" for number in range(FACTS))


@pytest.mark.parametrize("seed", range(4))
def test_kill_9_at_any_point_loses_and_doubles_nothing(
    apps: Apps, server: ThreadedServer, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    process = apps.start(FACTS)
    ready(process)
    for _ in range(4):
        more = len(server.memories()) + chance.randrange(1, 80)
        until(lambda: len(server.memories()) >= min(more, FACTS) or process.poll() is not None)  # noqa: B023
        time.sleep(chance.random() * 0.03)
        process.kill()
        process.communicate()
        process = apps.start()
        ready(process)
    snapshot = ended(process)
    assert (snapshot["state"], snapshot["report"]["unknown"]) == ("done", 0)
    assert snapshot["report"]["created"] + snapshot["report"]["existing"] == FACTS
    server.assert_each_stored_once(f"fact {number}" for number in range(FACTS))
    assert len(server.memories()) == FACTS


def test_a_kill_while_the_input_is_copied_leaves_no_job(
    apps: Apps, server: ThreadedServer, tmp_path: Path
) -> None:
    process = apps.start(3_000_000)  # seconds of copying
    until((tmp_path / "jobs" / "one" / "input").exists)
    process.kill()
    process.communicate()
    assert not (tmp_path / "jobs" / "one" / "job.json").exists()
    again = apps.start(FACTS)
    assert ready(again) == 0
    assert ended(again)["state"] == "done"
    server.assert_each_stored_once(f"fact {number}" for number in range(FACTS))


def test_two_processes_never_work_on_the_same_job(apps: Apps, server: ThreadedServer) -> None:
    server.faults.clear()
    server.faults.add(Fault.slow(0.5), on="batch", times=FOREVER)
    first = apps.start(FACTS)
    ready(first)
    second = apps.start()
    assert ready(second) == 0
    server.faults.clear()
    assert [ended(first)["state"], ended(second)["state"]] == ["done", "done"]
    assert len(server.memories()) == FACTS
    server.assert_each_stored_once(f"fact {number}" for number in range(FACTS))


def test_the_second_process_takes_over_when_the_first_is_killed(apps: Apps, server: ThreadedServer) -> None:
    server.faults.clear()
    server.faults.add(Fault.slow(0), on="batch")
    server.faults.add(Fault.rate_limited(3600), on="batch", times=FOREVER)  # it waits, and keeps its job
    first = apps.start(FACTS)
    ready(first)
    until(server.memories)
    waiting = [apps.start() for _ in range(2)]
    assert [ready(process) for process in waiting] == [0, 0]
    first.kill()
    first.communicate()
    for process in waiting:
        process.kill()
        process.communicate()
    server.faults.clear()
    starting = [apps.start() for _ in range(3)]  # all at once: one of them gets the job
    assert sorted(ready(process) for process in starting) == [0, 0, 1]
    assert [ended(process)["state"] for process in starting] == ["done"] * 3
    server.assert_each_stored_once(f"fact {number}" for number in range(FACTS))
