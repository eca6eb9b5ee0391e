"""Facts a second, and the client's CPU for a batch, through `import_facts` and by hand.

CPU is the user and system time of the client's process, all its threads, over the measured part (getrusage);
20 batches to warm up come before. The server is canned and runs in a process of its own, so the rate is what
client, server and kernel reach together on this machine, and the CPU is the client's alone.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.canned import ANSWER_SIZE, serving
from benchmarks.contestants import CONTESTANTS, measure
from benchmarks.facts import BATCH, whole_batches
from benchmarks.running import (
    Goal,
    Report,
    Samples,
    at_least,
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
QUICK: tuple[str, ...] = ("--facts", "50", "--concurrency", "2")
BASE = "aiohttp"
PACKAGES = ("omi-async", "aiohttp", "orjson", "httpx", "requests", "omi-cli", "uvloop")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size, the server's latency, and which contestants."""
    parser.add_argument("--facts", type=whole_batches, default=30_000, help="facts to send (%(default)s)")
    parser.add_argument(
        "--latency", type=float, default=0.0, metavar="MS", help="server-side delay (%(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=positive, default=4, help="calls on the wire at once (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME", help=", ".join(CONTESTANTS))
    parser.add_argument("--uvloop", action="store_true", help="run the asyncio clients on uvloop")


def run(options: argparse.Namespace) -> Report:
    """Measure the contestants, interleaved."""
    wanted = [key for key in CONTESTANTS if options.only is None or key in options.only]
    keys = [key for key in wanted if CONTESTANTS[key].installed]
    about = machine(PACKAGES)
    with serving(options.latency / 1000) as url:
        measures = {
            key: partial(fresh, measure, key, url, options.facts, options.concurrency, uvloop=options.uvloop)
            for key in keys
        }
        samples = interleaved(options.rounds, measures)
    missing = [CONTESTANTS[key].title for key in wanted if key not in keys]
    return Report(
        title=_title(options),
        columns=["client", "calls at once", "facts a second", "CPU a batch", "CPU against aiohttp by hand"],
        rows=[_row(key, samples, options.concurrency) for key in keys],
        notes=[about, *(f"Not installed here: {title}." for title in missing)],
        samples=samples,
        goals=[] if options.latency or options.uvloop else _goals(samples),
    )


def _goals(samples: Samples) -> list[Goal]:
    ours, without = "import_facts", "import_facts_stdlib"
    wanted = (
        (at_most, "CPU of `import_facts` of mappings, times aiohttp by hand", ours, BASE, 1.3),
        (at_most, "the same of `Fact` objects that a generator makes", "import_facts_objects", BASE, 1.5),
        (at_most, "the same without orjson", without, BASE, 1.6),
        (at_least, "CPU of httpx, times `import_facts`", "httpx", ours, 4.0),
        (at_least, "CPU of requests per call, times `import_facts`", "requests_post", ours, 3.3),
    )
    return [
        judge(what, ratios(samples, key, base, "cpu_per_batch"), limit)
        for judge, what, key, base, limit in wanted
        if {key, base} <= samples.keys()
    ]


def _title(options: argparse.Namespace) -> str:
    latency = f" after {options.latency:g} ms" if options.latency else ""
    loop = "; asyncio on uvloop" if options.uvloop else ""
    return (
        f"{options.facts:,} facts in {options.facts // BATCH:,} calls of {BATCH} to a canned server, which "
        f"answers{latency} with {ANSWER_SIZE / 1000:.0f} KB{loop}. {medians_of(options.rounds)}"
    )


def _row(key: str, samples: Samples, concurrency: int) -> list[str]:
    own = samples[key]
    rate = spread(sample["facts_per_second"] for sample in own)
    cpu = spread(sample["cpu_per_batch"] * 1e6 for sample in own)
    ratio = f"{ratios(samples, key, BASE, 'cpu_per_batch'):.2f}" if BASE in samples else "-"
    return [
        CONTESTANTS[key].title,
        str(concurrency if CONTESTANTS[key].parallel else 1),
        f"{rate.median:,.0f}",
        f"{cpu.median:,.0f} µs",
        ratio,
    ]
