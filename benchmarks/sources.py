"""Facts a second from a file: JSON lines and CSV through `open_facts`, and read to dicts by hand.

`open_facts` reads in a thread, checks each record as the server would, and hands facts to the event loop. By
hand there is no thread, no check and no place for an error: each line through json.loads, each row of a
csv.DictReader.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benchmarks.facts import make_facts, whole_batches
from benchmarks.running import (
    Meter,
    Report,
    Sample,
    Samples,
    at_least,
    fresh,
    interleaved,
    machine,
    medians_of,
    ratios,
    spread,
)
from omi_async import Fact
from omi_async.sources import open_facts

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 5
QUICK: tuple[str, ...] = ("--facts", "50")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the size."""
    parser.add_argument("--facts", type=whole_batches, default=200_000, help="facts in a file (%(default)s)")


def read(path: str) -> int:
    """Read a file as the library does, and count the facts."""
    return asyncio.run(_read(path))


async def _read(path: str) -> int:
    async with open_facts(path) as facts:
        count = 0
        async for fact in facts:
            count += isinstance(fact, Fact)
        return count


def read_lines(path: str) -> int:
    """Read JSON lines by hand."""
    with Path(path).open(encoding="utf-8") as file:
        return sum(1 for line in file if json.loads(line)["content"])


def read_rows(path: str) -> int:
    """Read CSV by hand."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return sum(1 for row in csv.DictReader(file) if row["content"])


READERS: dict[str, tuple[Callable[[str], int], str, str]] = {
    "open_facts jsonl": (read, "facts.jsonl", "**`open_facts`**, JSON lines"),
    "by hand jsonl": (read_lines, "facts.jsonl", "json.loads for each line"),
    "open_facts csv": (read, "facts.csv", "**`open_facts`**, CSV"),
    "by hand csv": (read_rows, "facts.csv", "csv.DictReader"),
}
"""The function, the file, and the row's title; what is by hand goes by the last word of its key."""


def measure(key: str, folder: str) -> Sample:
    """Read a file once to warm up and once to measure; called in a fresh process."""
    function, name, _ = READERS[key]
    function(str(Path(folder, "warm_up", name)))
    with Meter() as meter:
        facts = function(str(Path(folder, name)))
    return {"facts": facts, "facts_per_second": facts / meter.wall, "cpu_per_fact": meter.cpu / facts}


def run(options: argparse.Namespace) -> Report:
    """Write the files and read them."""
    about = machine(("omi-async", "orjson"))
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), options.facts)
        _write(Path(folder, "warm_up"), 1_000)
        measures = {key: partial(fresh, measure, key, folder) for key in READERS}
        samples = interleaved(options.rounds, measures)
    for key, own in samples.items():
        if any(sample["facts"] != options.facts for sample in own):
            raise RuntimeError(f"{key}: {own[0]['facts']} of {options.facts} facts were read")
    return Report(
        title=f"{options.facts:,} facts from a file. {medians_of(options.rounds)}",
        columns=["reader", "facts a second", "CPU a fact", "CPU against by hand"],
        rows=[_row(key, samples) for key in READERS],
        notes=[about],
        samples=samples,
        goals=[
            at_least(
                "facts a second from JSON lines, read and checked",
                spread(sample["facts_per_second"] for sample in samples["open_facts jsonl"]),
                100_000,
                "{:,.0f}",
            )
        ],
    )


def _write(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    with Path(folder, "facts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(fact, ensure_ascii=False) + "\n" for fact in make_facts(count))
    with Path(folder, "facts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["content", "category", "tags"])
        rows.writerows(_cells(make_facts(count)))


def _cells(facts: Iterable[dict[str, object]]) -> Iterable[list[object]]:
    return ([fact["content"], fact["category"], json.dumps(fact["tags"])] for fact in facts)


def _row(key: str, samples: Samples) -> list[str]:
    rate = spread(sample["facts_per_second"] for sample in samples[key])
    cpu = spread(sample["cpu_per_fact"] * 1e6 for sample in samples[key])
    by_hand = f"by hand {key.rpartition(' ')[2]}"
    return [
        READERS[key][2],
        f"{rate.median:,.0f}",
        f"{cpu.median:.1f} µs",
        f"{ratios(samples, key, by_hand, 'cpu_per_fact'):.2f}",
    ]
