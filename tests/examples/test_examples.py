"""The programs in omi_async/examples, run as their users would run them: as processes, against a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import omi_async.examples
from omi_async.local import Fault, LocalServer, ThreadedServer

FOLDER = Path(omi_async.examples.__file__).parent
PROGRAMS = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_is_short_and_stands_in_the_list(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80
    assert f"`{path.stem}`" in (omi_async.examples.__doc__ or "")


def python(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# move_account


def move(server: ThreadedServer, new_key: str, folder: Path, *options: str) -> Any:
    keys = {"OMI_FROM_KEY": server.api_key, "OMI_TO_KEY": new_key}
    program = "omi_async.examples.move_account"
    return python(program, "moved.journal", *options, folder=folder, OMI_API_BASE=server.url, **keys)


def shown(memories: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    fields = ("content", "category", "visibility", "tags")
    return sorted(tuple(map(repr, (memory[field] for field in fields))) for memory in memories)


@pytest.mark.slow
def test_an_account_is_moved_whatever_goes_wrong_and_moved_once(tmp_path: Path) -> None:
    with LocalServer.in_thread(text_identity=False) as server:
        new_key = server.add_account()
        server.add(*(f"fact {number}" for number in range(60)), category="work", tags=["a"])
        server.add("of all", category="hobbies", visibility="public")
        before = shown(server.memories())
        server.faults.add(Fault.after_prefix(7), on="batch")

        first = move(server, new_key, tmp_path)
        assert (first.returncode, first.stderr) == (0, "")
        assert "61 facts: 61 created" in first.stdout
        assert shown(server.memories(new_key)) == before

        server.add("said later")
        second = move(server, new_key, tmp_path, "--delete")
        assert (second.returncode, second.stderr) == (0, "")
        assert len(server.memories(new_key)) == 62
        assert server.memories() == []


@pytest.mark.slow
def test_what_the_list_shows_cut_is_neither_moved_nor_deleted(tmp_path: Path) -> None:
    with LocalServer.in_thread() as server:
        new_key = server.add_account()
        server.add("x" * 90, locked=True)
        server.add("User skis")
        done = move(server, new_key, tmp_path, "--delete")
        assert done.returncode == 0
        assert "left out" in done.stderr
        assert [memory["content"] for memory in server.memories(new_key)] == ["User skis"]
        assert [memory["content"] for memory in server.memories()] == ["x" * 90]
