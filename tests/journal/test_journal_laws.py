"""Any input, any faults, any number of crashes: nothing lost, nothing stored twice, all that is told is true.

The server does not know memories by their text, so that whatever is sent twice is stored twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from omi_async import ImportStoppedError, Journal, JournalError, ServerError
from omi_async.local import Fault, LocalServer
from tests.clock import run
from tests.importing.helpers import virtual_clock
from tests.journal.helpers import SERVER, Crashing, Run, known, run_import, stored, texts

pytestmark = pytest.mark.slow

UNIVERSE = 160

FAULTS: list[Callable[[int], Fault]] = [
    Fault.after_prefix,  # each takes a number
    lambda _number: Fault.after_all(),
    lambda number: Fault.reset(stored=number % 2 == 0),
    lambda _number: Fault.half_body(),
    lambda _number: Fault.garbage(),
    Fault.names_only,
    lambda _number: Fault.reordered(),
    lambda number: Fault.answer(500, "broken", stored=number % 2 == 0),
    lambda _number: Fault.answer(503, "Rate limiter unavailable"),
    Fault.rate_limited,
    lambda number: Fault.html(502, stored=number % 2 == 0),
]


@attrs.frozen
class Plan:
    """One run: what it is given, what goes wrong, and at which durable point its process dies."""

    numbers: list[int]
    concurrency: int
    faults: list[tuple[int, int]]
    crash_at: int | None
    lag: int

    def facts(self) -> list[str]:
        return texts(self.numbers)

    def misbehave(self, server: LocalServer) -> None:
        for kind, number in self.faults:
            server.faults.add(FAULTS[kind](number), on=("batch", "create"))
        if self.lag:
            server.faults.add(Fault.list_lag(self.lag))


RANGES = st.tuples(st.integers(0, UNIVERSE), st.integers(0, UNIVERSE)).map(
    lambda ends: [*range(*sorted(ends))]
)
INPUTS = RANGES.flatmap(st.permutations) | RANGES | st.lists(st.integers(0, 40), max_size=60)
PLANS = st.builds(
    Plan,
    numbers=INPUTS,
    concurrency=st.integers(1, 5),
    faults=st.lists(st.tuples(st.integers(0, len(FAULTS) - 1), st.integers(0, 25)), max_size=5),
    crash_at=st.none() | st.integers(0, 40),
    lag=st.sampled_from([0, 0, 3]),
)


def assert_true(result: Run, holds: dict[str, str], *, crashed: bool) -> None:
    """What was told is what is so. After a crash, what was told before it."""
    for outcome in result.outcomes:
        if outcome.fact is None or outcome.state == "duplicate":
            continue
        content = outcome.fact.content
        if outcome.state in {"created", "existing"}:
            assert holds.get(content) == outcome.memory_id
        elif outcome.state in {"not_sent", "invalid", "rejected"} and not crashed:
            assert content not in holds


async def one_run(server: LocalServer, folder: Path, number: int, plan: Plan, journal: Path) -> Path:
    """Do a run; return the journal that the next one has to go on with."""
    plan.misbehave(server)
    crashing = Crashing(journal, folder / f"after {number}.journal", plan.crash_at, server=SERVER)
    result = await run_import(server, plan.facts(), crashing, concurrency=plan.concurrency)
    server.faults.clear()
    if crashing.crashed:
        assert isinstance(result.error, ImportStoppedError)
        # The server may have ended the import before; the first one is the cause, the other is told too.
        assert isinstance(result.error.__cause__, JournalError) or (
            isinstance(result.error.__cause__, ServerError)
            and result.error.__notes__ == ["while it was ending: crashed"]
        )
        journal = crashing.left
    else:
        # If the server is down for good, the import stops; nothing that it told is less true.
        assert result.error is None or isinstance(result.error.__cause__, ServerError)
        assert result.error is not None or (result.report.complete and result.report.not_sent == 0)
    holds = stored(server)
    assert_true(result, holds, crashed=crashing.crashed)
    for content, state in known(journal, texts(range(UNIVERSE))).items():
        assert state != "created" or content in holds
        assert state not in {"nothing", "unsent", "rejected"} or content not in holds
    return journal


async def all_runs(plans: list[Plan], folder: Path) -> None:
    journal = folder / "facts.journal"
    async with LocalServer(text_identity=False, clock=virtual_clock()) as server:
        for number, plan in enumerate(plans):
            journal = await one_run(server, folder, number, plan, journal)
        everything = texts(sorted({number for plan in plans for number in plan.numbers} | {0, 1}))
        result = await run_import(server, everything, Journal(journal, server=SERVER))
        holds = stored(server)
        assert result.error is None
        # A fact may have been given up as rejected in a run in which the server failed again and again.
        assert set(result.by_text().values()) <= {"created", "rejected"}
        assert_true(result, holds, crashed=False)
        server.assert_each_stored_once(
            [text for text, state in result.by_text().items() if state == "created"]
        )

        before = len(server.requests)
        again = await run_import(server, reversed(everything), Journal(journal, server=SERVER))
        assert again.by_text() == result.by_text()
        assert len(server.requests) == before


@given(st.lists(PLANS, min_size=1, max_size=4))
@example([Plan(numbers=[0], concurrency=1, faults=[(8, 0)] * 4, crash_at=8, lag=0)])
@example(
    [Plan(numbers=[*range(30)], concurrency=1, faults=[], crash_at=2, lag=0)] * 2
)  # crashes, and does not
@example([Plan(numbers=[*range(30)], concurrency=1, faults=[(8, 0)] * 30, crash_at=None, lag=0)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_law_holds_over_crashes_faults_and_changing_input(plans: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(all_runs(plans, Path(folder)))


@pytest.mark.slow
def test_a_crash_at_every_point_of_a_difficult_import() -> None:
    faults = [(0, 7), (3, 0), (5, 20), (9, 3)]
    plan = Plan([*range(110)], 3, faults, None, 3)
    for point in range(60):
        with tempfile.TemporaryDirectory() as folder:
            run(all_runs([attrs.evolve(plan, crash_at=point), plan], Path(folder)))
