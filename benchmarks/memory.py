"""Peak memory of `import_facts`, from a small import to a large one, and its CPU for a fact.

The facts come from a generator; each import runs in a fresh process, whose highest resident set counts. What
`dedupe=True` grows by beyond `dedupe=False` is the price of folding duplicates in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.canned import serving
from benchmarks.contestants import KEY
from benchmarks.facts import make_facts, whole_batches
from benchmarks.running import Meter, Report, Sample, Samples, fresh, interleaved, machine, medians_of, spread
from omi_async import Session

__all__ = ["ROUNDS", "add_options", "run"]

ROUNDS = 1
VARIANTS: dict[str, dict[str, Any]] = {
    "dedupe=False": {"dedupe": False},
    "dedupe=True": {"dedupe": True},
}
MIB = 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the two sizes."""
    parser.add_argument("--small", type=whole_batches, default=20_000, metavar="FACTS", help="(%(default)s)")
    parser.add_argument("--large", type=whole_batches, default=400_000, metavar="FACTS", help="(%(default)s)")


def measure(url: str, facts: int, variant: str) -> Sample:
    """Import facts and look at the peak; called in a fresh process."""
    return asyncio.run(_measure(url, facts, VARIANTS[variant]))


async def _measure(url: str, facts: int, arguments: dict[str, Any]) -> Sample:
    async with Session(KEY, base_url=url) as session:
        with Meter() as meter:
            report = await session.memories.import_facts(make_facts(facts), **arguments)
    if report.created != facts:
        raise RuntimeError(str(report))
    return {"peak": _peak(), "cpu_per_fact": meter.cpu / facts}


def _peak() -> float:
    """Return the highest resident set of this process so far, in bytes.

    Linux hands ru_maxrss on through exec, so that it never lies below the size of the parent; the high-water
    mark of the address space (VmHWM) is the process's own.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run(options: argparse.Namespace) -> Report:
    """Measure both sizes of each variant."""
    if options.large <= options.small:
        raise SystemExit("--large must be larger than --small")
    about = machine(("omi-async", "aiohttp", "orjson"))
    sizes = (options.small, options.large)
    with serving() as url:
        measures = {
            f"{variant} {size}": partial(fresh, measure, url, size, variant)
            for variant in VARIANTS
            for size in sizes
        }
        samples = interleaved(options.rounds, measures)
    growths = {variant: _growth(samples, variant, *sizes) for variant in VARIANTS}
    more = options.large - options.small
    dedupe = (growths["dedupe=True"] - growths["dedupe=False"]) / more
    return Report(
        title=f"Peak memory of `import_facts`. {medians_of(options.rounds)}",
        columns=[
            "variant",
            *(f"peak at {size:,}" for size in sizes),
            "growth",
            "bytes a fact",
            *(f"CPU a fact at {size:,}" for size in sizes),
        ],
        rows=[
            [
                f"`{variant}`",
                *(f"{_median(samples, variant, size, 'peak') / MIB:.1f} MiB" for size in sizes),
                f"{growths[variant] / MIB:z.1f} MiB",
                f"{growths[variant] / more:z.0f}",
                *(f"{_median(samples, variant, size, 'cpu_per_fact') * 1e6:.1f} µs" for size in sizes),
            ]
            for variant in VARIANTS
        ],
        notes=[f"The in-memory folding of duplicates takes {dedupe:.0f} bytes a fact at its peak.", about],
        samples=samples,
    )


def _median(samples: Samples, variant: str, size: int, figure: str) -> float:
    return spread(sample[figure] for sample in samples[f"{variant} {size}"]).median


def _growth(samples: Samples, variant: str, small: int, large: int) -> float:
    return _median(samples, variant, large, "peak") - _median(samples, variant, small, "peak")
