"""Everything at once: whatever goes wrong, and whenever an import ends, what it says is true."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import attrs
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from omi_async import Fact, FactOutcome, ImportReport, ImportStoppedError
from omi_async.importing.importer import Importer
from omi_async.local import FOREVER, Fault, LocalServer
from tests.clock import run
from tests.importing.helpers import assert_complete, assert_no_task_left, counts, serving

Ending = Literal["none", "stop", "cancel", "cancel twice", "source raises", "callback raises", "leave"]


@attrs.frozen
class Scenario:
    """All that can differ between two imports.

    Attributes:
        texts: what is imported.
        faults: what happens to the batch and single calls, one after the other.
        list_faults: what happens to the calls of the list.
        hidden: the list is never shown.
        ending: how the import is ended, if it is.
        after: seconds of the loop's clock before that; or facts, for the endings that count them.
        ticks: turns of the event loop after that, so that the end can come at any await.
    """

    texts: list[str]
    faults: list[Fault]
    list_faults: list[Fault]
    hidden: bool
    lag: float
    concurrency: int
    dedupe: bool
    text_identity: bool
    on_unknown: Any
    ending: Ending
    after: int
    ticks: int
    drain_timeout: float
    slow_callback: bool
    awaits: bool

    @property
    def evidence_withheld(self) -> bool:
        """Whether some facts may stay unknown."""
        return (
            self.hidden or bool(self.list_faults) or self.on_unknown != "reconcile" or self.ending != "none"
        )


HARMLESS = Fault.slow(0.5)
GIVEN_UP = {Fault.slow(125, stored=True), Fault.slow(40)}
"""The server is still at these when the client has given them up, and may make the next call."""

WRITE_FAULTS = st.sampled_from(
    [
        HARMLESS,
        Fault.slow(20, stored=True),
        Fault.slow(125, stored=True),
        Fault.answer(503, "Memory writes are globally paused"),
        Fault.rate_limited(30),
        Fault.rate_limited(),
        Fault.answer(500, "x"),
        Fault.after_all(),
        Fault.after_prefix(1),
        Fault.after_prefix(13),
        Fault.reset(),
        Fault.reset(stored=True),
        Fault.half_body(),
        Fault.garbage(),
        Fault.empty(504, stored=True),
        Fault.names_only(0),
        Fault.names_only(20),
        Fault.reordered(),
        Fault.answer(422, "something is wrong with one of them"),
        Fault.answer(401, "no"),
    ]
)
LIST_FAULTS = st.sampled_from(
    [
        Fault.answer(500, "x"),
        Fault.reset(),
        Fault.garbage(),
        Fault.rate_limited(5),
        Fault.slow(40),
        Fault.slow(3),
    ]
)

WORDS = ["", " same ", "same", "poison a", "poison b", "fails c"]


def scenarios(*, endings: st.SearchStrategy[Any]) -> st.SearchStrategy[Scenario]:
    texts = st.tuples(
        st.integers(0, 130), st.lists(st.tuples(st.integers(0, 130), st.sampled_from(WORDS)))
    ).map(lambda drawn: _mixed(*drawn))
    return st.builds(
        Scenario,
        texts=texts,
        faults=st.lists(WRITE_FAULTS, max_size=8),
        list_faults=st.one_of(st.just([]), st.lists(LIST_FAULTS, max_size=5)),
        hidden=st.sampled_from([False, False, False, True]),
        lag=st.sampled_from([0.0, 0.0, 1.0, 4.5]),
        concurrency=st.integers(1, 4),
        dedupe=st.sampled_from([True, True, False]),
        text_identity=st.sampled_from([False, False, True]),
        on_unknown=st.sampled_from(["reconcile", "reconcile", "reconcile", "report", "resend"]),
        ending=endings,
        after=st.sampled_from([0, 0, 1, 2, 7, 15, 30, 60, 125]),
        ticks=st.integers(0, 400),
        drain_timeout=st.sampled_from([0.0, 1.0, 30.0]),
        slow_callback=st.booleans(),
        awaits=st.booleans(),
    )


def _mixed(count: int, inserted: list[tuple[int, str]]) -> list[str]:
    texts = [f"fact {number}" for number in range(count)]
    for place, word in inserted:
        texts.insert(place, word)
    return texts


class Run:
    """One scenario, played; then checked."""

    def __init__(self, scenario: Scenario, server: LocalServer) -> None:
        self.scenario = scenario
        self.server = server
        self.outcomes: list[FactOutcome] = []
        self.interrupted = 0

    def source(self) -> Iterator[str]:
        for number, text in enumerate(self.scenario.texts):
            if self.scenario.ending == "source raises" and number == self.scenario.after:
                raise OSError("the source")
            yield text

    async def source_that_awaits(self) -> AsyncIterator[str]:
        for text in self.source():
            await asyncio.sleep(0.01)
            yield text

    def on_outcome(self, outcome: FactOutcome) -> None:
        self.outcomes.append(outcome)
        if self.scenario.ending == "callback raises" and len(self.outcomes) == self.scenario.after + 1:
            raise OSError("the callback")

    async def on_outcome_slowly(self, outcome: FactOutcome) -> None:
        self.on_outcome(outcome)
        self.interrupted += 1
        await asyncio.sleep(0.02)
        self.interrupted -= 1

    async def moment(self) -> None:
        await asyncio.sleep(self.scenario.after)
        for _ in range(self.scenario.ticks):
            await asyncio.sleep(0)

    async def play(self, importer: Importer) -> ImportReport:
        match self.scenario.ending:
            case "leave":
                async with importer:
                    with contextlib.suppress(StopAsyncIteration, ImportStoppedError):
                        for _ in range(self.scenario.after):
                            await anext(importer)
            case "stop":
                running = asyncio.create_task(importer.run())
                await self.moment()
                importer.stop()
                with contextlib.suppress(ImportStoppedError):
                    assert await running is importer.report
            case "cancel" | "cancel twice":
                await self.cancel(importer)
            case _:
                await self.to_the_end(importer)
        return importer.report

    async def to_the_end(self, importer: Importer) -> None:
        stopped = None
        try:
            await importer.run()
        except ImportStoppedError as error:
            stopped = error
        if stopped is not None:
            assert stopped.report is importer.report
            assert stopped.__cause__ is not None
            event(f"stopped by {type(stopped.__cause__).__name__}")

    async def cancel(self, importer: Importer) -> None:
        running = asyncio.create_task(importer.run())
        await self.moment()
        was_done = running.done()
        running.cancel()
        if self.scenario.ending == "cancel twice":
            for _ in range(self.scenario.ticks % 7):
                await asyncio.sleep(0)
            running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            event("cancelled")
        except ImportStoppedError:
            assert was_done

    def check(self, report: ImportReport) -> None:
        scenario = self.scenario
        assert_complete(report, self.outcomes)
        assert report.pulled <= len(scenario.texts)
        stored = Counter(memory["content"] for memory in self.server.memories())
        by_state: dict[str, set[str]] = {}
        for outcome in self.outcomes:
            if outcome.fact is not None:
                by_state.setdefault(outcome.state, set()).add(outcome.fact.content)
        claimed = by_state.get("created", set())
        assert claimed <= stored.keys()
        if scenario.dedupe:
            for state in ("invalid", "rejected", "not_sent"):
                assert not by_state.get(state, set()) & stored.keys(), state
            if scenario.on_unknown != "resend":
                assert not {text: number for text, number in stored.items() if number > 1}
        assert by_state.get("existing", set()) == set()
        if not scenario.evidence_withheld and Fault.answer(401, "no") not in scenario.faults:
            assert report.unknown == 0
            # What fails each time is to blame only if the server took something else meanwhile.
            failing = bool(scenario.faults) or any("fails" in text for text in scenario.texts)
            assert report.not_sent == 0 or failing
        if scenario.ending != "cancel twice":
            assert self.interrupted == 0 or scenario.drain_timeout < 30
        if not GIVEN_UP & {*scenario.faults, *scenario.list_faults}:
            assert self.server.max_in_flight <= scenario.concurrency
        assert all(record.items <= 25 for record in self.server.requests)
        event(f"{scenario.ending}: {', '.join(counts(report))}")


async def played(scenario: Scenario) -> None:
    async with serving(text_identity=scenario.text_identity) as (server, session):
        server.faults.add(
            Fault.poison("poison", loc=True), Fault.poison("fails", status=500, stored_prefix=True)
        )
        server.faults.add(*scenario.faults, on=("batch", "create"))
        if scenario.lag:
            server.faults.add(Fault.list_lag(scenario.lag))
        server.faults.add(*scenario.list_faults, on="list")
        if scenario.hidden:
            server.faults.add(Fault.answer(403, "no"), on="list", times=FOREVER)
        this = Run(scenario, server)
        tasks = asyncio.all_tasks()
        importer = session.memories.importer(
            this.source_that_awaits() if scenario.awaits else this.source(),
            concurrency=scenario.concurrency,
            dedupe=scenario.dedupe,
            on_unknown=scenario.on_unknown,
            drain_timeout=scenario.drain_timeout,
            on_outcome=this.on_outcome_slowly if scenario.slow_callback else this.on_outcome,
        )
        report = await this.play(importer)
        await asyncio.sleep(0)
        assert_no_task_left(tasks)
        await asyncio.sleep(200)  # the server ends what it was still at
        this.check(report)


def plain(**changes: Any) -> Scenario:
    """A scenario in which little happens, so that every promise of `Run.check` is certainly looked at."""
    usual = Scenario(
        texts=[*_mixed(60, [(3, "same"), (9, "same"), (20, "")]), "poison a"],
        faults=[Fault.after_prefix(13)],
        list_faults=[],
        hidden=False,
        lag=0.0,
        concurrency=2,
        dedupe=True,
        text_identity=False,
        on_unknown="reconcile",
        ending="none",
        after=0,
        ticks=0,
        drain_timeout=30.0,
        slow_callback=False,
        awaits=False,
    )
    return attrs.evolve(usual, **changes)


SLOWLY = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(deadline=None, max_examples=120, suppress_health_check=SLOWLY)
@given(scenarios(endings=st.just("none")))
@example(plain())
@example(plain(faults=[Fault.answer(401, "no")]))
def test_an_import_that_runs_to_its_end_tells_the_truth(scenario: Scenario) -> None:
    run(played(scenario))


@settings(deadline=None, max_examples=200, suppress_health_check=SLOWLY)
@given(
    scenarios(
        endings=st.sampled_from(
            ["stop", "cancel", "cancel twice", "source raises", "callback raises", "leave"]
        )
    )
)
@example(plain(ending="stop", after=1))
@example(plain(ending="cancel", ticks=30, slow_callback=True))
@example(plain(ending="source raises", after=30))
@example(plain(ending="callback raises", after=30))
def test_an_import_that_is_cut_short_tells_the_truth(scenario: Scenario) -> None:
    run(played(scenario))


@settings(deadline=None, max_examples=150, suppress_health_check=SLOWLY)
@given(
    ticks=st.integers(0, 600),
    again=st.one_of(st.none(), st.integers(0, 20)),
    concurrency=st.integers(1, 3),
    slow_callback=st.booleans(),
    awaits=st.booleans(),
    flush_after=st.sampled_from([None, 0.0, 1.0]),
)
def test_a_cancellation_may_come_at_any_await(
    *, ticks, again, concurrency, slow_callback, awaits, flush_after
) -> None:
    """Nothing sleeps here: so many turns of the loop cover the whole import."""

    async def scenario() -> None:
        async with serving(text_identity=False) as (server, session):
            outcomes: list[FactOutcome] = []

            async def on_outcome(outcome: FactOutcome) -> None:
                outcomes.append(outcome)
                await asyncio.sleep(0)

            given = [Fact(f"fact {n}") if n % 3 else "" for n in range(100)]
            closed = False

            async def source() -> AsyncIterator[Fact | str]:
                nonlocal closed
                try:
                    async with asyncio.timeout(1000):
                        for fact in given:
                            await asyncio.sleep(0)
                            yield fact
                finally:
                    closed = True

            tasks = asyncio.all_tasks()
            importer = session.memories.importer(
                source() if awaits else given,
                concurrency=concurrency,
                flush_after=flush_after,
                on_outcome=on_outcome if slow_callback else outcomes.append,
            )
            running = asyncio.create_task(importer.run())
            for _ in range(ticks):
                await asyncio.sleep(0)
            running.cancel()
            if again is not None:
                for _ in range(again):
                    await asyncio.sleep(0)
                running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            report = importer.report
            await asyncio.sleep(0)
            assert_no_task_left(tasks)
            assert_complete(report, outcomes)
            assert closed or not awaits or not report.pulled
            await asyncio.sleep(5)
            stored = [memory["content"] for memory in server.memories()]
            assert len(stored) == len(set(stored))
            assert report.created <= len(stored) <= report.created + report.unknown
            assert again is not None or report.unknown == 0

    run(scenario())
