"""Real workers: docket's processes, with a Valkey and a stand-in server of their own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from docket import Docket
from redis.exceptions import ConnectionError as StoreIsAway

from omi_async.importing.report import ImportReport
from omi_async.local import ThreadedServer
from omi_async.workers import RedisStore
from tests.workers.helpers import Valkey
from tests.workers.program import imports, texts

ROOT: Final = Path(__file__).parent.parent.parent

LEASE: Final = 1.5
TIMEOUT: Final = 2.0
REDELIVERY: Final = 2
"""Seconds. Short, because what a dead worker held is waited for; long beside what a busy machine takes."""


class Fleet:
    """Workers that import into the accounts of a server, and the app that tells them to."""

    def __init__(self, folder: Path, valkey: Valkey, server: ThreadedServer, owners: Iterable[str]) -> None:
        self.folder = folder
        self.server = server
        self.keys = {owner: server.add_account() for owner in owners}
        self.valkey = valkey
        self.workers: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()  # also one that is stopped
            worker.wait()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker: with another name each time, as on a new machine."""
        name = f"worker-{len(self.workers)}"
        settings = {
            "store": self.valkey.url,
            "keys": self.keys,
            "lease": LEASE,
            "timeout": TIMEOUT,
        }
        command = [
            *(sys.executable, "-m", "docket", "worker", "--name", name, "--url", self.valkey.url),
            *("--tasks", "tests.workers.program:tasks"),
            *("--redelivery-timeout", f"{REDELIVERY}s", "--reconnection-delay", "1s"),
        ]
        with (self.folder / f"{name}.log").open("wb") as log:
            worker = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "FLEET": json.dumps(settings), "OMI_API_BASE": self.server.url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(worker)
        return worker

    async def enqueue(self, facts: int, *, parts: int) -> None:
        """Import so many facts for each owner."""
        async with Docket(url=self.valkey.url) as docket:
            for owner in self.keys:
                await imports.enqueue(docket, owner, f"{owner}:{facts}", parts=parts)

    async def unfinished(self) -> int:
        """Return how many tasks are there, running or not."""
        try:
            async with Docket(url=self.valkey.url) as docket:
                docket.register(imports.task)
                return (await docket.snapshot()).total_tasks
        except StoreIsAway:
            return 1

    async def all_wait(self) -> None:
        """Wait until there is something to do, and none of it now."""
        async with asyncio.timeout(120), Docket(url=self.valkey.url) as docket:
            docket.register(imports.task)
            while True:
                snapshot = await docket.snapshot()
                soon = datetime.now(UTC) + timedelta(seconds=2)
                if len([it for it in snapshot.future if it.when > soon]) == snapshot.total_tasks > 0:
                    return
                await asyncio.sleep(0.1)

    async def finish(self) -> None:
        """Wait until every part has come to its end."""
        async with asyncio.timeout(120):  # it never came to be
            while await self.unfinished() and any(worker.poll() is None for worker in self.workers):  # noqa: ASYNC110  # other processes tell nobody
                await asyncio.sleep(0.2)

    async def reports(self, facts: int) -> dict[str, ImportReport]:
        """Return what became of the import of each owner."""
        async with RedisStore(self.valkey.url) as store:
            names = {owner: imports.name(owner, f"{owner}:{facts}") for owner in self.keys}
            return {owner: (await store.snapshot(name)).report for owner, name in names.items()}

    def assert_each_stored_once(self, facts: int) -> None:
        for owner, key in self.keys.items():
            self.server.assert_each_stored_once(texts(owner, facts), account=key)
            assert len(self.server.memories(key)) == facts

    @property
    def log(self) -> str:
        """What the workers said."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log")))
