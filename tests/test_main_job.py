"""The main job as the README's Quick start does it: a file of 10,000 facts into a running server."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from omi_async.local import FOREVER, Fault, LocalServer

pytestmark = pytest.mark.extras

COMMAND: Final = [sys.executable, "-m", "omi_async"]
DEADLINE: Final = 60


def write_facts(path: Path, count: int) -> None:
    lines = (
        json.dumps({"content": f"User has read book number {n}", "category": "hobbies"}) for n in range(count)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_import(folder: Path, url: str, key: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "import", "facts.jsonl", *options],
        cwd=folder,
        env={**os.environ, "OMI_API_BASE": url, "OMI_API_KEY": key},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@contextmanager
def serving(folder: Path, key: str) -> Iterator[tuple[str, Path]]:
    """Run `omi-async serve`; yield its address and its access log, complete once it has ended."""
    log = folder / "access.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", "--json"],
            env={**os.environ, "OMI_API_KEY": key},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], DEADLINE)[0]
            document = json.loads(process.stdout.readline())
            yield next(text for text in document.values() if str(text).startswith("http")), log
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(DEADLINE)
            process.stdout.close()
    assert code == 0


@pytest.mark.slow
def test_ten_thousand_facts_go_into_a_server_process(tmp_path) -> None:
    key = "omi_dev_" + "0" * 32
    write_facts(tmp_path / "facts.jsonl", 10_000)
    with serving(tmp_path, key) as (url, log):
        done = run_import(tmp_path, url, key)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "10,000 facts: 10,000 created")
    batches = [line for line in log.read_text(encoding="utf-8").splitlines() if "/memories/batch" in line]
    assert len(batches) == 400
    assert all(re.search(r"\b200\b", line) for line in batches)
    assert key not in log.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [2, 7])
def test_the_calls_are_full_parallel_and_bounded(tmp_path, concurrency) -> None:
    write_facts(tmp_path / "facts.jsonl", 2_510)
    with LocalServer.in_thread() as server:
        server.faults.add(Fault.slow(0.01), on="batch", times=FOREVER)  # so that calls can meet
        done = run_import(tmp_path, server.url, server.api_key, "--concurrency", str(concurrency))
        assert done.returncode == 0, done.stderr
        batches = [call.items for call in server.requests if call.kind == "batch"]
        assert sorted(batches) == [10, *[25] * 100]
        assert 1 < server.max_in_flight_by_kind["batch"] <= concurrency
        server.assert_each_stored_once([f"User has read book number {n}" for n in range(2_510)])
