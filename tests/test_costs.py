"""What an import costs, counted and not timed: instructions, memory blocks, turns of the event loop."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from omi_async import ImportReport, Session
from omi_async.sources import open_facts

pytest.importorskip("orjson", reason="the ceilings are those with it")
pytest.importorskip("benchmarks", reason="the wheel comes without its benchmarks")
pytestmark = [pytest.mark.extras, pytest.mark.slow]

from benchmarks import counts, loop  # noqa: E402  # behind the question whether they are there
from benchmarks.canned import serving  # noqa: E402
from benchmarks.contestants import KEY  # noqa: E402
from benchmarks.facts import make_batch  # noqa: E402  # as above
from benchmarks.running import fresh  # noqa: E402

CEILINGS = counts.CEILINGS.get(sys.version_info[:2], {})

SIZE = 10_000_000
"""Bytes of a file that is big for a suite; `python -m benchmarks loop --size 1GB` watches the clock too."""

MOST = 500
"""Facts between two turns of the loop: at some 20 microseconds each, half of what a loop may stand still."""


@pytest.mark.skipif(not CEILINGS, reason="no ceilings for this Python")
@pytest.mark.parametrize("way", counts.WAYS)
def test_a_fact_costs_no_more_instructions_and_blocks_than_it_did(way: str) -> None:
    """To raise or lower a ceiling, see `benchmarks.counts`."""
    sample = fresh(counts.measure, way, counts.FACTS)

    for what in counts.WHAT:
        assert sample[what] <= CEILINGS[way, what], what


@pytest.mark.skipif(not CEILINGS, reason="no ceilings for this Python")
@pytest.mark.parametrize("way", counts.WAYS)
def test_the_ceilings_are_not_far_above_what_is_counted(way: str) -> None:
    """A ceiling that nothing can hit guards nothing; and the same is counted twice, but for some order."""
    samples = [fresh(counts.measure, way, counts.FACTS) for _ in range(2)]

    assert samples[0]["instructions"] == pytest.approx(samples[1]["instructions"], rel=1e-3)
    assert samples[0]["instructions"] >= CEILINGS[way, "instructions"] * 0.8


@pytest.mark.parametrize("same", [False, True])
def test_the_loop_gets_its_turns_during_an_import_of_a_big_file(tmp_path: Path, same: bool) -> None:
    blockbuster = pytest.importorskip("blockbuster", reason="it is of the extra test")
    path = tmp_path / "facts.jsonl"
    lines = loop.write(path, SIZE)
    if same:  # all but the first are folded, and nothing waits for the server
        path.write_text(f"{json.dumps(make_batch('000000')[0])}\n" * lines)
    with serving() as url, blockbuster.blockbuster_ctx("omi_async") as watching:
        # What measures coverage takes a lock of its own, in our frames.
        watching.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        most, report = asyncio.run(_most_between_turns(url, path))

    assert report.pulled == lines
    assert report.ok
    assert 0 < most <= MOST


async def _most_between_turns(url: str, path: Path) -> tuple[int, ImportReport]:
    """Import, and return how many facts were pulled between two turns of the loop at most."""
    most = 0

    async def turn() -> None:
        nonlocal most
        before = 0
        while True:
            most = max(most, importer.report.pulled - before)
            before = importer.report.pulled
            await asyncio.sleep(0)

    async with Session(KEY, base_url=url) as session, open_facts(path) as facts:
        importer = session.memories.importer(facts)
        turning = asyncio.create_task(turn())
        await importer.run()
        turning.cancel()
    return most, importer.report
