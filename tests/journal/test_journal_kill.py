"""kill -9 of a real process at every durable point of an import, and what the next run makes of it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from omi_async import Journal, JournalError
from omi_async.local import Fault, LocalServer
from omi_async.local.faults import Sleep, Work
from omi_async.local.messages import Reply
from omi_async.local.twist import Twist
from tests.clock import run
from tests.journal.helpers import ROOT, SERVER, Run, copy, known, run_import, sent, stored, texts

pytestmark = pytest.mark.slow

FACTS = 60
"""Three calls: 25, 25 and 10."""

VICTIM = """
import asyncio, os, signal, sys
from omi_async import Journal, Session

url, key, path, name, cut, count, concurrency = sys.argv[1:]

class Cut(Journal):
    calls = 0

    def at(self, point):
        if f"{point} {self.calls}" == cut:
            os.kill(os.getpid(), signal.SIGKILL)

    async def sending(self, items):
        self.calls += 1
        self.at("before sending")
        await super().sending(items)
        self.at("after sending")

    async def settled(self, verdicts):
        self.at("before settled")
        await super().settled(verdicts)
        self.at("after settled")

    async def begin(self, server):
        await super().begin(server)
        self.at("after begin")

    async def end(self):
        self.at("before end")
        await super().end()
        self.at("after end")

async def main():
    facts = [{"content": f"fact number {number}", "category": "system"} for number in range(int(count))]
    async with Session(key, base_url=url) as session:
        print(await session.memories.import_facts(
            facts, journal=Cut(path, server=name), concurrency=int(concurrency)))

asyncio.run(main())
"""


class Kill(Fault):
    """A batch call in the middle of which the client is killed, with so many facts stored (None: all)."""

    kinds = ("batch",)

    def __init__(self, stored: int | None) -> None:
        self.stored = stored
        self.victim: subprocess.Popen[str] | None = None

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        assert self.victim is not None
        if self.stored is None:
            await work()
        elif self.stored:
            await work(Twist(at_most=self.stored))
        self.victim.kill()
        self.victim.wait()
        return Reply(0, b"", reset=True)


class Aftermath:
    """What a killed process left: a journal, and what the server holds."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "memories.db"
        self.journal = folder / "facts.journal"
        self.stored: set[str] = set()
        self.output = ""

    def kill(self, cut: str, *, concurrency: int = 1, count: int = FACTS, fault: Kill | None = None) -> None:
        with LocalServer.in_thread(self.database, text_identity=False) as server:
            arguments = [server.url, server.api_key, self.journal, SERVER, cut, count, concurrency]
            with subprocess.Popen(
                [sys.executable, "-c", VICTIM, *map(str, arguments)],
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as victim:
                if fault is not None:
                    fault.victim = victim
                    server.faults.add(Fault.slow(0), fault) if cut == "second call" else server.faults.add(
                        fault
                    )
                self.output, _ = victim.communicate(timeout=60)
            assert victim.returncode == -9, self.output
        # Only now: calls of the dead may still have been on their way into the server.
        with closing(sqlite3.connect(self.database)) as database:
            self.stored = {content for (content,) in database.execute("SELECT content FROM memories")}

    def rerun(self, facts: list[str], **options: Any) -> tuple[Run, int, dict[str, str]]:
        """Import in this process, on a clock that jumps; return the run, the facts sent, what is stored."""

        async def work() -> tuple[Run, int, dict[str, str]]:
            async with LocalServer(self.database, text_identity=False) as server:
                result = await run_import(
                    server, facts, Journal(self.journal, server=SERVER), concurrency=2, **options
                )
                return result, sent(server), stored(server)

        return run(work())


@pytest.fixture
def aftermath(tmp_path: Path) -> Aftermath:
    return Aftermath(tmp_path)


POINTS = [
    ("after begin 0", 0),
    *[
        (f"{point} {call}", held)
        for call in (1, 2, 3)
        for point, held in [
            ("before sending", 25 * (call - 1)),
            ("after sending", 25 * (call - 1)),
            ("before settled", min(25 * call, FACTS)),
            ("after settled", min(25 * call, FACTS)),
        ]
    ],
    ("before end 3", FACTS),
    ("after end 3", FACTS),
]


@pytest.mark.slow
@pytest.mark.parametrize(("cut", "held"), POINTS)
def test_killed_at_a_durable_point(aftermath: Aftermath, tmp_path: Path, cut: str, held: int) -> None:
    aftermath.kill(cut)
    facts = texts(range(FACTS))
    assert aftermath.stored == set(facts[:held])
    left = known(copy(aftermath.journal, tmp_path / "left.journal"), facts)
    assert_journal_is_true(left, aftermath.stored)
    assert_completes(aftermath, facts, left)


def assert_journal_is_true(left: dict[str, str], held: set[str]) -> None:
    for content, state in left.items():
        if state in {"nothing", "unsent"}:
            assert content not in held
        elif state != "doubt":
            assert (state, content in held) == ("created", True)


def assert_completes(aftermath: Aftermath, facts: list[str], left: dict[str, str]) -> None:
    result, sent_again, holds = aftermath.rerun(facts)
    assert result.error is None
    assert result.report.complete
    assert result.by_text() == dict.fromkeys(facts, "created")
    assert {outcome.fact.content: outcome.memory_id for outcome in result.outcomes if outcome.fact} == holds
    assert sent_again == len(facts) - len(aftermath.stored)  # what was stored is not sent once more
    settled = sum(state == "created" for state in left.values())
    assert result.report.requests > 0 or settled == len(facts)

    again, sent_again, after = aftermath.rerun(facts)
    assert (again.report.created, again.report.requests, sent_again) == (len(facts), 0, 0)
    assert after == holds


@pytest.mark.slow
@pytest.mark.parametrize("call", ["first call", "second call"])
@pytest.mark.parametrize("prefix", [0, 1, 7, 24, None])
def test_killed_while_its_call_is_on_the_wire(
    aftermath: Aftermath, tmp_path: Path, call: str, prefix: int | None
) -> None:
    aftermath.kill(call, fault=Kill(prefix))
    facts = texts(range(FACTS))
    before = 25 if call == "second call" else 0
    assert aftermath.stored == set(facts[: before + (25 if prefix is None else prefix)])
    left = known(copy(aftermath.journal, tmp_path / "left.journal"), facts)
    assert list(left.values()) == ["created"] * before + ["doubt"] * 25 + ["nothing"] * (35 - before)
    assert_completes(aftermath, facts, left)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [0, 13, None])
