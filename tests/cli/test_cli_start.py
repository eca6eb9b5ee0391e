"""What the command line loads, and what it runs on."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from omi_async.cli.options import Common
from omi_async.cli.runtime import run_async

pytestmark = pytest.mark.extras


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["import", "--help"], ["import", "--nonsense"]]
)
def test_what_needs_no_library_loads_none(arguments: list[str]) -> None:
    program = (  # a measuring of coverage has loaded some of them before
        "import sys; before = {*sys.modules}; from omi_async.cli import main; "
        f"main({arguments!r}); print(*({{*sys.modules}} - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())

    assert "omi_async.cli.app" in loaded
    assert not loaded & {"aiohttp", "omi_async.session", "sqlite3", "cattrs", "rich"}


def test_commands_run_on_uvloop_if_it_is_installed() -> None:
    uvloop = pytest.importorskip("uvloop", reason="it is of the extra speed")

    async def command() -> int:
        return 7 if isinstance(asyncio.get_running_loop(), uvloop.Loop) else 1

    assert run_async(Common(), command()) == 7
