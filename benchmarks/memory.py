"""Peak memory of `import_facts`, from a small import to a large one, and whether its CPU grows alike.

The facts come from a generator; each import runs in a fresh process, whose highest resident set counts.
What `dedupe=True` grows by beyond `dedupe=False` is the price of folding duplicates in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.canned import serving
from benchmarks.contestants import KEY
from benchmarks.facts import make_facts, whole_batches
from benchmarks.running import (
    Goal,
    Meter,
    Report,
    Sample,
    Samples,
    Spread,
    at_most,
    fresh,
    interleaved,
    machine,
    medians_of,
    spread,
)
from omi_async import Session

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 3
QUICK: tuple[str, ...] = ("--small", "50", "--middle", "75", "--large", "100")
PLAIN, FOLDED, JOURNAL = "dedupe=False", "dedupe=True", "journal=path"
VARIANTS: dict[str, dict[str, Any]] = {PLAIN: {"dedupe": False}, FOLDED: {"dedupe": True}, JOURNAL: {}}
MIB = 2**20
AIMED_AT = (20_000, 40_000, 400_000)
"""The sizes of which the targets speak."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sizes."""
    for name, size in zip(("small", "middle", "large"), AIMED_AT, strict=True):
        parser.add_argument(
            f"--{name}", type=whole_batches, default=size, metavar="FACTS", help="(%(default)s)"
        )


def measure(url: str, facts: int, variant: str) -> Sample:
    """Import facts and look at the peak; called in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = dict(VARIANTS[variant])
        if variant == JOURNAL:
            arguments["journal"] = str(Path(folder, "journal"))
        return asyncio.run(_measure(url, facts, arguments))


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
    """Measure all sizes of each variant."""
    sizes = (options.small, options.middle, options.large)
    if not sizes[0] < sizes[1] < sizes[2]:
        raise SystemExit("--large must be larger than --middle, and that than --small")
    about = machine(("omi-async", "aiohttp", "orjson"))
    with serving() as url:
        measures = {
            _key(variant, size): partial(fresh, measure, url, size, variant)
            for variant in VARIANTS
            for size in sizes
        }
        samples = interleaved(options.rounds, measures)
    return Report(
        title=f"Peak memory of `import_facts`. {medians_of(options.rounds)}",
        columns=[
            "variant",
            f"peak at {sizes[0]:,}",
            f"peak at {sizes[2]:,}",
            "growth",
            "bytes a fact",
            *(f"CPU a fact at {size:,}" for size in sizes[1:]),
            "against",
        ],
        rows=[_row(variant, samples, sizes) for variant in VARIANTS],
        notes=[about],
        samples=samples,
        goals=_goals(samples, sizes) if sizes == AIMED_AT else [],
    )


Sizes = tuple[int, int, int]


def _goals(samples: Samples, sizes: Sizes) -> list[Goal]:
    growth = {variant: _growth(samples, variant, sizes) for variant in VARIANTS}
    more = sizes[2] - sizes[0]
    folding = spread(
        (folded - plain) / more for folded, plain in zip(growth[FOLDED], growth[PLAIN], strict=True)
    )
    span = f"from {sizes[0]:,} to {sizes[2]:,} facts"
    return [
        at_most(f"growth {span}, `{PLAIN}`", _in_mib(growth[PLAIN]), 15, "{:.1f} MiB"),
        at_most(f"growth {span}, `{JOURNAL}`", _in_mib(growth[JOURNAL]), 25, "{:.1f} MiB"),
        at_most("bytes a fact for folding duplicates in memory", folding, 130, "{:.0f}"),
        *(
            at_most(
                f"CPU a fact at {sizes[2]:,}, times that at {sizes[1]:,}, `{variant}`",
                _linearity(samples, variant, sizes),
                1.1,
            )
            for variant in VARIANTS
        ),
    ]


def _key(variant: str, size: int) -> str:
    return f"{variant} {size}"


def _growth(samples: Samples, variant: str, sizes: Sizes) -> list[float]:
    """Return by how many bytes the peak grows, round by round."""
    small, large = (samples[_key(variant, size)] for size in (sizes[0], sizes[2]))
    return [most["peak"] - least["peak"] for least, most in zip(small, large, strict=True)]


def _in_mib(sizes: list[float]) -> Spread:
    return spread(size / MIB for size in sizes)


def _linearity(samples: Samples, variant: str, sizes: Sizes) -> Spread:
    middle, large = (samples[_key(variant, size)] for size in sizes[1:])
    return spread(
        most["cpu_per_fact"] / least["cpu_per_fact"] for least, most in zip(middle, large, strict=True)
    )


def _row(variant: str, samples: Samples, sizes: Sizes) -> list[str]:
    def median(size: int, figure: str) -> float:
        return spread(sample[figure] for sample in samples[_key(variant, size)]).median

    growth = spread(_growth(samples, variant, sizes)).median
    return [
        f"`{variant}`",
        f"{median(sizes[0], 'peak') / MIB:.1f} MiB",
        f"{median(sizes[2], 'peak') / MIB:.1f} MiB",
        f"{growth / MIB:z.1f} MiB",
        f"{growth / (sizes[2] - sizes[0]):z.0f}",
        *(f"{median(size, 'cpu_per_fact') * 1e6:.1f} µs" for size in sizes[1:]),
        f"{_linearity(samples, variant, sizes):.2f}",
    ]
