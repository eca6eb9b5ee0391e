"""Fresh processes, interleaved rounds, medians, and the tables that are printed."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar

__all__ = [
    "Goal",
    "Measure",
    "Meter",
    "Report",
    "Sample",
    "Samples",
    "Spread",
    "at_least",
    "at_most",
    "clean_environment",
    "fresh",
    "interleaved",
    "machine",
    "medians_of",
    "positive",
    "ratios",
    "spread",
    "table",
    "verdicts",
]

P = ParamSpec("P")
R = TypeVar("R")

Sample = dict[str, float]
"""What one process measured, by name."""

Samples = dict[str, list[Sample]]
"""What each contestant measured, a sample a round."""


class Measure(Protocol):
    """What a module with a measurement offers; its docstring is the help."""

    ROUNDS: int
    QUICK: tuple[str, ...]
    """Arguments to see quickly that it runs; its figures then mean nothing."""

    def add_options(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the options that only this measurement has."""
        ...

    def run(self, options: argparse.Namespace, /) -> Report:
        """Measure."""
        ...


def positive(text: str) -> int:
    """Read a whole number above 0 from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


# In the process that measures


class Meter:
    """Wall clock and CPU seconds of this process, all its threads, between entering and leaving."""

    def __enter__(self) -> Self:
        gc.collect()
        self._wall = time.perf_counter()
        self._cpu = cpu_seconds(resource.RUSAGE_SELF)
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu = cpu_seconds(resource.RUSAGE_SELF) - self._cpu
        self.wall = time.perf_counter() - self._wall


def cpu_seconds(who: int) -> float:
    """Return user and system CPU seconds so far."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


# Around it


def clean_environment() -> dict[str, str]:
    """Return the environment without proxies, which would stand between client and server."""
    return {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}


def fresh(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module's function in a fresh Python process; arguments and result travel as JSON."""
    place = f"{function.__module__}:{function.__qualname__}"
    command = [sys.executable, "-m", "benchmarks.running", place, json.dumps([args, kwargs])]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=clean_environment(), check=True)
    result: R = json.loads(done.stdout)
    return result


def interleaved(rounds: int, measures: Mapping[str, Callable[[], Sample]]) -> Samples:
    """Take each measure once a round, so that what else the machine does falls upon all alike."""
    samples: Samples = {name: [] for name in measures}
    for number in range(1, rounds + 1):
        for name, measure in measures.items():
            if sys.stderr.isatty():
                print(f"\r\033[Kround {number} of {rounds}: {name}", end="\r", file=sys.stderr)
            samples[name].append(measure())
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return samples


class Spread(NamedTuple):
    """The median of some rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if self.low == self.high:
            return format(self.median, spec)
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"

    def times(self, factor: float) -> Spread:
        """Return it in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def medians_of(rounds: int) -> str:
    """Return how the figures of a table came about."""
    if rounds == 1:
        return "One round, each figure from a fresh process."
    return (
        f"Medians (lowest to highest) of {rounds} interleaved rounds of fresh processes; ratios are taken "
        f"within a round."
    )


def spread(values: Iterable[float]) -> Spread:
    """Summarise the figures of all rounds."""
    figures = list(values)
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratios(samples: Samples, name: str, base: str, figure: str) -> Spread:
    """Compare a contestant with another one, round by round."""
    pairs = zip(samples[name], samples[base], strict=True)
    return spread(own[figure] / other[figure] for own, other in pairs)


def machine(packages: Iterable[str]) -> str:
    """Describe what the figures were taken on, and with which versions."""
    versions = [f"{package} {version}" for package in packages if (version := _version(package))]
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, "
        f"{platform.system()} {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}, {', '.join(versions)}."
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class Goal(NamedTuple):
    """What is aimed at, and what came out."""

    what: str
    wanted: str
    measured: str
    met: bool

    @property
    def row(self) -> list[str]:
        """Return it as a row of a table."""
        return [self.what, self.wanted, self.measured, "met" if self.met else "MISSED"]


def at_most(what: str, measured: Spread, limit: float, form: str = "{:.2f}") -> Goal:
    """Judge the median of what should be small."""
    return Goal(what, f"at most {form.format(limit)}", form.format(measured), measured.median <= limit)


def at_least(what: str, measured: Spread, limit: float, form: str = "{:.2f}") -> Goal:
    """Judge the median of what should be large."""
    return Goal(what, f"at least {form.format(limit)}", form.format(measured), measured.median >= limit)


class Report(NamedTuple):
    """A table with what must be known to read it, the verdicts, and the samples behind it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    samples: Samples
    goals: Sequence[Goal] = ()

    def markdown(self) -> str:
        """Return it to be quoted: the title, the table, the verdicts, the notes."""
        goals = [verdicts(self.goals), ""] if self.goals else []
        return "\n".join([self.title, "", table(self.columns, self.rows), "", *goals, *self.notes])

    def json(self, options: argparse.Namespace) -> str:
        """Return it for a machine, with every sample."""
        document: dict[str, Any] = {
            "measure": options.measure,
            "title": self.title,
            "options": {name: value for name, value in vars(options).items() if name != "measure"},
            "notes": self.notes,
            "targets": [goal._asdict() for goal in self.goals],
            "samples": self.samples,
        }
        return json.dumps(document, indent=2)


def verdicts(goals: Iterable[Goal]) -> str:
    """Return the table of targets."""
    return table(["target", "wanted", "measured", "verdict"], [goal.row for goal in goals])


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, aligned."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (columns, rule, *rows))


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def _main(place: str, arguments: str) -> None:
    """Call the function that `fresh` was asked for."""
    module, _, name = place.partition(":")
    args, kwargs = json.loads(arguments)
    print(json.dumps(getattr(importlib.import_module(module), name)(*args, **kwargs)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
