"""The simulation of quotas runs, and `import_facts` keeps its targets there: the ideal time, one lesson."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import quotas
from benchmarks.quota_plot import draw
from benchmarks.quota_simulation import CONCURRENCY, POLICIES, STRATEGIES, Outcome, ideal, simulate
from omi_async.local import DOCUMENTED_QUOTAS, Quota

HOUR = POLICIES["hour15"]


def simulate_here(jobs: Any) -> Iterator[Outcome]:
    return itertools.starmap(simulate, jobs)


@pytest.fixture(scope="module")
def under_15_an_hour() -> Any:
    return quotas.measure(["hour15"], simulate_here, quick=True)


def outcome(seconds: float, *refused: float) -> Outcome:
    calls = [(moment, False) for moment, _ in ideal(HOUR.quotas, HOUR.few)["calls"]]
    return {"seconds": seconds, "calls": sorted(calls + [(moment, True) for moment in refused])}


def options(**changes: Any) -> argparse.Namespace:
    settings: dict[str, Any] = {
        "only": ["hour15"],
        "quick": True,
        "jitter": 5.0,
        "plot": None,
        "rounds": 1,
        "json": False,
    }
    return argparse.Namespace(measure="quotas", **(settings | changes))


@pytest.mark.parametrize(
    ("windows", "calls", "seconds"),
    [
        (HOUR.quotas, 45, 7200),
        (HOUR.quotas, 46, 10_800),
        (HOUR.quotas, 15, 0),
        (DOCUMENTED_QUOTAS, 450, 240),
        (DOCUMENTED_QUOTAS, 10_001, 86_400),
        ((Quota("short", 3, 10), Quota("long", 5, 100)), 8, 100),
        ((Quota("short", 3, 10), Quota("long", 5, 100)), 9, 110),
    ],
)
def test_the_ideal_spends_every_window_when_it_opens(windows, calls, seconds) -> None:
    best = ideal(windows, calls)

    assert best["seconds"] == seconds
    assert len(best["calls"]) == calls


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_import_facts_is_as_fast_as_allowed_and_never_faster(policy) -> None:
    outcomes = quotas.measure([policy], simulate_here, strategies=["import_facts"], quick=True)
    [sample] = quotas.report(outcomes, quick=True).samples[f"{policy} import_facts"]

    assert 1 <= sample["ratio"] <= 1.02
    assert sample["refused"] <= (0 if policy == "documented" else CONCURRENCY)
    assert sample["refused later"] == 0
    assert sample["fullest window"] - sample["refused"] == sample["its limit"]


@pytest.mark.slow
def test_every_strategy_sends_everything_and_has_its_row(under_15_an_hour) -> None:
    report = quotas.report(under_15_an_hour, quick=True)

    assert [row[1] for row in report.rows] == ["ideal", *(strategy.title for strategy in STRATEGIES.values())]
    assert [goal.met for goal in report.goals] == [True, True, True]
    samples = {name.split()[1]: sample for name, [sample] in report.samples.items()}
    assert samples["naive"]["refused"] > 100  # two hours of hammering, once a minute and worker
    assert samples["smooth"]["ratio"] > 1
    assert samples["aiolimiter"]["fullest window"] > HOUR.quotas[0].limit


def test_the_same_simulation_goes_the_same_way(under_15_an_hour) -> None:
    again = simulate("hour15", "import_facts", HOUR.few)
    [before] = under_15_an_hour["hour15", "import_facts"]

    assert again["seconds"] == pytest.approx(before["seconds"], abs=1e-3)
    assert [refused for _, refused in again["calls"]] == [refused for _, refused in before["calls"]]


@pytest.mark.parametrize(
    ("seconds", "refused", "met"),
    [
        (7344.0, [1.0, 1.0], [True, True, True]),
        (7345.0, [], [False, True, True]),
        (7200.0, [1.0] * 5, [True, False, True]),
        (7200.0, [1.0, 3601.0], [True, True, False]),
    ],
)
def test_a_missed_target_is_said_and_ends_with_1(monkeypatch, capsys, seconds, refused, met) -> None:
    outcomes = {("hour15", "import_facts"): [outcome(seconds, *refused)]}
    monkeypatch.setattr(quotas, "measure", lambda *_args, **_options: outcomes)

    assert [goal.met for goal in quotas.report(outcomes, quick=True).goals] == met
    if all(met):
        quotas.run(options())
        return
    with pytest.raises(SystemExit) as ended:
        quotas.run(options())
    assert ended.value.code == 1
    assert "MISSED" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        quotas.run(options(json=True))
    assert json.loads(capsys.readouterr().out)["measure"] == "quotas"


@pytest.mark.slow
def test_the_plot_is_small_and_the_same_each_time(tmp_path, under_15_an_hour) -> None:
    titles = {STRATEGIES[strategy].title: rounds[0] for (_, strategy), rounds in under_15_an_hour.items()}
    files = [tmp_path / "one.svg", tmp_path / "other.svg"]
    for file in files:
        draw(file, HOUR.quotas[0], titles)

    drawn, same = (file.read_bytes() for file in files)
    assert drawn == same
    assert len(drawn) < 80_000
    assert ET.fromstring(drawn).tag.endswith("svg")


def test_the_command_draws_and_tells_all_as_json(tmp_path, monkeypatch) -> None:
    outcomes = {("hour15", "import_facts"): [outcome(7200.0, 1.0)]}
    monkeypatch.setattr(quotas, "measure", lambda *_args, **_options: outcomes)
    drawing = options(plot=str(tmp_path / "calls.svg"))

    document = json.loads(quotas.run(drawing).json(drawing))

    assert (tmp_path / "calls.svg").stat().st_size > 0
    assert document["samples"]["hour15 import_facts"][0]["refused"] == 1
    assert [target["met"] for target in document["targets"]] == [True, True, True]


def test_a_plot_needs_the_policy_that_it_shows(tmp_path) -> None:
    with pytest.raises(SystemExit, match="nothing to draw"):
        quotas.run(options(only=["day100"], plot=str(tmp_path / "x.svg")))
