"""A worker that is killed again and again while it takes facts from a queue that delivers them again."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omi_async.local import Fault, LocalServer, ThreadedServer
from tests.journal.helpers import python, texts

pytestmark = pytest.mark.slow

FACTS = 120

WORKER = """
import asyncio, sys
from pathlib import Path
from omi_async import Session

url, key, journal, acknowledged, redelivered, count = sys.argv[1:]

async def take(inbox, text, again, done):
    outcome = await inbox.put({"content": text, "category": "system"}, redelivered=again)
    assert outcome.state in {"created", "existing"}, outcome
    done.write(text + "\\n")  # acknowledged: it is never delivered again
    done.flush()

async def main():
    settled = set(Path(acknowledged).read_text().splitlines()) if Path(acknowledged).exists() else set()
    facts = [f"fact number {number}" for number in range(int(count))]
    async with Session(key, base_url=url) as session:
        async with session.memories.inbox(journal=journal, flush_after=0.05) as inbox:
            with open(acknowledged, "a") as done:
                print("taking", flush=True)
                async with asyncio.TaskGroup() as tasks:
                    for text in facts:
                        if text not in settled:
                            tasks.create_task(take(inbox, text, redelivered == "True", done))
                            await asyncio.sleep(0.001)

asyncio.run(main())
"""


class Queue:
    """Delivers facts to workers until they are acknowledged."""

    def __init__(self, folder: Path, server: ThreadedServer) -> None:
        self._acknowledged = folder / "acknowledged"
        self._server = server
        self._folder = folder

    @contextmanager
    def worker(self, journal: str, *, redelivered: bool = False) -> Iterator[subprocess.Popen[str]]:
        arguments = (
            self._server.url,
            self._server.api_key,
            self._folder / journal,
            self._acknowledged,
            redelivered,
            FACTS,
        )
        with python(WORKER, *arguments) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "taking\n"
            yield process

    def acknowledged(self) -> list[str]:
        return self._acknowledged.read_text().splitlines()


@contextmanager
def queue_at(folder: Path) -> Iterator[Queue]:
    with LocalServer.in_thread(folder / "memories.db", text_identity=False) as server:
        server.faults.add(Fault.slow(0.05), on="batch", times=1000)
        yield Queue(folder, server)
        texts_there = [memory["content"] for memory in server.memories()]
        assert sorted(texts_there) == sorted(texts(range(FACTS)))  # none is lost, none is doubled


def test_a_worker_that_is_killed_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)  # moments, not secrets
    with queue_at(tmp_path) as queue:
        for _ in range(6):
            with queue.worker("inbox.journal") as worker:
                time.sleep(chance.uniform(0.0, 0.4))
                worker.kill()
        with queue.worker("inbox.journal") as worker:
            output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, output
        assert sorted(queue.acknowledged()) == sorted(texts(range(FACTS)))


def test_what_a_killed_worker_left_is_looked_for_by_another_with_a_journal_of_its_own(tmp_path: Path) -> None:
    with queue_at(tmp_path) as queue:
        with queue.worker("one.journal") as worker:
            time.sleep(0.3)
            worker.kill()
        with queue.worker("another.journal", redelivered=True) as worker:
            output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, output


def test_an_interrupted_worker_ends_in_order(tmp_path: Path) -> None:
    with queue_at(tmp_path) as queue:
        with queue.worker("inbox.journal") as worker:
            time.sleep(0.1)
            worker.send_signal(signal.SIGINT)
            worker.communicate(timeout=60)
        assert worker.returncode != 0
        assert [file.name for file in tmp_path.glob("inbox*")] == ["inbox.journal"]  # closed, no -wal
        with queue.worker("inbox.journal") as worker:
            output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, output