def test_killed_with_several_calls_on_the_wire(
    aftermath: Aftermath, tmp_path: Path, prefix: int | None
) -> None:
    aftermath.kill("second call", concurrency=4, count=230, fault=Kill(prefix))
    facts = texts(range(230))
    left = known(copy(aftermath.journal, tmp_path / "left.journal"), facts)
    assert_journal_is_true(left, aftermath.stored)
    assert_completes(aftermath, facts, left)


def test_killed_again_and_again(aftermath: Aftermath) -> None:
    """Each run gets one call further; nothing is ever in doubt, so that no run has to look."""
    facts = texts(range(FACTS))
    for runs in (1, 2):
        aftermath.kill("after settled 1")
        assert aftermath.stored == set(facts[: 25 * runs])
    result, sent_again, holds = aftermath.rerun(facts)
    assert (result.report.created, sent_again, set(holds)) == (FACTS, 10, set(facts))


def test_a_rerun_with_other_input_after_a_kill(aftermath: Aftermath) -> None:
    aftermath.kill("second call", fault=Kill(10))
    old = texts(range(FACTS))
    facts = [*texts(range(100, 130)), *reversed(old[20:40]), old[30], *texts(range(130, 140))]
    result, sent_again, holds = aftermath.rerun(facts)
    assert (result.report.created, result.report.duplicate, result.report.pulled) == (60, 1, 61)
    # 20 to 24 were settled, 25 to 34 are stored and were in doubt, 35 to 39 are absent
    assert sent_again == 40 + 5
    assert set(holds) == {*facts, *old[:35]}
    result, sent_again, holds = aftermath.rerun(old)  # what was left out is still in doubt
    assert (result.report.created, sent_again) == (FACTS, 20)
    assert {*facts, *old} == set(holds)


def test_the_state_is_told_by_when_its_own_run_sent_a_fact(aftermath: Aftermath) -> None:
    """What was there before the call is `existing`, also if an earlier run of this journal is older."""
    aftermath.kill("after settled 1")

    async def other_client() -> None:
        async with LocalServer(aftermath.database) as server:  # the newer backend
            server.add("fact number 30")

    async def rerun() -> Run:
        async with LocalServer(aftermath.database) as server:
            return await run_import(server, texts(range(FACTS)), Journal(aftermath.journal, server=SERVER))

    asyncio.run(other_client())
    result = run(rerun())
    states = result.by_text()
    assert states.pop("fact number 30") == "existing"
    assert set(states.values()) == {"created"}


@pytest.mark.parametrize("damage", ["a flipped bit", "no file", "no -wal"])
def test_a_damaged_journal_sends_nothing_and_what_it_advises_doubles_nothing(
    aftermath: Aftermath, damage: str
) -> None:
    aftermath.kill("second call", fault=Kill(10))
    journal, log = aftermath.journal, Path(f"{aftermath.journal}-wal")
    if damage == "a flipped bit":
        content = bytearray(log.read_bytes())
        content[32 + 24 + 1024 + 24 + 500] ^= 8  # in the second frame of many
        log.write_bytes(content)
    else:
        (journal if damage == "no file" else log).unlink()
    facts = texts(range(FACTS))
    refused, sent_again, _ = aftermath.rerun(facts)
    assert isinstance(refused.error, JournalError)
    assert "skip_existing=True (--skip-existing)" in str(refused.error)
    assert (refused.report.pulled, sent_again) == (0, 0)

    for file in journal.parent.glob("facts.journal*"):
        file.rename(file.with_name(f"moved away {file.name}"))
    result, sent_again, holds = aftermath.rerun(facts, skip_existing=True)
    assert result.report.complete
    assert (sent_again, set(holds)) == (FACTS - len(aftermath.stored), set(facts))
