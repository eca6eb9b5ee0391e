"""What a journal adds to an import: wall time if the server takes its time, and CPU.

Each import writes a journal of its own into a temporary folder; what `full` costs is the disk's doing as
well.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.canned import serving
from benchmarks.contestants import KEY, WARM_UP
from benchmarks.facts import BATCH, make_facts, whole_batches
from benchmarks.running import (
    Goal,
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
from omi_async import Journal, Session

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 5
QUICK: tuple[str, ...] = ("--facts", "50", "--latency", "1")
AIMED_AT = (10.0, 8)
"""Milliseconds and calls at once, of which the targets speak."""

WITHOUT = "without"
VARIANTS = {
    WITHOUT: "no journal",
    "normal": "`journal=path`",
    "full": '`journal=Journal(path, durability="full")`',
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size, the latency and the concurrency."""
    parser.add_argument("--facts", type=whole_batches, default=40_000, help="facts to send (%(default)s)")
    parser.add_argument("--latency", type=float, default=10.0, metavar="MS", help="(%(default)s)")
    parser.add_argument(
        "--concurrency", type=positive, default=8, help="calls on the wire at once (%(default)s)"
    )


def measure(variant: str, url: str, facts: int, concurrency: int) -> Sample:
    """Import facts; called in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(variant, url, facts, concurrency, Path(folder)))


async def _measure(variant: str, url: str, facts: int, concurrency: int, folder: Path) -> Sample:
    warm_up = list(make_facts(WARM_UP))
    given = list(make_facts(facts, first_batch=WARM_UP // BATCH))
    async with Session(KEY, base_url=url, connections=concurrency) as session:
        send = partial(session.memories.import_facts, concurrency=concurrency)
        await send(warm_up, journal=_journal(variant, folder / "warm_up"))
        with Meter() as meter:
            report = await send(given, journal=_journal(variant, folder / "measured"))
    if report.created != facts:
        raise RuntimeError(str(report))
    return {
        "facts_per_second": facts / meter.wall,
        "wall": meter.wall,
        "cpu_per_batch": meter.cpu / facts * BATCH,
    }


def _journal(variant: str, path: Path) -> Journal | None:
    match variant:
        case "normal" | "full":
            return Journal(path, durability=variant)
        case _:
            return None


def run(options: argparse.Namespace) -> Report:
    """Measure the variants, interleaved."""
    about = machine(("omi-async", "aiohttp", "orjson"))
    with serving(options.latency / 1000) as url:
        measures = {
            variant: partial(fresh, measure, variant, url, options.facts, options.concurrency)
            for variant in VARIANTS
        }
        samples = interleaved(options.rounds, measures)
    return Report(
        title=(
            f"{options.facts:,} facts, {options.concurrency} calls at once, to a canned server that answers "
            f"after {options.latency:g} ms. {medians_of(options.rounds)}"
        ),
        columns=["variant", "facts a second", "CPU a batch", "wall against none", "CPU against none"],
        rows=[_row(variant, samples) for variant in VARIANTS],
        notes=[about],
        samples=samples,
        goals=_goals(samples) if (options.latency, options.concurrency) == AIMED_AT else [],
    )


def _goals(samples: Samples) -> list[Goal]:
    wall, cpu = (ratios(samples, "normal", WITHOUT, figure) for figure in ("wall", "cpu_per_batch"))
    return [
        at_most("wall time with a journal, times without", wall, 1.35),
        at_most("CPU with a journal, times without", cpu, 2.0),
    ]


def _row(variant: str, samples: Samples) -> list[str]:
    rate = spread(sample["facts_per_second"] for sample in samples[variant])
    cpu = spread(sample["cpu_per_batch"] * 1e6 for sample in samples[variant])
    return [
        VARIANTS[variant],
        f"{rate.median:,.0f}",
        f"{cpu.median:,.0f} µs",
        f"{ratios(samples, variant, WITHOUT, 'wall'):.2f}",
        f"{ratios(samples, variant, WITHOUT, 'cpu_per_batch'):.2f}",
    ]
