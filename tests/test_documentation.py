"""The docstrings: their examples run, and they are built into pages without a warning."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import attrs
import pytest

import omi_async
from omi_async.local import LocalServer
from tests.clock import run

ROOT: Final = Path(omi_async.__file__).parent
CONTRIBUTING: Final = ROOT.parent / ".github" / "CONTRIBUTING.md"

BLOCK: Final = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def examples() -> Iterator[Any]:
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{path.relative_to(ROOT.parent)}:{getattr(node, 'name', '')}"
                for number, block in enumerate(BLOCK.findall(ast.get_docstring(node) or "")):
                    yield pytest.param(block, id=f"{place}:{number}")


def names() -> dict[str, Any]:
    """What an example may use without importing it: what the reader of its page sees."""
    found: dict[str, Any] = {"__name__": "example"}
    exec("from omi_async import *; from omi_async.local import *; from omi_async.sources import *", found)
    exec("import asyncio", found)
    return found


@attrs.frozen
class Message:
    """As a queue gives it."""

    text: str

    async def acknowledge(self) -> None:
        pass


async def queue() -> AsyncIterator[Message]:
    for text in ("User skis", "User swims"):
        yield Message(text)


async def do(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with LocalServer() as server:
        monkeypatch.setenv("OMI_API_BASE", server.url)
        monkeypatch.setenv("OMI_API_KEY", server.api_key)
        async with omi_async.Session() as session:
            at_hand = {
                "server": server,
                "session": session,
                "facts": ["User skis"],
                "queue": queue(),
                "user": SimpleNamespace(omi_key=server.api_key),
            }
            namespace = names() | at_hand
            doing = eval(compile(example, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
            if inspect.isawaitable(doing):
                await doing


@pytest.mark.parametrize("example", [*examples()])
def test_an_example_in_a_docstring_runs(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts.jsonl").write_text('{"content": "User swims"}\n"User skis"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run(do(example, monkeypatch))


def test_there_are_examples() -> None:
    assert len([*examples()]) >= 3


def build(folder: Path, *pages: str) -> None:
    command = [sys.executable, "-W", "error::UserWarning", "-m", "pdoc", "-o", str(folder), *pages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_page_of_the_public_names_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="it is of the extra docs")
    build(tmp_path, "omi_async")
    page = (tmp_path / "omi_async.html").read_text(encoding="utf-8")
    assert [name for name in omi_async.__all__ if f'id="{name}"' not in page] == []


@pytest.mark.slow
def test_the_pages_of_theory_are_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="it is of the extra docs")
    if not CONTRIBUTING.exists():
        pytest.skip("the wheel's tests come without it")
    text = CONTRIBUTING.read_text(encoding="utf-8").replace("\\\n", " ")
    command = re.search(r"^\.venv/bin/python -m pdoc (.*)$", text, re.MULTILINE)
    assert command is not None
    pages = shlex.split(command[1])
    build(tmp_path, *pages)
    built = {path.stem for path in tmp_path.rglob("*.html")}
    assert built >= {page.rpartition(".")[2] for page in pages if not page.startswith("!")}
