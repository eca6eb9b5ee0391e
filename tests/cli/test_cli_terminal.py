"""What stands on a terminal: a bar, a table, a question."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from omi_async.local import FOREVER, Fault, ThreadedServer
from tests.cli.driving import PATIENCE, Start, until, write_facts


def on_terminal(
    start: Start,
    *arguments: object,
    typed: bytes = b"",
    meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
) -> tuple[int, str]:
    """Run a command on a terminal of 100 columns; give its exit code and all that it printed."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = start(*arguments, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    os.write(master, typed)
    if meanwhile is not None:
        meanwhile(process)
    printed = _all_of(master)
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert "Traceback" not in text
    return process.wait(timeout=30), text


def _all_of(master: int) -> bytes:
    printed = b""
    while select.select([master], [], [], PATIENCE)[0]:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how a terminal ends on Linux
            chunk = b""
        if not chunk:
            return printed
        printed += chunk
    raise AssertionError(f"nothing more came after {printed!r}")


def test_an_import_shows_a_bar(start: Start, served: ThreadedServer, tmp_path: Path):
    served.faults.add(Fault.slow(0.02), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 1000)
    code, text = on_terminal(start, "import", "facts.jsonl")
    assert code == 0
    assert "100%" in text
    assert "1,000 created" in text
    assert "/s" in text
    assert "left" in text
    assert "1,000 facts: 1,000 created\r\n" in text


def test_an_interrupted_bar_leaves_the_terminal_in_order(
    start: Start, served: ThreadedServer, tmp_path: Path
):
    served.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 10_000)

    def interrupt(process: subprocess.Popen[str]) -> None:
        until(lambda: len(served.memories()) >= 100, process)
        process.send_signal(signal.SIGINT)

    code, text = on_terminal(start, "import", "facts.jsonl", meanwhile=interrupt)
    assert code == 130
    assert "Stopping: the calls on the wire may land" in text
    assert "The same command goes on" in text


def test_an_empty_import_has_a_bar_too(start: Start, served: ThreadedServer, tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("")
    code, text = on_terminal(start, "import", "empty.jsonl")
    assert code == 0
    assert "0 facts: 0 created" in text


def test_a_list_is_a_table(start: Start, served: ThreadedServer):
    served.add("User likes [bold]tea[/bold] \x1b[2J", tags=["x"], visibility="public")
    code, text = on_terminal(start, "list")
    assert code == 0
    assert "category" in text
    assert "interesting public" in text
    assert "[bold]tea[/bold]  [2J #x" in text
    assert "1 memory" in text


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\x04", 130, 1)])
def test_delete_asks(start: Start, served: ThreadedServer, answer: bytes, code: int, left: int):
    [memory] = served.add("one")
    done = on_terminal(start, "delete", memory["id"], typed=answer)
    assert done[0] == code
    assert "permanently?" in done[1]
    assert len(served.memories()) == left
