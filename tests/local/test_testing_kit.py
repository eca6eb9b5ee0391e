"""The pytest plugin, in test runs of its own, as a user would have it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TESTS = """
import asyncio
import os
import time

import pytest

from omi_async import Session
from omi_async.local import REAL_QUOTAS, Fault, LocalServer


def test_the_server(omi_server):
    async def main():
        async with Session(omi_server.api_key, base_url=omi_server.url) as session:
            return await session.memories.import_facts(["a", "b"])

    omi_server.faults.add(Fault.after_prefix(1), on="batch")
    assert asyncio.run(main()).created == 2
    omi_server.assert_each_stored_once(["a", "b"])


def test_two_accounts(omi_server):
    async def main(*keys):
        for key in keys:
            async with Session(key, base_url=omi_server.url) as session:
                await session.memories.create("a", category="work")

    other = omi_server.add_account()
    asyncio.run(main(omi_server.api_key, other))
    omi_server.assert_each_stored_once(["a"])
    omi_server.assert_each_stored_once(["a"], account=other)


def test_the_environment(omi_environment):
    assert os.environ["OMI_API_BASE"] == omi_environment.url
    assert os.environ["OMI_API_KEY"] == omi_environment.api_key


def test_a_day_of_quotas(omi_virtual_clock):
    async def day():
        async with LocalServer(quotas=REAL_QUOTAS) as server:
            async with Session(server.api_key, base_url=server.url) as session:
                return await session.memories.import_facts(
                    {"content": f"fact {number}", "category": "work"} for number in range(1000)
                )

    began, wall = time.monotonic(), time.time()
    report = omi_virtual_clock(day())
    assert report.ok
    assert 2 * 3600 <= report.elapsed <= 2.5 * 3600
    assert time.monotonic() - began < 60
    assert abs(time.time() - wall) < 60  # the clock on the wall is the real one again
"""


def pytest_run(folder: Path, *options: str, test: str = TESTS) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options]
    # Not measured: a process under coverage imports sqlite3 by itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.parametrize("way", ["option", "conftest", "both"])
def test_the_fixtures_are_there_however_the_plugin_is_named(tmp_path: Path, way: str) -> None:
    if way != "option":
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["omi_async.testing"]\n')
    done = pytest_run(tmp_path, *(() if way == "conftest" else ("-p", "omi_async.testing")))
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_run_that_asks_for_no_fixture_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("aiohttp", "sqlite3", "cattrs", "omi_async.local", "omi_async.session", "backoff")
    test = f"import sys\n\ndef test_lean():\n    assert not sys.modules.keys() & {set(heavy)!r}\n"
    done = pytest_run(tmp_path, "-p", "omi_async.testing", test=test)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_entry_point_has_the_modules_name() -> None:
    # With another one, a project that also lists it in `pytest_plugins` would register it twice: an error.
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"omi_async.testing": "omi_async.testing"}
