"""How long imports take under quotas, and how many calls are refused, beside the ideal.

Simulated: on a virtual clock, over real HTTP, against the stand-in server, which counts in fixed windows as
the service does. The ideal is computed: every window is spent at the moment at which it opens, by calls that
take no time. `import_facts` and the naive client know nothing beforehand. The naive client waits for
Retry-After, but 60 seconds at most, as known ones do; unlike those it never gives up. The two pacers are told
the quota, and wait for the whole of Retry-After when they are refused nevertheless. Exits with 1 if a
target is missed.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.quota_simulation import (
    CONCURRENCY,
    JITTER,
    POLICIES,
    STRATEGIES,
    TRIP,
    Outcome,
    Policy,
    ideal,
    simulate,
)
from benchmarks.running import Goal, Report, Sample, Samples, Spread, at_most, machine, spread
from omi_async.local import Quota

__all__ = ["QUICK", "ROUNDS", "add_options", "measure", "report", "run"]

ROUNDS = 1
QUICK: tuple[str, ...] = ("--quick", "--only", "hour15")
PLOTTED = "hour15"
OURS = "import_facts"
AT_ONCE = 2 * (os.cpu_count() or 1)
"""Processes; each of them waits for its sockets half of the time."""

PACKAGES = ("omi-async", "aiohttp", "aiolimiter")

Job = tuple[str, str, int, float]
"""What `simulate` is asked for."""

Outcomes = dict[tuple[str, str], list[Outcome]]
"""By policy and strategy, one for each round."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of policies, the jitter, the plot."""
    parser.add_argument("--only", nargs="+", choices=POLICIES, metavar="POLICY", help=", ".join(POLICIES))
    parser.add_argument("--quick", action="store_true", help="fewer calls, still in several windows")
    parser.add_argument(
        "--jitter",
        type=float,
        default=JITTER * 1e3,
        metavar="MS",
        help=f"by which a trip of {TRIP * 1e3:g} ms is longer or shorter at most (%(default)g)",
    )
    parser.add_argument("--plot", metavar="SVG", help=f"draw the calls of {PLOTTED} over time")


def run(options: argparse.Namespace) -> Report:
    """Simulate in some processes, and draw; ends the program with 1 if a target is missed."""
    about = machine(PACKAGES)
    policies = [key for key in POLICIES if options.only is None or key in options.only]
    if options.plot is not None and PLOTTED not in policies:
        raise SystemExit(f"nothing to draw: --only leaves {PLOTTED} out")
    settings = {"quick": options.quick, "jitter": options.jitter / 1e3}
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        spread_out = partial(pool.map, _simulate)
        outcomes = measure(policies, spread_out, rounds=options.rounds, **settings)
    done = report(outcomes, notes=[about], **settings)
    if options.plot is not None:
        _plot(Path(options.plot), outcomes)
    if any(not goal.met for goal in done.goals) and sys.argv[1:2] != ["all"]:
        print(done.json(options) if options.json else done.markdown())
        raise SystemExit(1)
    return done


def _simulate(job: Job) -> Outcome:
    logging.getLogger("omi_async").addHandler(logging.NullHandler())  # else stderr gets a line for each 429
    return simulate(*job)


def measure(
    policies: Iterable[str],
    simulate_all: Callable[[Sequence[Job]], Iterable[Outcome]],
    *,
    strategies: Iterable[str] = STRATEGIES,
    quick: bool = False,
    jitter: float = JITTER,
    rounds: int = 1,
) -> Outcomes:
    """Simulate these strategies, as far as they are installed, under these policies."""
    strategies = [key for key in strategies if find_spec(STRATEGIES[key].needs) is not None]
    jobs = [
        (policy, strategy, _calls(POLICIES[policy], quick=quick), jitter)
        for policy in reversed(list(policies))  # those that take longest are the last ones
        for strategy in strategies
    ] * rounds
    outcomes: Outcomes = {}
    for (policy, strategy, *_), outcome in zip(jobs, simulate_all(jobs), strict=True):
        outcomes.setdefault((policy, strategy), []).append(outcome)
    return outcomes


def _calls(policy: Policy, *, quick: bool) -> int:
    return policy.few if quick else policy.calls


