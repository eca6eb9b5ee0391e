"""What the tests of the importer share."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from omi_async import Fact, FactOutcome, ImportReport, Session
from omi_async.local import LocalServer

STATES = ("created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent")


def facts(count: int, *, prefix: str = "fact") -> list[Fact]:
    return [Fact(f"{prefix} {number}", category="system") for number in range(count)]


def virtual_clock() -> Any:
    """Return a server's clock that runs with the running loop, a minute ahead of the client's."""
    return lambda: time.time() + 60


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[LocalServer, Session]]:
    """Serve, with a server whose clock is the loop's, and a session; nothing of an import may be left."""
    options.setdefault("clock", virtual_clock())
    session_options = options.pop("session", {})
    async with (
        LocalServer(**options) as server,
        Session(server.api_key, base_url=server.url, **session_options) as session,
    ):
        before = asyncio.all_tasks()
        yield server, session
        assert_no_task_left(before)


def assert_no_task_left(before: set[asyncio.Task[Any]]) -> None:
    assert imports_tasks(before) == set()


def imports_tasks(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks that an import made since."""
    return {task for task in asyncio.all_tasks() - before if "omi_async/importing" in _file(task)}


def _file(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return "" if code is None else code.co_filename


def assert_law(report: ImportReport) -> None:
    assert report.pulled == sum(getattr(report, state) for state in STATES), report


def counts(report: ImportReport) -> dict[str, int]:
    """The counts that are not 0."""
    return {state: getattr(report, state) for state in STATES if getattr(report, state)}


def assert_complete(report: ImportReport, outcomes: Iterable[FactOutcome]) -> None:
    """The law, and exactly one outcome for each pulled fact, of the states that the report counts."""
    outcomes = list(outcomes)
    assert_law(report)
    assert sorted(outcome.index for outcome in outcomes) == list(range(report.pulled))
    assert Counter(outcome.state for outcome in outcomes) == Counter(counts(report))


def calls(server: LocalServer, operation: str) -> int:
    return sum(record.kind == operation for record in server.requests)


def sizes(server: LocalServer) -> list[int]:
    """The sizes of the batches, the largest first."""
    batches = [record.items for record in server.requests if record.kind == "batch"]
    return sorted(batches, reverse=True)


class Source:
    """A source that counts what is taken from it, and can raise."""

    def __init__(
        self, elements: Iterable[Any], *, fail_at: int | None = None, error: BaseException | None = None
    ) -> None:
        self.elements = elements
        self.fail_at = fail_at
        self.error = error or OSError("the disk is gone")
        self.pulled = 0
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        for element in self.elements:
            if self.pulled == self.fail_at:
                raise self.error
            self.pulled += 1
            yield element

    async def aiter(self, pause: float | None = None) -> AsyncIterator[Any]:
        try:
            for element in self:
                if pause is not None:
                    await asyncio.sleep(pause)
                yield element
        finally:
            self.closed = True
