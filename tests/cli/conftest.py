"""The command line in this process, and as the process that its users start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omi_async.cli import main
from omi_async.local import LocalServer, ThreadedServer
from tests.cli.driving import SCRIPT, Ended, Naps, Omi, Start

LONGEST = 90.0
"""Seconds for one test, more than any of its own patiences; so that nothing can hang."""


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """End a test that hangs: first as an error where it stands, then as Ctrl-C, which every loop obeys."""
    rings = [KeyboardInterrupt, TimeoutError]

    def ring(*_: object) -> None:
        raise (rings.pop() if len(rings) > 1 else rings[0])("the test takes too long")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST, 5.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _ctrl_c_as_at_a_terminal() -> Iterator[None]:
    """Let processes obey SIGINT also if the tests run in the background of a script, which ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_one_at_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no command in this process ask on the terminal of who runs the tests (`pytest -s`)."""
    with open(os.devnull) as nothing:  # noqa: PTH123  # no path
        monkeypatch.setattr(sys, "stdin", nothing)
        yield


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMI_ASYNC_DEBUG", raising=False)


@pytest.fixture(autouse=True)
def ledger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the commands of a test, here and as processes, count what they spend of quotas."""
    path = tmp_path_factory.mktemp("state") / "quotas.db"
    monkeypatch.setenv("OMI_LEDGER", str(path))
    return path


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[ThreadedServer]:
    naps = Naps()
    with LocalServer.in_thread(sleep=naps, **options) as server:
        monkeypatch.setenv("OMI_API_KEY", server.api_key)
        monkeypatch.setenv("OMI_API_BASE", server.url)
        yield server
        naps.end()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedServer]:
    """A server that the environment names."""
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedServer]:
    """A server that the environment names, and that stores a text as often as it is sent."""
    with serving(monkeypatch, text_identity=False) as server:
        yield server


@pytest.fixture
def omi(capsys: pytest.CaptureFixture[str]) -> Omi:
    """Run a command in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert os.environ.get("OMI_API_KEY", "omi_dev_none") not in out + err
        return Ended(code, out, err)

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the console script; what still runs at the end of the test is killed."""
    processes = []

    def popen(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = [str(SCRIPT), *map(str, arguments)]
        process = subprocess.Popen(words, text=True, **(pipes | options))
        processes.append(process)
        return process

    yield popen
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
