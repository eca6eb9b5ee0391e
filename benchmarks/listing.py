"""CPU of iterating over a long list of memories, typed, and of reading the same pages by hand.

By hand is a loop over the offsets that decodes each page and keeps nothing. `iterate` reads each page one
memory earlier, to see what moved in between, makes a `Memory` of each, and yields none of them twice.
"""
# ruff: noqa: PLC0415 - a process loads only the client that it measures

from __future__ import annotations

import argparse
import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks.canned import LISTED, serving
from benchmarks.contestants import HEADERS, KEY, PATH
from benchmarks.running import (
    Meter,
    Report,
    Sample,
    Samples,
    at_most,
    fresh,
    interleaved,
    machine,
    medians_of,
    positive,
    ratios,
    spread,
)

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 5
QUICK: tuple[str, ...] = ("--memories", "200")
PAGE = 100
LIST = PATH.removesuffix("/batch")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size."""
    parser.add_argument("--memories", type=positive, default=LISTED, help="(%(default)s)")


async def iterate(url: str, memories: int) -> int:
    """Iterate as a user of the library does."""
    from omi_async import Session

    async with Session(KEY, base_url=url) as session:
        return await _count(session.memories.iterate(page_size=PAGE), memories)


async def _count(listed: AsyncIterator[Any], most: int) -> int:
    count = 0
    async for memory in listed:
        count += bool(memory.content)
        if count == most:
            break
    return count


async def by_hand(url: str, memories: int, module: str = "json") -> int:
    """Read the pages, and decode them."""
    import aiohttp

    loads = importlib.import_module(module).loads
    count = 0
    async with aiohttp.ClientSession(url, headers=HEADERS) as client:
        while count < memories:
            async with client.get(f"{LIST}?limit={PAGE}&offset={count}") as response:
                response.raise_for_status()
                page = await response.json(loads=loads)
            count += sum(bool(memory["content"]) for memory in page)
    return min(count, memories)


READERS: dict[str, tuple[Callable[[str, int], Awaitable[int]], str]] = {
    "iterate": (iterate, "**`memories.iterate()`**, typed"),
    "by hand": (by_hand, "aiohttp by hand, dicts"),
    "by hand, orjson": (partial(by_hand, module="orjson"), "aiohttp by hand, dicts, orjson"),
}


def measure(key: str, url: str, memories: int) -> Sample:
    """Read the list once, after a few pages to warm up; called in a fresh process."""
    return asyncio.run(_measure(READERS[key][0], url, memories))


async def _measure(read: Callable[[str, int], Awaitable[int]], url: str, memories: int) -> Sample:
    await read(url, 5 * PAGE)
    with Meter() as meter:
        count = await read(url, memories)
    if count != memories:
        raise RuntimeError(f"{count} of {memories} memories were read")
    return {"memories_per_second": count / meter.wall, "cpu_per_memory": meter.cpu / count}


def run(options: argparse.Namespace) -> Report:
    """Measure the readers, interleaved."""
    about = machine(("omi-async", "aiohttp", "orjson"))
    memories = min(options.memories, LISTED)
    with serving() as url:
        measures = {key: partial(fresh, measure, key, url, memories) for key in READERS}
        samples = interleaved(options.rounds, measures)
    return Report(
        title=f"A list of {memories:,} memories in pages of {PAGE}. {medians_of(options.rounds)}",
        columns=["reader", "memories a second", "CPU a memory", "CPU against by hand"],
        rows=[_row(key, samples) for key in READERS],
        notes=[about],
        samples=samples,
        goals=[
            at_most(
                "CPU of iterating, typed, times reading and decoding",
                ratios(samples, "iterate", "by hand", "cpu_per_memory"),
                3.0,
            )
        ],
    )


def _row(key: str, samples: Samples) -> list[str]:
    rate = spread(sample["memories_per_second"] for sample in samples[key])
    cpu = spread(sample["cpu_per_memory"] * 1e6 for sample in samples[key])
    return [
        READERS[key][1],
        f"{rate.median:,.0f}",
        f"{cpu.median:.1f} µs",
        f"{ratios(samples, key, 'by hand', 'cpu_per_memory'):.2f}",
    ]
