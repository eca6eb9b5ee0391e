"""How long the event loop stands still while a big file of JSON lines is imported.

A watchdog asks to be woken each millisecond and notes how late it was: for the loop's own work, for the
interpreter that another thread would not let go, or because the machine had other things to do. How much of
it is the machine is seen by the second row, whose loop has nothing to do but the watchdog for the same
time. Before, what was imported is frozen (`gc.freeze`), as the command line does it and a server should: a
full collection of Python's stops the loop for as long as there are objects in the whole process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.canned import serving
from benchmarks.contestants import KEY
from benchmarks.facts import BATCH, make_batch
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
from omi_async.sources import open_facts

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 1
QUICK: tuple[str, ...] = ("--size", "20kB")
STEP = 0.001
"""Seconds after which the watchdog asks to be woken."""

AIMED_AT = 10**9
"""Bytes of the file of which the target speaks."""

TITLES = {"import": "**`import_facts(open_facts(path))`**", "idle": "nothing but the watchdog"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kMG]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def size_in_bytes(text: str) -> int:
    """Read ``100MB`` or ``1GB`` from the command line."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("must be a size such as 100MB or 1GB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size."""
    parser.add_argument("--size", type=size_in_bytes, default="1GB", help="of the file (%(default)s)")


class Turn(NamedTuple):
    """By how many seconds the watchdog was late, and how many of them the loop's thread was at work."""

    late: float
    busy: float


@asynccontextmanager
async def _watched() -> AsyncIterator[list[Turn]]:
    """Watch the loop; the list grows by each turn of the watchdog."""
    late: list[Turn] = []

    async def watch() -> None:
        last, busy = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(STEP)
            now, used = time.perf_counter(), time.thread_time()
            late.append(Turn(now - last - STEP, used - busy))
            last, busy = now, used

    watchdog = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield late
    finally:
        watchdog.cancel()
        with suppress(asyncio.CancelledError):
            await watchdog


def measure_import(url: str, path: str) -> Sample:
    """Import the file and watch; called in a fresh process."""
    return asyncio.run(_import(url, path))


async def _import(url: str, path: str) -> Sample:
    gc.freeze()
    async with Session(KEY, base_url=url) as session, open_facts(path) as facts, _watched() as late:
        began = time.perf_counter()
        report = await session.memories.import_facts(facts)
        seconds = time.perf_counter() - began
    if report.created != report.pulled:
        raise RuntimeError(str(report))
    return {**_summary(late), "facts": report.created, "seconds": seconds}


def measure_idle(seconds: float) -> Sample:
    """Watch an idle loop; called in a fresh process."""
    return asyncio.run(_idle(seconds))


async def _idle(seconds: float) -> Sample:
    async with _watched() as late:
        await asyncio.sleep(seconds)
    return {**_summary(late), "facts": 0, "seconds": seconds}


def _summary(turns: list[Turn]) -> Sample:
    late = sorted(turn.late for turn in turns) or [0.0]
    return {
        "worst": late[-1],
        "busiest": max((turn.busy for turn in turns), default=0.0),
        "99.9 %": late[int(len(late) * 0.999)],
        "above 20 ms": sum(seconds > 0.02 for seconds in late),
        "times": len(late),
    }


def run(options: argparse.Namespace) -> Report:
    """Write the file, import it, and watch as long with nothing to do."""
    about = machine(("omi-async", "aiohttp", "orjson"))
    with tempfile.TemporaryDirectory() as folder, serving() as url:
        path = Path(folder, "facts.jsonl")
        facts = write(path, options.size)
        imported: list[Sample] = []

        def import_() -> Sample:
            imported.append(fresh(measure_import, url, str(path)))
            return imported[-1]

        def idle() -> Sample:
            return fresh(measure_idle, min(imported[-1]["seconds"], 30.0))

        samples = interleaved(options.rounds, {"import": import_, "idle": idle})
    return Report(
        title=f"{facts:,} facts, {options.size / 1e6:,.0f} MB of JSON lines. {medians_of(options.rounds)}",
        columns=[
            "the loop has to do",
            "worst",
            "most CPU of its own",
            "99.9 % within",
            "times above 20 ms",
            "of",
        ],
        rows=[_row(key, samples) for key in TITLES],
        notes=[about],
        samples=samples,
        goals=_goals(samples) if options.size >= AIMED_AT else [],
    )


def _goals(samples: Samples) -> list[Goal]:
    worst = spread(sample["worst"] * 1e3 for sample in samples["import"])
    return [
        at_most("the longest that the event loop stood still, importing 1 GB", worst, 20, "{:.1f} ms"),
    ]


def write(path: Path, size: int) -> int:
    """Write JSON lines of at least so many bytes, and return their number."""
    lines = written = 0
    with path.open("wb") as file:
        for number in itertools.count():
            if written >= size:
                return lines
            batch = make_batch(f"{number:06}")
            block = "".join(f"{json.dumps(fact, ensure_ascii=False)}\n" for fact in batch)
            written += file.write(block.encode())
            lines += BATCH
    return lines


def _row(key: str, samples: Samples) -> list[str]:
    def median(figure: str) -> float:
        return spread(sample[figure] for sample in samples[key]).median

    return [
        TITLES[key],
        f"{median('worst') * 1e3:.1f} ms",
        f"{median('busiest') * 1e3:.1f} ms",
        f"{median('99.9 %') * 1e3:.1f} ms",
        f"{median('above 20 ms'):,.0f}",
        f"{median('times'):,.0f}",
    ]
