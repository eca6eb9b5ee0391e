"""``python -m benchmarks MEASURE``: measure, and print the table."""

from __future__ import annotations

import argparse
import sys

from benchmarks import latency, memory, sources, startup, throughput
from benchmarks.running import Measure, positive

MEASURES: dict[str, Measure] = {
    "throughput": throughput,
    "latency": latency,
    "memory": memory,
    "startup": startup,
    "sources": sources,
}


def main() -> None:
    """Read the command line, measure, print."""
    options = _parser().parse_args()
    report = MEASURES[options.measure].run(options)
    print(report.json(options) if options.json else report.markdown())


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
    return parser


if __name__ == "__main__":
    main()
