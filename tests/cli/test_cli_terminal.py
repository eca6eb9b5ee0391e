"""What stands on a terminal: a bar, a table, a question."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from omi_async import Journal
from omi_async.local import FOREVER, REAL_QUOTAS, Fault, Quota, ThreadedServer
from tests.cli.driving import PATIENCE, Start, until, write_facts


def on_terminal(
    start: Start,
    *arguments: object,
    answer: bytes | None = None,
    meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
    enough: Callable[[str], object] | None = None,
    columns: int = 100,
) -> tuple[int, str]:
    """Run a command on a terminal of so many columns; return its exit code and all that it printed.

    What it prints is read all the while: a terminal that is not read holds up who writes to it. An
    answer is typed when the question stands there; when it has printed `enough`, it is interrupted.
    """
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30"}
    process = start(*arguments, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    printed = bytearray()
    reader = threading.Thread(target=_read_all, args=(master, printed), daemon=True)
    reader.start()
    if answer is not None:
        until(lambda: b"[y/N]" in printed, process)
        os.write(master, answer)
    if meanwhile is not None:
        meanwhile(process)
    if enough is not None:
        until(lambda: enough(printed.decode(errors="replace")), process)
        process.send_signal(signal.SIGINT)
    code = process.wait(PATIENCE)
    reader.join(PATIENCE)
    assert not reader.is_alive()
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert "Traceback" not in text
    return code, text


def _read_all(master: int, printed: bytearray) -> None:
    with contextlib.suppress(OSError):  # how a terminal ends on Linux
        while chunk := os.read(master, 65536):
            printed += chunk


def test_an_import_shows_a_bar(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
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
) -> None:
    served.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 10_000)

    def interrupt(process: subprocess.Popen[str]) -> None:
        until(lambda: len(served.memories()) >= 100, process)
        process.send_signal(signal.SIGINT)

    code, text = on_terminal(start, "import", "facts.jsonl", meanwhile=interrupt)
    assert code == 130
    assert "Stopping: the calls on the wire may land" in text
    assert "The same command goes on" in text


@pytest.mark.slow
def test_waits_are_told_above_the_bar(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
    served.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
    served.quotas.replace(*REAL_QUOTAS)
    served.quotas.change("memories_batch", limit=10, window=3)
    write_facts(tmp_path / "facts.jsonl", 500)
    code, text = on_terminal(start, "import", "facts.jsonl", "--concurrency", "8")
    assert code == 0
    told = [line for line in re.split(r"[\r\n]+", text) if "the next batch call in" in line]
    assert 1 <= len(told) <= 4  # 20 calls at 10 in 3 seconds; eight workers are refused each time
    assert not any("━" in line for line in told)
    assert os.environ["OMI_API_KEY"] not in text


@pytest.mark.slow
def test_while_it_waits_the_bar_is_a_living_countdown(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.quotas.replace(Quota("batches", 2, 3600, ("batch",)))
    write_facts(tmp_path / "facts.jsonl", 500)
    shown = re.compile(
        r"waiting for the 2-an-hour window, opens in (59:\d\d), 50 of 500 facts, done about \d\d:\d\d"
    )
    code, text = on_terminal(
        start, "import", "facts.jsonl", enough=lambda text: len(set(shown.findall(text))) >= 3
    )
    assert code == 130
    waits = [line for line in re.split(r"[\r\n]+", text) if "waiting for" in line]
    assert not any("━" in line for line in waits)  # no bar beside it: the line has room on 100 columns
    assert "the next batch call in" not in text  # said once
    assert "The same command goes on" in text
    assert re.search(r"/s *\r\n", text.partition("Stopping")[2])  # how it ended: with nothing left to be done


def test_an_empty_import_has_a_bar_too(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    code, text = on_terminal(start, "import", "empty.jsonl")
    assert code == 0
    assert "0 facts: 0 created" in text


def test_a_list_is_a_table(start: Start, served: ThreadedServer) -> None:
    served.add("User likes [bold]tea[/bold] \x1b[2J", tags=["x"], visibility="public")
    code, text = on_terminal(start, "list")
    assert code == 0
    assert "category" in text
    assert "interesting public" in text
    assert "[bold]tea[/bold]  [2J #x" in text
    assert "1 memory" in text


@pytest.mark.slow
def test_what_was_found_is_a_table_too(start: Start) -> None:
    assert start("create", "User likes [bold]tea[/bold]", "--local").wait(PATIENCE) == 0
    code, text = on_terminal(start, "search", "tea", "--local")
    assert code == 0
    assert "relevance" in text
    assert "[bold]tea[/bold]" in text


@pytest.mark.parametrize("columns", [40, 80])
def test_a_list_reads_well_on_a_narrow_terminal(start: Start, served: ThreadedServer, columns: int) -> None:
    text = "User likes a cup of tea in the morning, and another one at half past four in the afternoon"
    [memory] = served.add(text, tags=["drinks", "habits"], visibility="public")
    code, shown = on_terminal(start, "list", columns=columns)
    assert code == 0
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= columns
    assert f"  {memory['id']}" in lines  # whole, to be copied
    whole = " ".join(shown.split())
    assert text in whole
    assert len(lines[0]) > columns * 0.7  # the text has the whole width
    assert "interesting public #drinks #habits" in whole


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\x04", 130)])
def test_journal_forget_asks(
    start: Start, served: ThreadedServer, tmp_path: Path, answer: bytes, code: int
) -> None:
    write_facts(tmp_path / "facts.jsonl", 1)
    assert start("import", "facts.jsonl").wait(PATIENCE) == 0
    words = ("journal", "forget", "facts.jsonl.journal", "--state", "created")
    done = on_terminal(start, *words, answer=answer)
    assert done[0] == code
    assert f"{served.url}: 1 created" in done[1]
    assert "by its text will store them twice" in " ".join(done[1].split())
    with Journal(tmp_path / "facts.jsonl.journal") as journal:
        assert journal.counts() == {served.url: {"created" if code else "not_sent": 1}}


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\x04", 130, 1)])
def test_delete_asks(start: Start, served: ThreadedServer, answer: bytes, code: int, left: int) -> None:
    [memory] = served.add("one")
    done = on_terminal(start, "delete", memory["id"], answer=answer)
    assert done[0] == code
    assert "permanently?" in done[1]
    assert len(served.memories()) == left
