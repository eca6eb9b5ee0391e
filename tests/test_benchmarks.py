"""The benchmarks run, and their tables have every row. Nothing here looks at the figures."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import counts, journal, latency, listing, loop, memory, sources, startup, workers
from benchmarks.__main__ import MEASURES
from benchmarks.contestants import CONTESTANTS
from benchmarks.running import Goal, Report, Sample, at_least, at_most, interleaved, ratios, spread

ROOT = Path(__file__).parent.parent
TITLES = {
    "throughput": [contestant.title for contestant in CONTESTANTS.values()],
    "latency": [CONTESTANTS[key].title for key in latency.KEYS],
    "memory": [f"`{variant}`" for variant in memory.VARIANTS],
    "startup": list(startup.COMMANDS),
    "sources": [title for _, _, title in sources.READERS.values()],
    "listing": [title for _, title in listing.READERS.values()],
    "journal": [*journal.VARIANTS.values()],
    "loop": [*loop.TITLES.values()],
    "workers": [*workers.VARIANTS.values(), "1 worker", "4 workers"],
    "counts": [title for _, title in counts.WAYS.values()],
}


def benchmark(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "default::ResourceWarning"}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def tables(printed: str) -> list[list[str]]:
    """The rows of each Markdown table."""
    found: list[list[str]] = []
    previous = ""
    for line in printed.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                found.append([])
            found[-1].append(line)
        previous = line
    return found


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES)
def test_prints_a_table_with_every_contestant(measure: str) -> None:
    printed = benchmark(measure, "--rounds", "1", *MEASURES[measure].QUICK)

    for title in TITLES.get(measure, []):
        assert title in printed  # as a row, or in the note that it is not installed
    rows, *verdicts = tables(printed)
    assert len(rows) >= 4
    for table in (rows, *verdicts):
        assert len({row.count("|") for row in table}) == 1
    assert "CPython" in printed or "PyPy" in printed


@pytest.mark.slow
def test_all_prints_the_targets_of_each() -> None:
    printed = benchmark("all", "--quick", "--only", "startup", "counts")

    *rows, targets = tables(printed)
    assert len(rows) == 2
    assert "## startup" in printed
    assert "## counts" in printed
    assert [target for target in targets if "omi-async --help" in target and "250 ms" in target]


@pytest.mark.slow
def test_prints_every_sample_as_json() -> None:
    only = ["--only", "aiohttp", "import_facts_stdlib"]
    quick = MEASURES["throughput"].QUICK
    document = json.loads(benchmark("throughput", "--rounds", "2", "--json", *only, *quick))

    assert document["measure"] == "throughput"
    assert document["options"]["facts"] == 50
    assert set(document["samples"]) == {"aiohttp", "import_facts_stdlib"}
    for rounds in document["samples"].values():
        assert [set(sample) for sample in rounds] == [
            {"facts_per_second", "batches_per_second", "cpu_per_batch"}
        ] * 2
    [target] = document["targets"]
    assert target["wanted"] == "at most 1.60"


@pytest.mark.slow
def test_the_plot_is_the_same_each_time_and_small(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="it is of the extra bench")
    samples = {key: [{"cpu_per_batch": 1e-3 + 1e-5 * len(key)}] for key in CONTESTANTS}
    document = tmp_path / "throughput.json"
    document.write_text(json.dumps({"samples": samples}))
    drawings = []
    for name in ("one.svg", "two.svg"):
        command = [sys.executable, "-m", "benchmarks.plot", str(document), str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        drawings.append((tmp_path / name).read_text())

    assert drawings[0] == drawings[1]
    assert "<dc:date>" not in drawings[0]
    assert len(drawings[0]) < 60_000
    assert "omi_async, import_facts, without orjson" in drawings[0]


@pytest.mark.slow
def test_help_says_what_each_measures() -> None:
    printed = " ".join(benchmark("--help").split())

    for name in MEASURES:
        about = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
        assert about.partition("\n")[0] in printed


def test_a_size_of_nothing_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "throughput", "--facts", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "must be at least 1" in done.stderr


def test_rounds_are_interleaved() -> None:
    taken: list[str] = []

    def measure(name: str) -> Sample:
        taken.append(name)
        return {"figure": len(taken)}

    samples = interleaved(2, {"a": lambda: measure("a"), "b": lambda: measure("b")})

    assert taken == ["a", "b", "a", "b"]
    assert samples == {"a": [{"figure": 1}, {"figure": 3}], "b": [{"figure": 2}, {"figure": 4}]}


def test_ratios_are_taken_within_a_round() -> None:
    samples = {
        "slow": [{"cpu": 2.0}, {"cpu": 30.0}, {"cpu": 8.0}],
        "fast": [{"cpu": 1.0}, {"cpu": 10.0}, {"cpu": 2.0}],
    }

    assert ratios(samples, "slow", "fast", "cpu") == (3.0, 2.0, 4.0)
    assert f"{spread([2.0, 1.0, 9.0]):.1f}" == "2.0 (1.0 to 9.0)"
    assert f"{spread([2.0]):.1f}" == "2.0"


def test_a_target_is_judged_by_its_median() -> None:
    measured = spread([1.0, 1.2, 9.0])

    assert at_most("CPU", measured, 1.25) == Goal("CPU", "at most 1.25", "1.20 (1.00 to 9.00)", met=True)
    assert not at_most("CPU", measured, 1.1).met
    assert at_least("facts", measured, 1.2, "{:.1f}").row == [
        "facts",
        "at least 1.2",
        "1.2 (1.0 to 9.0)",
        "met",
    ]
    assert at_least("facts", measured, 2).row[-1] == "MISSED"


def test_a_size_is_read_in_units() -> None:
    assert [loop.size_in_bytes(text) for text in ("1GB", "0.5 MB", "20kB", "7")] == [
        10**9,
        500_000,
        20_000,
        7,
    ]
    with pytest.raises(argparse.ArgumentTypeError, match="100MB"):
        loop.size_in_bytes("big")


def test_a_table_is_aligned_markdown() -> None:
    report = Report("title", ["client", "rate"], [["a", "1"], ["longer", "1,000"]], ["note"], {})

    assert report.markdown() == (
        "title\n\n| client |  rate |\n| ------ | ----: |\n| a      |     1 |\n| longer | 1,000 |\n\nnote"
    )
