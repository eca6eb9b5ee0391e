"""serve: the stand-in server as a process."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omi_async.local import LocalServer
from tests.cli.driving import Omi, Start, ended, texts, until, write_facts


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the line that `serve` gives for pasting, as a shell reads it."""
    assert process.stdout is not None
    words = shlex.split(process.stdout.readline())
    assert words[0] == "export"
    return dict(word.split("=", 1) for word in words[1:])


def use(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_works_until_it_is_ended(
    start: Start, omi: Omi, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    server = start("serve", "--port", 0)
    variables = ready(server)
    assert variables["OMI_API_KEY"].startswith("omi_dev_")
    use(variables, monkeypatch)
    assert omi("create", "a private text").code == 0
    assert omi("list", "--json").event["content"] == "a private text"
    server.send_signal(number)
    done = ended(server)
    assert done.code == 0
    assert "POST /v1/dev/user/memories" in done.err
    assert "a private text" not in done.err
    assert variables["OMI_API_KEY"] not in done.err
    assert done.err.endswith("Stopped.\n")


def test_serve_takes_the_key_of_its_environment_and_keeps_quiet_about_it(
    start: Start, omi: Omi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_this_environment")
    server = start("serve", "--port", 0, "--quiet")
    variables = ready(server)
    assert variables.keys() == {"OMI_API_BASE"}
    use(variables, monkeypatch)
    assert omi("list").code == 0
    server.send_signal(signal.SIGTERM)
    done = ended(server)
    assert "omi_dev_of_this_environment" not in done.err
    assert "GET" not in done.err


def test_serve_keeps_memories_in_a_file(
    start: Start, omi: Omi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start("serve", "--port", 0, "--local", "kept.db")
    use(ready(server), monkeypatch)
    assert omi("create", "kept").code == 0
    server.kill()
    server.wait()
    assert omi("list", "--local", "kept.db", "--json").event["content"] == "kept"


def test_serve_as_json(start: Start, omi: Omi, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start("serve", "--port", 0, "--json", "--quotas", "real", "--no-text-identity")
    assert server.stdout is not None
    event = json.loads(server.stdout.readline())
    assert event["event"] == "ready"
    assert event["database"] is None
    use({"OMI_API_KEY": event["api_key"], "OMI_API_BASE": event["url"]}, monkeypatch)
    assert omi("create", "twice").code == 0
    assert omi("create", "twice").code == 0
    assert len(omi("list", "--json").events) == 2
    server.send_signal(signal.SIGTERM)
    assert ended(server).code == 0


@pytest.mark.slow
def test_serve_has_as_many_accounts_as_are_asked_for(
    start: Start, omi: Omi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start("serve", "--port", 0, "--json", "-q", "--accounts", 3, "--local", "kept.db")
    assert server.stdout is not None
    event = json.loads(server.stdout.readline())
    keys = [event["api_key"], *event["more_api_keys"]]
    assert len(set(keys)) == 3
    for number, key in enumerate(keys):
        use({"OMI_API_KEY": key, "OMI_API_BASE": event["url"]}, monkeypatch)
        assert omi("create", f"text {number}").code == 0
        assert [memory["content"] for memory in omi("list", "--json").events] == [f"text {number}"]
    server.send_signal(signal.SIGTERM)
    assert ended(server).code == 0
    assert (tmp_path / "kept.db.3").exists()


def test_the_keys_of_more_accounts_are_printed_as_comments(start: Start) -> None:
    variables = ready(server := start("serve", "--port", 0, "-q", "--accounts", 2))
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("# account 2: export OMI_API_KEY=omi_dev_")
    assert variables["OMI_API_KEY"] not in line
    server.send_signal(signal.SIGTERM)
    assert ended(server).code == 0


@pytest.mark.parametrize("seed", [3, 7])
def test_with_chaos_and_a_kill_every_fact_is_stored_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    server = start("serve", "--port", 0, "--chaos", seed, "--no-text-identity", "--local", "kept.db", "-q")
    use(ready(server), monkeypatch)
    write_facts(tmp_path / "facts.jsonl", 1000)
    killed = start("import", "facts.jsonl")
    until(lambda: _stored(tmp_path / "kept.db") >= 100, killed)
    killed.kill()
    killed.communicate()
    for _ in range(4):
        done = ended(start("import", "facts.jsonl", "--json"), patience=60)
        states = ("created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent")
        assert sum(done.event[state] for state in states) == done.event["pulled"]
        assert done.code in {0, 3, 6}
        if done.code == 0:
            break
    assert done.event["created"] + done.event["existing"] == 1000
    server.send_signal(signal.SIGTERM)
    assert ended(server).code == 0
    with LocalServer.in_thread(tmp_path / "kept.db", text_identity=False) as kept:
        kept.assert_each_stored_once(texts(1000))
        assert len(kept.memories()) == 1000


def _stored(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (number,) = connection.execute("SELECT count(*) FROM memories").fetchone()
    return int(number)


def test_a_port_in_use_is_told(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ended(start("serve", "--port", port))
    assert done.code == 1
    assert f"port {port} is in use" in done.err


def test_an_address_that_is_not_here_is_told(start: Start) -> None:
    done = ended(start("serve", "--port", 0, "--host", "192.0.2.1"))
    assert done.code == 1
    assert "cannot listen on 192.0.2.1" in done.err


def test_an_mcp_key_is_refused(omi: Omi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_mcp_0123456789")
    done = omi("serve", "--port", 0)
    assert done.code == 1
    assert "omi_mcp_..." in done.err


def test_a_foreign_database_is_refused(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a database")
    done = omi("serve", "--port", 0, "--local", "notes.db")
    assert done.code == 1
    assert "OMI_API_KEY" not in os.environ


@pytest.mark.parametrize(("words", "failing"), [((), False), (("--contended",), True)])
def test_serve_contended_fails_under_parallel_writes(
    start: Start, words: tuple[str, ...], failing: bool
) -> None:
    variables = ready(server := start("serve", "--port", 0, "-q", *words))

    def create(number: int) -> int:
        request = urllib.request.Request(
            f"{variables['OMI_API_BASE']}/v1/dev/user/memories",
            data=json.dumps({"content": f"fact {number}", "category": "work"}).encode(),
            headers={
                "Authorization": f"Bearer {variables['OMI_API_KEY']}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    with ThreadPoolExecutor(16) as pool:
        statuses = set(pool.map(create, range(64)))
    server.send_signal(signal.SIGTERM)
    assert ended(server).code == 0
    assert statuses == ({200, 500} if failing else {200})
