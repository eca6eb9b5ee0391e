"""``python -m benchmarks MEASURE``: measure, and print the table; ``all``: every target with its verdict."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import (
    counts,
    journal,
    latency,
    listing,
    loop,
    memory,
    quotas,
    sources,
    startup,
    throughput,
    workers,
)
from benchmarks.running import Goal, Measure, positive, verdicts

MEASURES: dict[str, Measure] = {
    "throughput": throughput,
    "latency": latency,
    "memory": memory,
    "journal": journal,
    "startup": startup,
    "listing": listing,
    "sources": sources,
    "loop": loop,
    "counts": counts,
    "quotas": quotas,
    "workers": workers,
}


def main() -> None:
    """Read the command line, measure, print."""
    options = _parser().parse_args()
    if options.measure == "all":
        _run_all(options)
        return
    report = MEASURES[options.measure].run(options)
    print(report.json(options) if options.json else report.markdown())


def _run_all(options: argparse.Namespace) -> None:
    """Run the measures one after the other; print the table of each, and all targets at the end."""
    goals: list[Goal] = []
    for name, measure in MEASURES.items():
        if name in (options.only or MEASURES):
            report = measure.run(_options_of(name, options))
            print(f"## {name}", report._replace(goals=()).markdown(), "", sep="\n\n", flush=True)
            goals.extend(report.goals)
    print("## targets", verdicts(goals), sep="\n\n")


def _options_of(name: str, options: argparse.Namespace) -> argparse.Namespace:
    quick: Sequence[str] = (*MEASURES[name].QUICK, "--rounds", "1") if options.quick else ()
    rounds = ("--rounds", str(options.rounds)) if options.rounds else ()
    return _parser().parse_args([name, *quick, *rounds])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What omi_async costs, beside its peers. Each measurement prints a Markdown table.",
    )
    measures = parser.add_subparsers(dest="measure", required=True, metavar="MEASURE")
    for name, measure in MEASURES.items():
        about = sys.modules[f"benchmarks.{name}"].__doc__ or ""
        command = measures.add_parser(
            name,
            help=about.partition("\n")[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument(
            "--rounds",
            type=positive,
            default=measure.ROUNDS,
            help="times that each is measured (%(default)s)",
        )
        command.add_argument("--json", action="store_true", help="print every sample as JSON instead")
        measure.add_options(command)
    everything = measures.add_parser("all", help="All of them, and every target with its verdict.")
    everything.add_argument("--rounds", type=positive, help="times that each is measured (its own default)")
    everything.add_argument("--only", nargs="+", choices=MEASURES, metavar="MEASURE", help="only these")
    everything.add_argument("--quick", action="store_true", help="see that all run; the figures mean nothing")
    return parser


if __name__ == "__main__":
    main()