def _plot(path: Path, outcomes: Outcomes) -> None:
    from benchmarks.quota_plot import draw  # noqa: PLC0415 - only here is matplotlib needed

    policy = POLICIES[PLOTTED]
    drawn = {
        STRATEGIES[strategy].title: rounds[0] for (of, strategy), rounds in outcomes.items() if of == PLOTTED
    }
    draw(path, policy.quotas[0], drawn)


# The table


def report(
    outcomes: Outcomes, *, quick: bool = False, jitter: float = JITTER, notes: Sequence[str] = ()
) -> Report:
    """Compare the outcomes with the ideal."""
    samples: Samples = {}
    rows = []
    for key, policy in POLICIES.items():
        strategies = [strategy for of, strategy in outcomes if of == key]
        if not strategies:
            continue
        best = ideal(policy.quotas, _calls(policy, quick=quick))
        hours = best["seconds"] >= 3600
        title = f"{policy.title}: {len(best['calls'])} calls"
        rows.append(_row(title, "ideal", [_sample(policy, best, best)], hours=hours))
        for strategy in (strategy for strategy in STRATEGIES if strategy in strategies):
            rounds = [_sample(policy, outcome, best) for outcome in outcomes[key, strategy]]
            samples[f"{key} {strategy}"] = rounds
            rows.append(_row("", STRATEGIES[strategy].title, rounds, hours=hours))
    missing = [strategy.title for strategy in STRATEGIES.values() if find_spec(strategy.needs) is None]
    return Report(
        title=(
            f"Batches of 25 facts, at most {CONCURRENCY} calls on the wire, each {TRIP * 1e3:g} ms "
            f"(± {jitter * 1e3:g}) to the server, as much back. Simulated: a virtual clock, real HTTP."
        ),
        columns=[
            "quota",
            "strategy",
            "done after",
            "of the ideal",
            "refused (429)",
            "most calls in a window",
        ],
        rows=rows,
        notes=[*notes, *(f"Not installed here: {title}." for title in missing)],
        samples=samples,
        goals=_goals(samples),
    )


def _sample(policy: Policy, outcome: Outcome, best: Outcome) -> Sample:
    """Count, as the server did."""
    fullest = max((_fullest(quota, outcome) for quota in policy.quotas), key=lambda pair: pair[0] / pair[1])
    refused = [moment for moment, refused in outcome["calls"] if refused]
    learned = refused[0] + min(quota.window for quota in policy.quotas) if refused else 0.0
    return {
        "seconds": outcome["seconds"],
        "ratio": outcome["seconds"] / best["seconds"],
        "refused": len(refused),
        "refused later": sum(moment >= learned for moment in refused),
        "fullest window": fullest[0],
        "its limit": fullest[1],
    }


def _fullest(quota: Quota, outcome: Outcome) -> tuple[int, int]:
    """Return the calls in the fullest window, and how many it allowed."""
    fullest = calls = 0
    ends = 0.0
    for moment, _ in outcome["calls"]:
        if not calls or moment >= ends:
            ends, calls = moment + quota.window, 0
        calls += 1
        fullest = max(fullest, calls)
    return fullest, quota.limit


def _row(policy: str, strategy: str, rounds: list[Sample], *, hours: bool) -> list[str]:
    def figure(name: str) -> Spread:
        return spread(sample[name] for sample in rounds)

    seconds = figure("seconds")
    return [
        policy,
        strategy,
        f"{seconds.times(1 / 3600):.2f} h" if hours else f"{seconds:,.1f} s",
        f"{figure('ratio'):.3f}",
        f"{figure('refused'):,.0f}",
        f"{figure('fullest window'):,.0f} of {rounds[0]['its limit']:,.0f}",
    ]


def _goals(samples: Mapping[str, list[Sample]]) -> list[Goal]:
    """Judge `import_facts` by the policy under which it did worst."""
    ours = [sample for name, rounds in samples.items() if name.endswith(f" {OURS}") for sample in rounds]
    if not ours:
        return []
    worst = {name: spread([max(sample[name] for sample in ours)]) for name in ours[0]}
    return [
        at_most("time of `import_facts`, times the ideal; the worst quota", worst["ratio"], 1.02, "{:.3f}"),
        at_most("refused calls under one quota, in all", worst["refused"], CONCURRENCY, "{:.0f}"),
        at_most("refused calls after its first window", worst["refused later"], 0, "{:.0f}"),
    ]
