"""Ctrl-C, SIGTERM and kill, in the middle of real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import termios
from pathlib import Path
from typing import IO

import pytest

from omi_async.local import FOREVER, Fault, ThreadedServer
from tests.cli.driving import PATIENCE, Start, calls_at_work, ended, lines_of, texts, until, write_facts


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_calls_land(
    start: Start, forgetful: ThreadedServer, tmp_path: Path, number: signal.Signals
) -> None:
    served = forgetful
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
    assert "The same command goes on: the journal facts.jsonl.journal has what is settled." in done.err
    served.faults.clear()
    calls = len(served.requests)
    again = ended(start("import", "facts.jsonl", "--json"))
    assert (again.code, again.event["created"]) == (0, 10_000)
    assert len(served.requests) - calls == (10_000 - report["created"]) / 25
    served.assert_each_stored_once(texts(10_000))


def test_the_second_signal_ends_at_once(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
    served.faults.add(*[Fault.slow(0)] * 10, on="batch")  # it begins with one call at a time
    served.faults.add(Fault.slow(600), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 1000)
    process = start("import", "facts.jsonl", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    until(lambda: len(served.requests) == 10 and calls_at_work(served) == 4, process)
    process.send_signal(signal.SIGINT)
    assert "Stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130
    assert done.event["unknown"] == 100
    states = {record["state"] for record in lines_of(tmp_path / "facts.failures.jsonl")}
    assert "unknown" in states
    assert "100 facts in doubt will be looked for." in done.err


@pytest.mark.slow
@pytest.mark.parametrize("stored", [True, False])
def test_a_killed_import_goes_on_and_doubles_nothing(
    start: Start, forgetful: ThreadedServer, tmp_path: Path, stored: bool
) -> None:
    write_facts(tmp_path / "facts.jsonl", 1000)
    forgetful.faults.add(*[Fault.slow(0)] * 10, Fault.slow(600, stored=stored), on="batch", times=1)
    forgetful.faults.add(Fault.slow(600, stored=stored), on="batch", times=3)
    process = start("import", "facts.jsonl", "--concurrency", "4")
    until(lambda: len(forgetful.requests) == 10 and calls_at_work(forgetful) == 4, process)
    assert len(forgetful.memories()) == (350 if stored else 250)
    process.kill()
    process.wait()
    calls = len(forgetful.requests)
    again = ended(start("import", "facts.jsonl", "--json"))
    assert (again.code, again.event["pulled"]) == (0, 1000)
    assert again.event["created"] + again.event["existing"] == 1000
    sent = [call for call in list(forgetful.requests)[calls:] if call.kind == "batch"]
    assert len(sent) == (26 if stored else 30)
    forgetful.assert_each_stored_once(texts(1000))


def test_a_killed_job_in_the_background_ends_too(
    start: Start, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.faults.add(Fault.slow(600), on="list")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's script does with `command &`
    try:
        process = start("list")
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: served.max_in_flight == 1, process)
    process.send_signal(signal.SIGTERM)
    assert (ended(process).code, served.max_in_flight) == (130, 1)


def test_the_second_sigterm_breaks_off_what_is_stuck(start: Start, served: ThreadedServer) -> None:
    served.add(*[f"number {index}" for index in range(5000)])
    process = start("export")
    until(lambda: _is_full(process.stdout), process)

    def gives_in() -> bool:
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    until(gives_in)
    assert ended(process).code in {130, -signal.SIGTERM}  # so many of them may meet it when it ends already


def test_a_pipe_that_never_closes_does_not_hold_up_the_end(start: Start, served: ThreadedServer) -> None:
    process = start("import", "-", "--json", stdin=-1)
    assert process.stdin is not None
    for index in range(30):
        process.stdin.write(json.dumps({"content": f"live {index}", "category": "system"}) + "\n")
    process.stdin.flush()
    until(lambda: len(served.memories()) == 25, process)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=PATIENCE)
    stdin, process.stdin = process.stdin, None
    done = ended(process)
    stdin.close()
    assert done.code == 130
    assert (done.event["created"], done.event["not_sent"]) == (25, 5)
    assert len(lines_of(Path("stdin.failures.jsonl"))) == 5


def test_a_dry_run_can_be_interrupted(start: Start) -> None:
    process = start("import", "-", "--dry-run", "-v", stdin=-1)
    assert process.stdin is not None
    until(lambda: _is_waiting(process.pid), process)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=PATIENCE)
    stdin, process.stdin = process.stdin, None
    done = ended(process)
    stdin.close()
    assert (done.code, done.out, done.err.strip()) == (130, "", "Interrupted.")


def test_an_interrupted_export_leaves_no_file(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
    served.add("one")
    served.faults.add(Fault.slow(600), on="list")
    process = start("export", "--output", "out.jsonl")
    until(lambda: served.max_in_flight == 1, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 130
    assert not list(tmp_path.iterdir())


def test_a_killed_import_has_written_down_its_failures(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.slow(600), on="batch", times=FOREVER)
    (tmp_path / "facts.jsonl").write_text(
        '{"content": ""}\n' * 3 + '{"content": "x", "category": "system"}\n'
    )
    process = start("import", "facts.jsonl")
    until(lambda: served.max_in_flight == 1, process)
    process.kill()
    process.wait()
    assert len(lines_of(tmp_path / "facts.failures.jsonl")) == 3


def _is_full(pipe: IO[str] | None) -> bool:
    """Return whether it takes no more: less than a page is free in it."""
    assert pipe is not None
    waiting = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return bool(waiting > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - os.sysconf("SC_PAGE_SIZE"))


def _is_waiting(pid: int) -> bool:
    """Whether the reader of standard input is at work: a thread of its own."""
    return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
