"""Commands as processes, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from omi_async.local import ThreadedServer

SCRIPT = Path(sys.executable).with_name("omi-async")

PATIENCE = 120.0
"""Seconds after which a test that waits for a process gives up: on a busy machine one takes long to begin."""


@attrs.frozen
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def event(self) -> dict[str, Any]:
        """The last one."""
        return self.events[-1]


Omi = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]


class Naps:
    """What a server in a thread sleeps with (`Fault.slow`).

    Such a sleep ends with the test. Otherwise the server would close its loop over calls of clients that are
    gone, and asyncio complain of tasks that were destroyed.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def end(self) -> None:
        if (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self._over.set)
            until(lambda: not _calls_at_work(loop))


def calls_at_work(server: ThreadedServer) -> int:
    """Count the calls that a server is handling, also those whose client is gone."""
    return server.in_flight


def _calls_at_work(loop: asyncio.AbstractEventLoop) -> int:
    coroutines = [task.get_coro() for task in asyncio.all_tasks(loop)]
    return sum(getattr(coroutine, "__name__", "") == "_handle_request" for coroutine in coroutines)


def ended(process: subprocess.Popen[str], *, patience: float = PATIENCE) -> Ended:
    out, err = process.communicate(timeout=patience)
    assert "Traceback" not in (out or "") + (err or "")
    return Ended(process.returncode, out or "", err or "")


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Poll until it is so, while the process (if any) runs."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        assert process is None or process.poll() is None, "the process ended first"
        time.sleep(0.01)


def texts(number: int) -> list[str]:
    return [f"User likes number {index}" for index in range(number)]


def write_facts(path: Path, number: int, **fields: Any) -> Path:
    record = {"category": "interesting", **fields}
    lines = [json.dumps({"content": text, **record}) for text in texts(number)]
    path.write_text("\n".join(lines) + "\n")
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
