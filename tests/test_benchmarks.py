"""The benchmarks run, and their tables have every row. Nothing here looks at the figures."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import latency, memory, sources, startup
from benchmarks.__main__ import MEASURES
from benchmarks.contestants import CONTESTANTS
from benchmarks.running import Report, Sample, interleaved, ratios, spread

ROOT = Path(__file__).parent.parent
TINY = {
    "throughput": ["--facts", "50", "--concurrency", "2"],
    "latency": ["--facts", "50", "--concurrency", "2", "--latency", "5"],
    "memory": ["--small", "50", "--large", "100"],
    "startup": [],
    "sources": ["--facts", "50"],
}
TITLES = {
    "throughput": [contestant.title for contestant in CONTESTANTS.values()],
    "latency": [CONTESTANTS[key].title for key in latency.KEYS],
    "memory": [f"`{variant}`" for variant in memory.VARIANTS],
    "startup": list(startup.COMMANDS),
    "sources": [title for _, _, title in sources.READERS.values()],
}


def benchmark(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "default::ResourceWarning"}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("measure", MEASURES)
def test_prints_a_table_with_every_contestant(measure):
    printed = benchmark(measure, "--rounds", "1", *TINY[measure])

    for title in TITLES[measure]:
        assert title in printed  # as a row, or in the note that it is not installed
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) >= 4
    assert len({row.count("|") for row in rows}) == 1
    assert "CPython" in printed or "PyPy" in printed


def test_prints_every_sample_as_json():
    only = ["--only", "aiohttp", "import_facts_stdlib"]
    document = json.loads(benchmark("throughput", "--rounds", "2", "--json", *only, *TINY["throughput"]))

    assert document["measure"] == "throughput"
    assert document["options"]["facts"] == 50
    assert set(document["samples"]) == {"aiohttp", "import_facts_stdlib"}
    for rounds in document["samples"].values():
        assert [set(sample) for sample in rounds] == [
            {"facts_per_second", "batches_per_second", "cpu_per_batch"}
        ] * 2


def test_help_says_what_each_measures():
    printed = " ".join(benchmark("--help").split())

    for name in MEASURES:
        about = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
        assert about.partition("\n")[0] in printed


def test_a_size_of_nothing_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "throughput", "--facts", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "must be at least 1" in done.stderr


def test_rounds_are_interleaved():
    taken: list[str] = []

    def measure(name: str) -> Sample:
        taken.append(name)
        return {"figure": len(taken)}

    samples = interleaved(2, {"a": lambda: measure("a"), "b": lambda: measure("b")})

    assert taken == ["a", "b", "a", "b"]
    assert samples == {"a": [{"figure": 1}, {"figure": 3}], "b": [{"figure": 2}, {"figure": 4}]}


def test_ratios_are_taken_within_a_round():
    samples = {
        "slow": [{"cpu": 2.0}, {"cpu": 30.0}, {"cpu": 8.0}],
        "fast": [{"cpu": 1.0}, {"cpu": 10.0}, {"cpu": 2.0}],
    }

    assert ratios(samples, "slow", "fast", "cpu") == (3.0, 2.0, 4.0)
    assert f"{spread([2.0, 1.0, 9.0]):.1f}" == "2.0 (1.0 to 9.0)"
    assert f"{spread([2.0]):.1f}" == "2.0"


def test_a_table_is_aligned_markdown():
    report = Report("title", ["client", "rate"], [["a", "1"], ["longer", "1,000"]], ["note"], {})

    assert report.markdown() == (
        "title\n\n| client |  rate |\n| ------ | ----: |\n| a      |     1 |\n| longer | 1,000 |\n\nnote"
    )
