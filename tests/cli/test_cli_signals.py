"""Ctrl-C, SIGTERM and kill, in the middle of real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from omi_async.local import FOREVER, Fault, ThreadedServer
from tests.cli.driving import Start, ended, lines_of, until, write_facts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_calls_land(
    start: Start, served: ThreadedServer, tmp_path: Path, number: signal.Signals
):
    served.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 10_000)
    process = start("import", "facts.jsonl", "--json")
    until(lambda: len(served.memories()) >= 100, process)
    process.send_signal(number)
    done = ended(process)
    report = done.event
    assert done.code == report["exit_code"] == 130
    assert report["interrupted"]
    assert not report["complete"]
    assert report["unknown"] == 0
    assert report["created"] == len(served.memories()) < 10_000
    assert report["created"] + report["not_sent"] == report["pulled"]
    failures = lines_of(tmp_path / "facts.failures.jsonl") if report["failures_file"] else []
    assert len(failures) == report["not_sent"]
    assert "The same command goes on" in done.err
    served.faults.clear()
    again = ended(start("import", "facts.jsonl", "--json"))
    assert again.code == 0
    assert again.event["created"] + again.event["existing"] == 10_000
    assert len(served.memories()) == 10_000


def test_the_second_signal_ends_at_once(start: Start, served: ThreadedServer, tmp_path: Path):
    served.faults.add(Fault.slow(600), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 1000)
    process = start("import", "facts.jsonl", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    until(lambda: served.max_in_flight == 4, process)
    process.send_signal(signal.SIGINT)
    assert "Stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130
    assert done.event["unknown"] == 100
    states = {record["state"] for record in lines_of(tmp_path / "facts.failures.jsonl")}
    assert "unknown" in states


def test_a_pipe_that_never_closes_does_not_hold_up_the_end(start: Start, served: ThreadedServer):
    process = start("import", "-", "--json", stdin=-1)
    assert process.stdin is not None
    for index in range(30):
        process.stdin.write(json.dumps({"content": f"live {index}", "category": "system"}) + "\n")
    process.stdin.flush()
    until(lambda: len(served.memories()) == 25, process)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    stdin, process.stdin = process.stdin, None
    done = ended(process)
    stdin.close()
    assert done.code == 130
    assert (done.event["created"], done.event["not_sent"]) == (25, 5)
    assert len(lines_of(Path("stdin.failures.jsonl"))) == 5


def test_a_dry_run_can_be_interrupted(start: Start):
    process = start("import", "-", "--dry-run", "-v", stdin=-1)
    assert process.stdin is not None
    until(lambda: _is_waiting(process.pid), process)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    stdin, process.stdin = process.stdin, None
    done = ended(process)
    stdin.close()
    assert (done.code, done.out, done.err.strip()) == (130, "", "Interrupted.")


def test_an_interrupted_export_leaves_no_file(start: Start, served: ThreadedServer, tmp_path: Path):
    served.add("one")
    served.faults.add(Fault.slow(600), on="list")
    process = start("export", "--output", "out.jsonl")
    until(lambda: served.max_in_flight == 1, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 130
    assert not list(tmp_path.iterdir())


def test_a_killed_import_has_written_down_its_failures(start: Start, served: ThreadedServer, tmp_path: Path):
    served.faults.add(Fault.slow(600), on="batch", times=FOREVER)
    (tmp_path / "facts.jsonl").write_text(
        '{"content": ""}\n' * 3 + '{"content": "x", "category": "system"}\n'
    )
    process = start("import", "facts.jsonl")
    until(lambda: served.max_in_flight == 1, process)
    process.kill()
    process.wait()
    assert len(lines_of(tmp_path / "facts.failures.jsonl")) == 3


def _is_waiting(pid: int) -> bool:
    """Whether the reader of standard input is at work: a thread of its own."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
