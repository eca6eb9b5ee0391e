"""Outages and lists that hide: what must not be blamed on a fact, and what must not be believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from omi_async import Fact, ImportStoppedError
from omi_async.local import FOREVER, Chaos, Fault
from omi_async.local.faults import Sleep, Work
from omi_async.local.messages import Reply
from tests.importing.helpers import counts, facts, serving

pytestmark = pytest.mark.virtual_clock


@pytest.mark.parametrize("number", [1, 3, 30])
async def test_an_outage_of_writes_is_no_fault_of_the_facts(number: int, tmp_path: Path) -> None:
    async with serving(text_identity=False) as (server, session):
        path = tmp_path / "facts.journal"
        server.faults.add(Fault.answer(500, "down"), on="batch", times=FOREVER)
        server.faults.add(Fault.answer(500, "down"), on="create", times=FOREVER)
        try:
            report = await session.memories.import_facts(facts(number), journal=path)
        except ImportStoppedError as error:
            report = error.report
        assert report.rejected == report.created == 0
        server.faults.clear()
        report = await session.memories.import_facts(facts(number), journal=path)
        assert counts(report) == {"created": number}
        server.assert_each_stored_once(facts(number))


@pytest.mark.parametrize("lag", [7.0, 12.0])
async def test_a_list_that_does_not_show_what_is_confirmed_is_no_evidence(lag: float) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.list_lag(lag))
        server.faults.add(Fault.slow(0), Fault.after_all(), on="batch")
        report = await session.memories.import_facts(facts(50))
        assert counts(report) == {"created": 50}
        server.assert_each_stored_once(facts(50))


async def test_a_list_that_hides_what_is_confirmed_leaves_doubt() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.list_lag(1e6))
        server.faults.add(Fault.slow(0), Fault.after_all(), on="batch")
        report = await session.memories.import_facts(facts(50))
        assert counts(report) == {"created": 25, "unknown": 25}
        server.assert_each_stored_once(facts(50))


class Reworded(Fault):
    """Shows a text in other words, in answers and in the list: a server that tidies up."""

    kinds = ("batch", "list")

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        reply = await work()
        return attrs.evolve(reply, body=reply.body.replace(b"fact 3", b"Fact three"))


async def test_a_reworded_fact_is_not_sent_again_by_a_later_run(tmp_path: Path) -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Reworded(), times=FOREVER)
        for _ in range(3):
            report = await session.memories.import_facts(facts(5), journal=tmp_path / "facts.journal")
            assert counts(report) == {"created": 4, "unknown": 1}
        server.assert_each_stored_once(facts(5))


async def test_a_source_that_raises_no_exception_stops_the_import() -> None:
    class Odd(BaseException):
        pass

    def source() -> Iterator[Fact]:
        yield from facts(25)
        raise Odd

    async with serving() as (server, session):
        with pytest.raises(ImportStoppedError, match="Odd"):
            await session.memories.import_facts(source())
        server.assert_each_stored_once(facts(25))


async def test_an_unreadable_list_cannot_be_skipped_by() -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.answer(200, body=b'[{"id": 7}]'), on="list")
        with pytest.raises(ImportStoppedError, match="cannot be read"):
            await session.memories.import_facts(facts(5), skip_existing=True)
        assert server.memories() == []


@pytest.mark.parametrize("seed", range(4))
async def test_half_of_the_connections_lost_costs_no_fact(seed: int) -> None:
    # Catches: lost looks that add up, however many came between them, until the server counts as down; and
    # good facts that are rejected because each of their calls happened to be lost.
    chaos = Chaos(seed, rate=0.5, menu=[Fault.reset(), Fault.reset(stored=True)])
    async with serving(text_identity=False, chaos=chaos) as (server, session):
        report = await session.memories.import_facts(facts(2000))
        assert report.rejected == 0
        assert report.created >= 1950
        assert report.created <= len(server.memories()) <= report.created + report.unknown
        server.assert_each_stored_once([memory["content"] for memory in server.memories()])


@pytest.mark.parametrize("seed", range(3))
async def test_every_fourth_call_failing_gets_no_fact_rejected(seed: int) -> None:
    chaos = Chaos(seed, rate=0.25, menu=[Fault.answer(500, "oops")])
    async with serving(text_identity=False, chaos=chaos) as (server, session):
        report = await session.memories.import_facts(facts(5000))
        assert report.rejected == report.unknown == 0
        assert report.created == len(server.memories()) >= 4990


async def test_one_fact_that_always_fails_does_not_count_as_a_server_that_is_down() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.poison("fails", status=500))
        server.faults.add(*[Fault.reset()] * 4, on="batch")
        report = await session.memories.import_facts(["fails", *facts(120)], concurrency=1)
        assert report.created == len(server.memories()) == 120
        assert report.rejected + report.not_sent == 1
