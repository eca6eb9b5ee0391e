"""What the library does for each fact, in instructions and memory blocks: on any machine, however busy.

Counted are the instructions of Python's bytecode, without a network: aiohttp's session is replaced by one
that answers at once. What C does within one of them is not seen. The blocks are those of Python's allocator
that an import holds more at its end than after its first batches. The test suite holds both against
`CEILINGS`. After a change that is meant to cost, or one that saves, run `python -m benchmarks counts` on each
Python that has an entry, and write there what it prints, plus some 15 %.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from io import BytesIO
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import aiohttp
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from benchmarks.canned import answer_to
from benchmarks.contestants import KEY
from benchmarks.facts import BATCH, Fact, make_facts, whole_batches
from benchmarks.running import (
    Goal,
    Report,
    Sample,
    Samples,
    at_most,
    fresh,
    interleaved,
    machine,
    medians_of,
    spread,
)
from omi_async import Session
from omi_async.sources._readers import read_records

__all__ = ["CEILINGS", "QUICK", "ROUNDS", "add_options", "measure", "run"]

ROUNDS = 1
QUICK: tuple[str, ...] = ("--facts", "250")
FACTS = 2_000

WARM_UP = 250
WHAT = ("instructions", "blocks")

Ceilings = dict[tuple[str, str], float]
"""By way and by what is counted."""

CEILINGS: dict[tuple[int, int], Ceilings] = {
    (3, 11): {
        ("import", "instructions"): 545.0,
        ("import", "blocks"): 1.7,
        ("iterate", "instructions"): 660.0,
        ("iterate", "blocks"): 1.0,
        ("read", "instructions"): 410.0,
        ("read", "blocks"): 0.1,
    },
    (3, 13): {
        ("import", "instructions"): 480.0,
        ("import", "blocks"): 1.7,
        ("iterate", "instructions"): 575.0,
        ("iterate", "blocks"): 1.0,
        ("read", "instructions"): 370.0,
        ("read", "blocks"): 0.1,
    },
}
"""At most, for a fact, with orjson; by the version of Python, as 3.12 and later inline comprehensions."""


class _Answer:
    """What the session sees of an answer."""

    def __init__(self, whole: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.status = 200
        self.closed = True
        self.headers = CIMultiDict[str]()
        self.content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
        self.content.feed_data(whole.partition(b"\r\n\r\n")[2])
        self.content.feed_eof()


class _Client:
    """Stands in for aiohttp's session: answers at once what the canned server would answer."""

    connector = None

    def __init__(self) -> None:
        self.blocks: list[int] = []

    async def request(self, method: str, url: object, *, data: bytes | None = None, **_: object) -> _Answer:
        self.blocks.append(sys.getallocatedblocks())
        await asyncio.sleep(0)
        return _Answer(answer_to(data or b"", f"{method} {url} ".encode()))


Run = Callable[[_Client], Coroutine[Any, Any, int]]
"""What is counted; returns how many facts it has done."""


def _session(client: _Client) -> Session:
    return Session(KEY, base_url="http://127.0.0.1:1", client=cast("aiohttp.ClientSession", client))


async def _import(facts: list[Fact], client: _Client) -> int:
    async with _session(client) as session:
        report = await session.memories.import_facts(facts)
    return report.created


async def _iterate(facts: int, client: _Client) -> int:
    count = 0
    async with _session(client) as session:
        async for _ in session.memories.iterate():
            count += 1
            if count == facts:
                break
    return count


def _read(facts: int) -> Run:
    lines = BytesIO(b"".join(json.dumps(fact).encode() + b"\n" for fact in make_facts(facts)))

    async def read(client: _Client) -> int:
        count = 0
        for count, _ in enumerate(read_records(lines, "facts.jsonl"), 1):
            if count % BATCH == 0:
                client.blocks.append(sys.getallocatedblocks())
        return count

    return read


WAYS: dict[str, tuple[Callable[[int], Run], str]] = {
    "import": (lambda facts: partial(_import, list(make_facts(facts))), "`import_facts` of dicts"),
    "iterate": (lambda facts: partial(_iterate, facts), "`memories.iterate()`"),
    "read": (_read, "reading JSON lines"),
}
"""What makes the run that is counted, and the row's title."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size."""
    parser.add_argument("--facts", type=whole_batches, default=FACTS, help="(%(default)s)")


def measure(way: str, facts: int) -> Sample:
    """Count; called in a fresh process."""
    return asyncio.run(_measure(WAYS[way][0], facts))


async def _measure(prepare: Callable[[int], Run], facts: int) -> Sample:
    await prepare(WARM_UP)(_Client())
    work, client = prepare(facts), _Client()
    counted: Counter[CodeType] = Counter()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            counted[frame.f_code] += 1
        return trace

    gc.collect()
    gc.disable()  # finalizers are code too
    sys.settrace(trace)
    try:
        done = await asyncio.create_task(work(client))
    finally:
        sys.settrace(None)
        gc.enable()
    if done != facts:
        raise RuntimeError(f"{done} of {facts} are done")
    own = str(Path(__file__).parent)
    ours = sum(times for code, times in counted.items() if not code.co_filename.startswith(own))
    return {"instructions": ours / facts, "blocks": _growth(client.blocks) / facts}


def _growth(blocks: list[int]) -> int:
    """Return by how many blocks more there are at the last call than after a quarter of all calls."""
    return blocks[-1] - blocks[len(blocks) // 4] if blocks else 0


def run(options: argparse.Namespace) -> Report:
    """Count each way, and hold it against its ceiling."""
    about = machine(("omi-async", "attrs", "orjson"))
    ways = {way: partial(fresh, measure, way, options.facts) for way in WAYS}
    samples = interleaved(options.rounds, ways)
    return Report(
        title=f"What Python does for a fact, of {options.facts:,}. {medians_of(options.rounds)}",
        columns=["way", "instructions a fact", "blocks kept a fact"],
        rows=[[WAYS[way][1], *(f"{_median(samples, way, what):.2f}" for what in WHAT)] for way in WAYS],
        notes=[about],
        samples=samples,
        goals=_goals(samples) if options.facts == FACTS else [],
    )


def _median(samples: Samples, way: str, what: str) -> float:
    return spread(sample[what] for sample in samples[way]).median


def _goals(samples: Samples) -> list[Goal]:
    return [
        at_most(f"{what} a fact, {WAYS[way][1]}", spread(sample[what] for sample in samples[way]), ceiling)
        for (way, what), ceiling in CEILINGS.get(sys.version_info[:2], {}).items()
    ]
