"""The frame of all commands: help, usage errors, what no command foresaw."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Never

import click
import pytest

import omi_async
from omi_async import Journal
from omi_async import cli as package
from omi_async.cli import app, memories
from omi_async.cli.journal import journal_command as journal
from omi_async.local import LocalServer
from tests.cli.driving import PATIENCE, SCRIPT, Ended, Omi, Start, ended, texts, write_facts


def test_the_console_script_prints_its_version(start: Start) -> None:
    assert ended(start("--version")) == Ended(0, f"omi-async {omi_async.__version__}\n", "")


def test_python_m_is_the_same_program() -> None:
    words = [sys.executable, "-m", "omi_async", "--version"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout == f"omi-async {omi_async.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_its_streams_does_its_work(tmp_path: Path, closed: str) -> None:
    facts = write_facts(tmp_path / "facts.jsonl", 10)
    for words, code in (("import facts.jsonl --local", 0), ("list --local", 0), ("delete x --local", 1)):
        line = ["sh", "-c", f"exec {SCRIPT} {words} {closed}"]
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == code, done
    with LocalServer.in_thread("omi-local.db") as server:
        server.assert_each_stored_once(texts(10))
    assert b"created" not in facts.read_bytes()
    with Journal("facts.jsonl.journal") as journal:
        assert [*journal.counts().values()] == [{"created": 10}]


def test_help_names_every_command_the_environment_and_the_exit_codes(omi: Omi) -> None:
    help_text = omi("--help").out
    for word in (
        "import",
        "list",
        "export",
        "create",
        "update",
        "delete",
        "journal",
        "serve",
        "OMI_API_KEY",
        "130",
    ):
        assert word in help_text


def test_help_is_printed_without_rich_or_the_server() -> None:
    program = "import sys; from omi_async.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert not loaded & {"rich", "omi_async.local", "omi_async.sources", "uvloop"}


@pytest.mark.parametrize("name", [*app.cli.commands, *(f"journal {name}" for name in journal.commands)])
def test_every_command_and_option_has_help(name: str, omi: Omi) -> None:
    first, *more = name.split()
    command = journal.commands[more[0]] if more else app.cli.commands[first]
    assert command.help
    for option in command.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None), option.name
    done = omi(*name.split(), "--help")
    assert done.code == 0
    assert "Usage: omi-async" in done.out


@pytest.mark.parametrize("name", sorted(app.cli.commands.keys() - {"serve", "journal"}))
def test_common_options_stand_behind_every_command(name: str) -> None:
    flags = {flag for option in app.cli.commands[name].params for flag in option.opts}
    assert flags >= {"--base-url", "--local", "--json", "--allow-http", "--timeout", "--verbose"}


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["journal"], ["journal", "show"], ["list", "--no-such"], ["list", "extra"], ["create"]],
)
def test_usage_errors_exit_1(omi: Omi, words: list[str]) -> None:
    done = omi(*words)
    assert done.code == 1
    assert "Usage:" in done.err
    assert done.out == ""


def test_without_the_cli_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, omi: Omi
) -> None:
    monkeypatch.setattr(package, "find_spec", lambda name: None if name == "rich" else name)
    done = omi("--help")
    assert done == Ended(1, "", "omi-async needs rich: pip install 'omi-async[cli]'\n")


def test_a_bug_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch, omi: Omi) -> None:
    async def broken(*_arguments: object) -> Never:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(memories, "_list", broken)
    done = omi("list")
    assert done.code == 3
    assert "Internal error: ZeroDivisionError: oops" in done.err
    assert "report" in done.err


def test_with_the_debug_variable_the_traceback_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_arguments: object) -> Never:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(memories, "_list", broken)
    monkeypatch.setenv("OMI_ASYNC_DEBUG", "1")
    assert package.main(["list"]) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch, omi: Omi, error: BaseException) -> None:
    def interrupted(*_arguments: object) -> Never:
        raise error

    monkeypatch.setattr(memories, "run_async", interrupted)
    monkeypatch.setattr(memories, "_list", lambda *_: None)
    done = omi("list")
    assert done.code == 130
    assert "Interrupted." in done.err


@pytest.mark.parametrize(
    ("error", "code"), [(SystemExit(7), 7), (SystemExit("words"), 0), (BrokenPipeError(), 0)]
)
def test_other_endings_have_their_codes(
    monkeypatch: pytest.MonkeyPatch, omi: Omi, error: BaseException, code: int
) -> None:
    def ending(*_arguments: object) -> Never:
        raise error

    monkeypatch.setattr(app, "flush_stdout", ending)
    assert omi("--version").code == code


def test_an_error_in_a_thread_is_one_line(omi: Omi, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Never:
        raise ValueError("in a thread")

    async def listing_in_a_thread(*_arguments: object) -> int:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        return 0

    monkeypatch.setattr(memories, "_list", listing_in_a_thread)
    assert omi("list").err == "warning: ValueError: in a thread\n"


def test_the_key_is_blotted_out_wherever_it_turns_up(monkeypatch: pytest.MonkeyPatch, omi: Omi) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_secret_of_mine")

    async def broken(*_arguments: object) -> Never:
        raise ZeroDivisionError("omi_dev_secret_of_mine")

    monkeypatch.setattr(memories, "_list", broken)
    assert "***" in omi("list").err


def test_an_error_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, omi: Omi, tmp_path: Path
) -> None:
    async def broken(*_arguments: object) -> int:
        (tmp_path / "nowhere" / "file").write_text("")
        return 0

    monkeypatch.setattr(memories, "_list", broken)
    done = omi("list")
    assert done.code == 1
    assert "nowhere/file: No such file or directory" in done.err


def test_ctrl_c_while_modules_are_loaded_is_no_traceback() -> None:
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import omi_async.cli as cli
cli.find_spec = lambda name: os.kill(os.getpid(), signal.SIGINT)
sys.exit(cli.main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nInterrupted.\n")


def test_what_ignores_ctrl_c_goes_on_to_ignore_it() -> None:
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import omi_async.cli as cli
find = cli.find_spec
cli.find_spec = lambda name: os.kill(os.getpid(), signal.SIGINT) or find(name)
sys.exit(cli.main(["--version"]) or 10 * (signal.getsignal(signal.SIGINT) is not signal.SIG_IGN))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
