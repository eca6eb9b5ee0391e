"""Commands as processes, and what they leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

SCRIPT = Path(sys.executable).with_name("omi-async")

PATIENCE = 30.0
"""Seconds after which a test that waits for a process gives up."""


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


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in (out or "") + (err or "")
    return Ended(process.returncode, out or "", err or "")


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Poll until it is so, while the process (if any) runs."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        assert process is None or process.poll() is None, "the process ended first"
        time.sleep(0.01)


def write_facts(path: Path, number: int, **fields: Any) -> Path:
    record = {"category": "interesting", **fields}
    lines = [json.dumps({"content": f"User likes number {index}", **record}) for index in range(number)]
    path.write_text("\n".join(lines) + "\n")
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
