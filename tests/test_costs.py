"""What an import costs, counted and not timed: calls, memory blocks, turns of the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omi_async import Fact, FactOutcome, Session
from omi_async.sources import open_facts

pytest.importorskip("orjson", reason="the ceilings are those with it")
pytest.importorskip("benchmarks", reason="the wheel comes without its benchmarks")
pytestmark = pytest.mark.extras

from benchmarks import counts, loop  # noqa: E402  # behind the question whether they are there
from benchmarks.canned import serving  # noqa: E402
from benchmarks.contestants import KEY  # noqa: E402
from benchmarks.running import fresh  # noqa: E402

CEILINGS = counts.CEILINGS.get(sys.version_info[:2], {})

SIZE = 10_000_000
"""Bytes of a file that is big for a suite; `python -m benchmarks loop --size 1GB` watches the clock too."""

MOST = 500
"""Facts between two turns of the loop: at some 20 microseconds each, half of what a loop may stand still."""


@pytest.mark.skipif(not CEILINGS, reason="no ceilings for this Python")
@pytest.mark.parametrize("way", counts.WAYS)
def test_a_fact_costs_no_more_calls_and_blocks_than_it_did(way: str):
    """To raise or lower a ceiling, see `benchmarks.counts`."""
    sample = fresh(counts.measure, way, counts.FACTS)

    for what in counts.WHAT:
        if (way, what) in CEILINGS:
            assert sample[what] <= CEILINGS[way, what], what


@pytest.mark.skipif(not CEILINGS, reason="no ceilings for this Python")
def test_the_ceilings_are_not_far_above_what_is_counted():
    """A ceiling that nothing can hit guards nothing; and twice the same is counted."""
    samples = [fresh(counts.measure, "import", counts.FACTS) for _ in range(2)]

    assert samples[0]["calls"] == samples[1]["calls"]
    assert samples[0]["calls"] >= CEILINGS["import", "calls"] * 0.6


def test_the_loop_gets_its_turns_during_an_import_of_a_big_file(tmp_path: Path):
    blockbuster = pytest.importorskip("blockbuster", reason="it is of the extra test")
    path = tmp_path / "facts.jsonl"
    lines = loop.write(path, SIZE)
    with serving() as url, blockbuster.blockbuster_ctx("omi_async") as watching:
        # What measures coverage takes a lock of its own, in our frames.
        watching.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        pulled, settled = asyncio.run(_most_between_turns(url, path, lines))

    assert 0 < pulled <= MOST
    assert 0 < settled <= MOST


async def _most_between_turns(url: str, path: Path, lines: int) -> tuple[int, int]:
    """Import, and return how many facts were pulled, and settled, between two turns of the loop at most."""
    most = {"pulled": 0, "settled": 0}
    now = dict(most)

    def count(what: str) -> None:
        now[what] += 1
        most[what] = max(most[what], now[what])

    async def turn() -> None:
        while True:
            now.update(pulled=0, settled=0)
            await asyncio.sleep(0)

    async def watched(facts: AsyncIterator[Fact | FactOutcome]) -> AsyncIterator[Fact | FactOutcome]:
        async for fact in facts:
            count("pulled")
            yield fact

    turning = asyncio.create_task(turn())
    async with Session(KEY, base_url=url) as session, open_facts(path) as facts:
        report = await session.memories.import_facts(
            watched(facts), on_outcome=lambda _: count("settled"), dedupe=False
        )
    turning.cancel()
    assert report.created == lines
    return most["pulled"], most["settled"]
