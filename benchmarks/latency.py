"""Batches a second when waiting is all: 50 ms for each answer, 16 calls at once.

The ideal is calls at once / latency. A client falls short of it by the time that it spends between an answer
and the next call. The loop of the service's documentation makes one call at a time; it sends a sixteenth.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.canned import serving
from benchmarks.contestants import CONTESTANTS, measure
from benchmarks.facts import BATCH, whole_batches
from benchmarks.running import (
    Goal,
    Report,
    Samples,
    Spread,
    at_least,
    fresh,
    interleaved,
    machine,
    medians_of,
    positive,
    ratios,
    spread,
)

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 3
QUICK: tuple[str, ...] = ("--facts", "50", "--concurrency", "2", "--latency", "5")
KEYS = ("import_facts", "import_facts_stdlib", "aiohttp_bare", "aiohttp", "requests_post")
OURS = "import_facts"
LOOP = "requests_post"
BARE = "aiohttp_bare"
AIMED_AT = (50.0, 16)
"""Milliseconds and calls at once, of which the targets speak."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size, the latency and the concurrency."""
    parser.add_argument("--facts", type=whole_batches, default=40_000, help="facts to send (%(default)s)")
    parser.add_argument("--latency", type=float, default=50.0, metavar="MS", help="(%(default)s)")
    parser.add_argument(
        "--concurrency", type=positive, default=16, help="calls on the wire at once (%(default)s)"
    )


def run(options: argparse.Namespace) -> Report:
    """Measure, interleaved."""
    keys = [key for key in KEYS if CONTESTANTS[key].installed]
    about = machine(("omi-async", "aiohttp", "orjson", "requests"))
    with serving(options.latency / 1000) as url:
        measures = {
            key: partial(fresh, measure, key, url, _share(key, options), options.concurrency) for key in keys
        }
        samples = interleaved(options.rounds, measures)
    missing = [CONTESTANTS[key].title for key in KEYS if key not in keys]
    return Report(
        title=(
            f"{options.facts:,} facts, {BATCH} a call, to a canned server that answers after "
            f"{options.latency:g} ms. {medians_of(options.rounds)}"
        ),
        columns=[
            "client",
            "calls at once",
            "batches a second",
            "of the ideal",
            "of the bare aiohttp loop",
            "times the documentation's loop",
        ],
        rows=[_row(key, samples, options) for key in keys],
        notes=[about, *(f"Not installed here: {title}." for title in missing)],
        samples=samples,
        goals=_goals(samples, options) if (options.latency, options.concurrency) == AIMED_AT else [],
    )


def _goals(samples: Samples, options: argparse.Namespace) -> list[Goal]:
    share = _share_of_ideal(OURS, samples, options)
    of_bare = ratios(samples, OURS, BARE, "batches_per_second")
    goals = [
        Goal(
            f"batches a second at {options.latency:g} ms and {options.concurrency} at once",
            "at least 95 % of the ideal, or 98 % of the bare aiohttp loop",
            f"{share.median:.1%}, {of_bare.median:.1%}",
            share.median >= 0.95 or of_bare.median >= 0.98,
        )
    ]
    if LOOP in samples:
        times_loop = ratios(samples, OURS, LOOP, "batches_per_second")
        goals.append(at_least("the same, times the documentation's loop", times_loop, 15, "{:.1f}"))
    return goals


def _calls_at_once(key: str, options: argparse.Namespace) -> int:
    concurrency: int = options.concurrency
    return concurrency if CONTESTANTS[key].parallel else 1


def _share(key: str, options: argparse.Namespace) -> int:
    """Return the facts that a contestant sends: as many as all can in about the same time."""
    share: int = options.facts * _calls_at_once(key, options) // options.concurrency
    return max(share // BATCH, 1) * BATCH


def _share_of_ideal(key: str, samples: Samples, options: argparse.Namespace) -> Spread:
    rate = spread(sample["batches_per_second"] for sample in samples[key])
    return rate.times(options.latency / 1000 / _calls_at_once(key, options))


def _row(key: str, samples: Samples, options: argparse.Namespace) -> list[str]:
    at_once = _calls_at_once(key, options)
    rate = spread(sample["batches_per_second"] for sample in samples[key])
    share = _share_of_ideal(key, samples, options)
    of_bare = ratios(samples, key, BARE, "batches_per_second")
    times_loop = f"{ratios(samples, key, LOOP, 'batches_per_second').median:.1f}" if LOOP in samples else "-"
    return [
        CONTESTANTS[key].title,
        str(at_once),
        f"{rate.median:.1f}",
        f"{share:.1%}",
        f"{of_bare.median:.1%}",
        times_loop,
    ]
