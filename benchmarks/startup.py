"""CPU of starting: the library beside its four dependencies, and `omi-async --help`.

`import omi_async` loads nothing until a name is asked for; so what a program pays is that of `Session`.
User and system time of a whole interpreter, from a byte code cache that is warm for all of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from functools import partial

from benchmarks.running import (
    Report,
    Sample,
    Samples,
    at_most,
    clean_environment,
    cpu_seconds,
    interleaved,
    machine,
    medians_of,
    ratios,
    spread,
)

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 15
QUICK: tuple[str, ...] = ()
DEPENDENCIES = "import aiohttp, attrs, backoff, cattrs"
LIBRARY = "from omi_async import Session"
LAZY = "import omi_async"
HELP = "omi-async --help"
COMMANDS = {
    "an empty program": ("-c", ""),
    DEPENDENCIES: ("-c", DEPENDENCIES),
    LIBRARY: ("-c", LIBRARY),
    LAZY: ("-c", LAZY),
    HELP: ("-m", "omi_async", "--help"),
}
EMPTY = next(iter(COMMANDS))


def add_options(_parser: argparse.ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def measure(arguments: tuple[str, ...], cache: str) -> Sample:
    """Run an interpreter and return its CPU seconds."""
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = cpu_seconds(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True, cwd=os.curdir
    )
    return {"cpu": cpu_seconds(resource.RUSAGE_CHILDREN) - before}


def run(options: argparse.Namespace) -> Report:
    """Start each once to fill the cache, then measure."""
    about = machine(("omi-async", "aiohttp", "attrs", "backoff", "cattrs"))
    with tempfile.TemporaryDirectory() as cache:
        measures = {name: partial(measure, arguments, cache) for name, arguments in COMMANDS.items()}
        interleaved(1, measures)
        samples = _above_empty(interleaved(options.rounds, measures))
    return Report(
        title=f"CPU of starting. {medians_of(options.rounds)}",
        columns=["program", "CPU", "above an empty one", "above, against the four dependencies"],
        rows=[_row(name, samples) for name in COMMANDS],
        notes=[about],
        samples=samples,
        goals=[
            at_most(
                f"CPU of `{LIBRARY}`, times its four dependencies",
                ratios(samples, LIBRARY, DEPENDENCIES, "above"),
                1.25,
            ),
            at_most(
                f"CPU of `{HELP}`",
                spread(sample["cpu"] * 1e3 for sample in samples[HELP]),
                250,
                "{:.0f} ms",
            ),
        ],
    )


def _above_empty(samples: Samples) -> Samples:
    """Add to each sample what it took more than the empty program of its round."""
    return {
        name: [
            {**sample, "above": sample["cpu"] - empty["cpu"]}
            for sample, empty in zip(samples[name], samples[EMPTY], strict=True)
        ]
        for name in samples
    }


def _row(name: str, samples: Samples) -> list[str]:
    title = name if name == EMPTY else f"`{name}`"
    cpu = f"{spread(sample['cpu'] * 1e3 for sample in samples[name]).median:.0f} ms"
    if name == EMPTY:
        return [title, cpu, "-", "-"]
    above = spread(sample["above"] * 1e3 for sample in samples[name])
    ratio = ratios(samples, name, DEPENDENCIES, "above")
    return [title, cpu, f"{above.median:.0f} ms", f"{ratio:.2f}"]
