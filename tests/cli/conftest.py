"""The command line in this process, and as the process that its users start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omi_async.cli import main
from omi_async.local import LocalServer, ThreadedServer
from tests.cli.driving import SCRIPT, Ended, Omi, Start


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMI_ASYNC_DEBUG", raising=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedServer]:
    """A server that the environment names."""
    with LocalServer.in_thread() as server:
        monkeypatch.setenv("OMI_API_KEY", server.api_key)
        monkeypatch.setenv("OMI_API_BASE", server.url)
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
