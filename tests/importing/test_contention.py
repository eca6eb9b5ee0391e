"""How many calls at a time: on a server that takes parallel writes badly, and on one that takes them well."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import attrs
import pytest

from omi_async.local import FOREVER, REAL_QUOTAS, Fault
from tests.clock import elapsed
from tests.importing.helpers import calls, counts, facts, serving

pytestmark = pytest.mark.virtual_clock


@attrs.frozen
class Took:
    """What an import of the same facts took."""

    seconds: float
    calls: int
    report: Any


async def took(number: int, contended: float, **options: Any) -> Took:
    connections = {"connections": options.get("concurrency", 4)}
    async with serving(text_identity=False, contended=contended, session=connections) as (server, session):
        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(facts(number), **options)
        server.assert_each_stored_once(facts(number))
        assert len(server.memories()) == number
        return Took(elapsed(before), len(server.requests), report)


@pytest.mark.parametrize("number", [500, 1500])
@pytest.mark.parametrize("contended", [0.002, 0.005, 0.02])
@pytest.mark.parametrize("options", [{}, {"concurrency": 16}], ids=["default", "16"])
async def test_a_server_that_fails_in_parallel_costs_little_more_than_one_call_at_a_time(
    number: int, contended: float, options: dict[str, Any]
) -> None:
    # Catches: four calls at a time whatever happens, which takes three times as long and leaves good facts
    # rejected; and a growth that tries for more again and again.
    alone = await took(number, contended, concurrency=1)
    several = await took(number, contended, **options)
    assert counts(several.report) == {"created": number}
    assert several.seconds <= 1.25 * alone.seconds
    assert several.calls <= 1.5 * alone.calls


async def test_the_first_hour_of_the_real_quotas_is_used_on_such_a_server() -> None:
    async with serving(text_identity=False, contended=True, quotas=REAL_QUOTAS) as (server, session):
        importer = session.memories.importer(facts(1000))
        asyncio.get_running_loop().call_later(3000, importer.stop)
        report = await importer.run()
        assert counts(report).keys() == {"created", "not_sent"}
        # Fifteen batches, of which not more than two went for what failed in company.
        assert report.created == len(server.memories()) >= 13 * 25


async def test_the_next_import_of_a_session_knows_what_the_first_has_learned() -> None:
    async with serving(text_identity=False, contended=True) as (server, session):
        await session.memories.import_facts(facts(500))
        before = Counter(record.status for record in server.requests)
        await session.memories.import_facts(facts(200, prefix="more"))
        after = Counter(record.status for record in server.requests)
        assert before[500] > 0
        assert after[500] == before[500]
        assert calls(server, "batch") - sum(before.values()) <= 8


async def test_a_server_that_takes_parallel_calls_well_is_used_to_the_full() -> None:
    async with serving(session={"connections": 16}) as (server, session):
        server.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(facts(2_000 * 25), concurrency=16)
        assert counts(report) == {"created": 50_000}
        assert elapsed(before) <= 2_000 * 0.05 / 16 / 0.95
        assert server.max_in_flight == 16


@pytest.mark.parametrize("hiccups", [1, 3])
async def test_a_good_server_that_hiccups_is_soon_used_to_the_full_again(hiccups: int) -> None:
    async with serving(text_identity=False, session={"connections": 16}) as (server, session):
        for _ in range(hiccups):
            server.faults.add(Fault.slow(0.05), on="batch", times=300)
            server.faults.add(Fault.answer(500, "oops"), on="batch")
        server.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
        before = asyncio.get_running_loop().time()
        report = await session.memories.import_facts(facts(2_000 * 25), concurrency=16)
        assert counts(report) == {"created": 50_000}
        # And the import waits for the looks: as fast as it is, what they look for would be out of sight.
        assert elapsed(before) <= 2_000 * 0.05 / 16 * 1.4 + 7 * hiccups
