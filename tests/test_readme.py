"""README.md is run, and compared with what it describes: documentation that can drift, does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer

import omi_async
from omi_async import errors
from omi_async.importing.report import State
from omi_async.local import LocalServer

ROOT: Final = Path(__file__).parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON: Final = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PROGRAMS: Final = [block for block in PYTHON if "asyncio.run(main())" in block]
APPS: Final = {
    name: block for name in ("fastapi", "aiohttp") for block in PYTHON if f"from {name} import" in block
}
SHELL: Final = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def section(heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def table(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_run(number, tmp_path) -> None:
    (tmp_path / "facts.jsonl").write_text('{"content": "User swims"}\n"User skis"\n', encoding="utf-8")
    script = tmp_path / "program.py"
    script.write_text(PROGRAMS[number], encoding="utf-8")
    with LocalServer.in_thread() as server:
        output = run(
            [sys.executable, "-X", "dev", "-W", "error", str(script)],
            tmp_path,
            OMI_API_BASE=server.url,
            OMI_API_KEY=server.api_key,
        )
        assert server.memories()
    assert "created" in output


@pytest.mark.extras
@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_examples_pass_a_strict_type_checker(checker, tmp_path) -> None:
    pytest.importorskip(checker, reason="it is of the extra test")
    for number, example in enumerate(PYTHON):
        (tmp_path / f"example_{number}.py").write_text(example, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    options = {"mypy": ["--strict", "--cache-dir", os.devnull], "pyright": ["--pythonpath", sys.executable]}
    run([sys.executable, "-m", checker, *options[checker], "."], tmp_path)


@pytest.mark.slow
def test_the_testing_section_is_a_passing_test(tmp_path) -> None:
    [test] = (block for block in PYTHON if block not in [*PROGRAMS, *APPS.values()])
    (tmp_path / "test_mine.py").write_text(test, encoding="utf-8")
    # Named, since an environment that was made before the plugin had an entry point does not know of it.
    plugins = ["-p", "no:cacheprovider", "-p", "omi_async.testing"]
    output = run([sys.executable, "-m", "pytest", "-q", *plugins], tmp_path)
    assert "1 passed" in output


@pytest.mark.parametrize("name", APPS)
async def test_apps_answer(name, server, monkeypatch) -> None:
    pytest.importorskip(name, reason="it is of the extra test")
    monkeypatch.setenv("OMI_API_BASE", server.url)
    monkeypatch.setenv("OMI_API_KEY", server.api_key)
    block = dict[str, Any](__name__="readme")
    exec(compile(APPS[name], name, "exec", dont_inherit=True), block)
    answer = await ask[name](block["app"], "/dana/memories", {"text": "User swims"})
    [memory] = server.memories()
    assert (answer["id"], answer["content"]) == (memory["id"], "User swims")


async def ask_fastapi(app: Any, path: str, query: dict[str, str]) -> Any:
    """Call an ASGI app as its server does, and return the JSON of its answer."""
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": []}
    sent = list[dict[str, Any]]()

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app({**scope, "query_string": urlencode(query).encode()}, receive, send)
    assert sent[0]["status"] == 200
    return json.loads(sent[1]["body"])


async def ask_aiohttp(app: Any, path: str, query: dict[str, str]) -> Any:
    async with TestClient(TestServer(app)) as client, client.post(path, params=query) as response:
        assert response.status == 200
        return await response.json()


ask = {"fastapi": ask_fastapi, "aiohttp": ask_aiohttp}


def commands(block: str) -> list[str]:
    """The lines of a shell block that run what is installed; installing is CI's to try."""
    lines = [line.partition("  #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line and "-m venv" not in line and "/pip install" not in line]


@pytest.mark.slow
@pytest.mark.extras
def test_shell_blocks_run_in_their_order(tmp_path) -> None:
    binaries = Path(sys.executable).parent
    lines = [line for block in SHELL for line in commands(block) if "-m pytest" not in line]
    assert len(lines) >= 5
    outputs = [
        run(["bash", "-ec", line.replace(".venv/bin/", f"{binaries}/")], tmp_path, OMI_API_KEY="")
        for line in lines
    ]
    everything = "\n".join(outputs)
    assert "10,000 facts: 10,000 created" in everything
    assert "0 calls" in everything  # the second import, with the first one's journal


def test_the_blocks_for_set_up_make_and_use_a_virtual_environment() -> None:
    for heading in ("Quick start", "Tests"):
        blocks = re.findall(r"^```sh\n(.*?)^```", section(heading), re.DOTALL | re.MULTILINE)
        assert len(blocks) == 1
        assert blocks[0].startswith("python3 -m venv .venv\n.venv/bin/pip install")


def rows_of_errors() -> dict[str, list[str]]:
    """The name of each error in the table, to its other cells."""
    rows = [row for row in table(section("When things fail")) if len(row) == 4]
    return {row[0].split("`")[1]: row[1:] for row in rows}


def test_every_error_stands_in_the_table_with_its_maybe_applied() -> None:
    rows = rows_of_errors()
    documented = {*errors.__all__, "ImportStoppedError", "ImportFailedError"} - {"OmiError", "TransportError"}
    assert rows.keys() == documented
    for name, (applied, _, _) in rows.items():
        assert ("yes" in applied) == getattr(omi_async, name).maybe_applied or name == "ServerError", name


@pytest.mark.extras
def test_every_error_stands_in_the_table_with_its_exit_code() -> None:
    from omi_async.cli.exit_codes import CODES, SOME_FAILED  # noqa: PLC0415  # needs the extra

    rows = rows_of_errors()
    assert rows.pop("ImportStoppedError")[1] == "its cause's"
    assert rows.pop("ImportFailedError")[1] == str(SOME_FAILED)
    for name, (_, code, _) in rows.items():
        kind = getattr(omi_async, name)
        assert code == str(next(code for base, code in CODES if issubclass(kind, base))), name


def test_every_state_stands_in_the_table() -> None:
    rows = [row[0].strip("`") for row in table(section("Importing many facts"))]
    assert {*get_args(State)} <= {*rows}


@pytest.mark.extras
def test_every_command_stands_in_the_table() -> None:
    from omi_async.cli.app import cli  # noqa: PLC0415  # needs the extra

    documented = {
        row[0].strip("`").split()[1] for row in table(section("Command line")) if "omi-async" in row[0]
    }
    assert documented == {*cli.commands}


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{omi_async.__version__}]" in changelog
