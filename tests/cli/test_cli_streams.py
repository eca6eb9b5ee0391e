"""Streams that break under a command: a full disk, a terminal that dies, too few files."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from omi_async.local import FOREVER, Fault, ThreadedServer
from tests.cli.driving import SCRIPT, Start, ended, texts, until, write_facts

FULL = "/dev/full"
NO_SPACE = "standard output: No space left on device"

pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="no /dev/full here")


def run_into_full(start: Start, *words: str) -> tuple[int, str]:
    with open(FULL, "w") as full:  # noqa: PTH123  # a device
        process = start(*words, stdout=full)
    done = ended(process)
    return done.code, done.err


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_import_into_a_full_disk_stores_all_and_reports_to_stderr(
    start: Start, served: ThreadedServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    write_facts(tmp_path / "facts.jsonl", 300)
    code, err = run_into_full(start, "import", "facts.jsonl", *words)
    assert code == 0  # true of the facts, whatever became of the report
    served.assert_each_stored_once(texts(300))
    assert err.count(NO_SPACE) == 1
    assert "300 facts: 300 created" in err


def test_a_report_for_a_reader_that_is_gone_comes_on_stderr(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "facts.jsonl").write_text('{"content": "one", "category": "system"}\n{"content": ""}\n')
    process = start("import", "facts.jsonl")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    done = ended(process)
    assert done.code == 6
    assert "2 facts: 1 created, 1 invalid" in done.err


@pytest.mark.parametrize("words", [["list"], ["export"], ["--help"], ["export", "-o", FULL]])
def test_a_result_that_cannot_be_written_is_an_error_that_names_the_stream(
    start: Start, served: ThreadedServer, words: list[str]
) -> None:
    served.add("one")
    code, err = run_into_full(start, *words)
    assert (code, err) == (
        1,
        f"Error: {NO_SPACE.replace('standard output', words[2]) if '-o' in words else NO_SPACE}\n",
    )


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_was_created_is_told_on_stderr_then(
    start: Start, served: ThreadedServer, words: tuple[str, ...]
) -> None:
    code, err = run_into_full(start, "create", "one", "--category", "system", *words)
    [memory] = served.memories()
    assert code == 0
    assert NO_SPACE in err
    assert memory["id"] in err


def test_messages_that_cannot_be_written_are_lost_and_the_report_is_not(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "facts.txt").write_text("one\n" + "x" * 501 + "\n")
    with open(FULL, "w") as full:  # noqa: PTH123  # a device
        process = start("import", "facts.txt", "--category", "system", stderr=full)
    done = ended(process)
    assert done.code == 6
    assert done.out.startswith("2 facts: 1 created, 1 invalid")


def on_a_terminal(start: Start, *words: str, **options: Any) -> tuple[subprocess.Popen[str], int]:
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = start(*words, stdin=slave, stderr=slave, env=environment, **options)
    os.close(slave)
    return process, master


def test_a_terminal_that_dies_under_the_bar_does_not_end_the_import(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.slow(0.02), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 2000)
    process, master = on_a_terminal(start, "import", "facts.jsonl")
    until(lambda: len(served.memories()) >= 100, process)
    os.close(master)
    done = ended(process)
    assert done.code == 0
    assert done.out.startswith("2,000 facts: 2,000 created")
    served.assert_each_stored_once(texts(2000))


def test_a_hangup_stops_the_import_in_order_however_often_it_comes(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.slow(0.3), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 5000)
    process, master = on_a_terminal(start, "import", "facts.jsonl", "--json", start_new_session=True)
    until(lambda: len(served.memories()) >= 25, process)
    os.close(master)
    for _ in range(4):
        process.send_signal(signal.SIGHUP)
    done = ended(process)
    assert done.code == done.event["exit_code"] == 130
    assert done.event["unknown"] == 0  # what was on the wire has landed
    assert 0 < done.event["created"] == len(served.memories()) < 5000


def test_what_is_to_outlive_its_terminal_is_not_stopped(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 500)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        process = start("import", "facts.jsonl")
    finally:
        signal.signal(signal.SIGHUP, before)
    until(served.memories, process)
    process.send_signal(signal.SIGHUP)
    assert ended(process).code == 0
    served.assert_each_stored_once(texts(500))


@pytest.mark.parametrize("words", [["import", "facts.jsonl"], ["list"]])
@pytest.mark.parametrize("most", [10, 20])
def test_too_few_files_are_told_before_anything_is_done(
    served: ThreadedServer, tmp_path: Path, words: list[str], most: int
) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    line = f'ulimit -n {most}; exec "$0" "$@"'
    done = subprocess.run(
        ["sh", "-c", line, str(SCRIPT), *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: this process may have no more than {most} files")
    assert done.stderr.count("\n") == 1
    assert not served.requests
    assert [path.name for path in tmp_path.iterdir()] == ["facts.jsonl"]


def test_a_low_limit_of_files_is_raised_if_that_is_allowed(served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    done = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 12; exec "$0" "$@"', str(SCRIPT), "import", "facts.jsonl", "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["created"] == 10


def test_what_is_written_is_for_its_owner_alone(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text("one\n" + "x" * 501 + "\n")
    assert ended(start("import", "facts.txt", "--category", "system", umask=0)).code == 6
    assert ended(start("export", "-o", "out.jsonl", umask=0)).code == 0
    for name in ("facts.failures.jsonl", "out.jsonl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    [ledger] = [Path(os.environ["OMI_LEDGER"])]
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
