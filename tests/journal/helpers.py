"""What the tests of the journal share."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from omi_async import Fact, FactOutcome, ImportReport, Journal, JournalError, Session
from omi_async.fact import fact_payload
from omi_async.importing.item import Item
from omi_async.importing.journal.row import Recalled
from omi_async.local import LocalServer

SERVER = "the service"

T = TypeVar("T")


def texts(numbers: Iterable[int]) -> list[str]:
    return [f"fact number {number}" for number in numbers]


def stored(server: LocalServer) -> dict[str, str]:
    """The id of each stored text; no text may be stored twice."""
    memories = server.memories()
    by_text = {memory["content"]: memory["id"] for memory in memories}
    assert len(by_text) == len(memories), "stored twice"
    return by_text


def sent(server: LocalServer) -> int:
    """Facts that were on the wire, each time counted."""
    return sum(record.items for record in server.requests)


def calls(server: LocalServer, *operations: str) -> int:
    return sum(record.kind in operations for record in server.requests)


class Run:
    """An import, and all that it told."""

    def __init__(self, report: ImportReport, outcomes: list[FactOutcome], error: Exception | None) -> None:
        self.report = report
        self.outcomes = outcomes
        self.error = error

    def by_text(self) -> dict[str, str]:
        """The state of each text, without duplicates."""
        return {
            outcome.fact.content: outcome.state
            for outcome in self.outcomes
            if outcome.fact is not None and outcome.state != "duplicate"
        }

    def assert_lawful(self) -> None:
        """The law, and one outcome for each pulled fact, of the states that the report counts."""
        report = self.report
        assert report.settled == report.pulled
        assert sorted(outcome.index for outcome in self.outcomes) == list(range(report.pulled))
        for state in ("created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent"):
            told = sum(outcome.state == state for outcome in self.outcomes)
            assert told == getattr(report, state), state


async def run_import(server: LocalServer, facts: Any, journal: Any, **options: Any) -> Run:
    """Import with a session of its own. What stops it is in `error`."""
    outcomes: list[FactOutcome] = []
    error = None
    async with Session(server.api_key, base_url=server.url) as session:
        importer = session.memories.importer(facts, journal=journal, on_outcome=outcomes.append, **options)
        try:
            await importer.run()
        except Exception as stopped:  # noqa: BLE001 - the tests look at it
            error = stopped
    run = Run(importer.report, outcomes, error)
    run.assert_lawful()
    return run


# A journal without a server


def items(*contents: str) -> list[Item]:
    return [
        Item(index, fact_payload(Fact(content, category="system"))) for index, content in enumerate(contents)
    ]


def begun(path: Path, address: str = SERVER, **options: Any) -> Journal:
    journal = Journal(path, **options)
    begin(journal, address)
    return journal


def begin(journal: Journal, address: str = SERVER) -> None:
    journal._begin(address, time.time())  # what `begin` does in a thread


def recall(journal: Journal, contents: Sequence[str]) -> list[Recalled | Literal["seen"] | None]:
    return done(journal.recall(contents))


def sending(journal: Journal, items: Sequence[Item]) -> None:
    done(journal.sending(items))


def settled(journal: Journal, items: Sequence[Item]) -> None:
    done(journal.settled(items))


def end(journal: Journal) -> None:
    done(journal.end())


def done(method: Coroutine[Any, Any, T]) -> T:
    """Run a method that has nothing to wait for: in an import, a cancellation cannot fall into its middle."""
    try:
        method.send(None)
    except StopIteration as returned:
        result: T = returned.value
        return result
    raise AssertionError("it waited")


def database(journal: Journal) -> sqlite3.Connection:
    """The open file, to do to it what the journal would not."""
    assert journal._database is not None
    return journal._database


def letters(journal: Journal, contents: Iterable[str]) -> dict[str, str]:
    """What a journal knows of texts: settled states, "doubt", "unsent", or "nothing"."""
    known = {}
    for content in contents:
        found = recall(journal, [content])[0]
        assert found != "seen"
        if found is None:
            known[content] = "nothing"
        else:
            known[content] = found.state or ("doubt" if found.in_doubt else "unsent")
    return known


def known(path: Path, contents: Iterable[str], server: str = SERVER) -> dict[str, str]:
    """The same of a closed journal."""
    journal = begun(path, server)
    try:
        return letters(journal, contents)
    finally:
        end(journal)


def settle(journal: Journal, items: Iterable[Item], state: Any = "created", **fields: Any) -> None:
    fields = {"memory_id": "memory"} | fields if state == "created" else fields
    settled(journal, [item.become(state, **fields) for item in items])


def sidecars(path: Path) -> list[Path]:
    return [file for file in (path, Path(f"{path}-wal"), Path(f"{path}-journal")) if file.exists()]


def copy(path: Path, to: Path) -> Path:
    """Copy a journal with what lies beside it, as it stands on the disk now: what a crash would leave."""
    for file in sidecars(path):
        Path(str(to) + str(file).removeprefix(str(path))).write_bytes(file.read_bytes())
    return to


def raw(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sidecars(path))


class Crashing(Journal):
    """A journal whose process dies at its `crash_at`-th durable point: nothing gets to the disk after it.

    The points are before and after each `sending` and `settled`. What a crash leaves is copied to `left`.
    """

    def __init__(self, path: Path, left: Path, crash_at: int | None, **options: Any) -> None:
        super().__init__(path, **options)
        self.left = left
        self.points = 0
        self.crashed = False
        self._crash_at = crash_at

    def _point(self) -> None:
        if self.points == self._crash_at and not self.crashed:
            self.crashed = True
            copy(self.path, self.left)
        self.points += 1
        if self.crashed:
            raise JournalError("crashed")

    async def sending(self, items: Any) -> None:
        self._point()
        await super().sending(items)
        self._point()

    async def settled(self, verdicts: Any) -> None:
        self._point()
        await super().settled(verdicts)
        self._point()


ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run code in a process of its own. To be closed with `with`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, text=True, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def ran(code: str, *arguments: object) -> tuple[int, str]:
    """Return the exit status of code in a process of its own, and what it printed."""
    with python(code, *arguments) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output.strip()


OPEN = """
import sys
from omi_async import Journal, JournalError
try:
    Journal(sys.argv[1]).open()
    print("opened")
except JournalError as error:
    print(error)
"""
