"""Calls over time against the windows of a quota, as an SVG that is read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.quota_simulation import Outcome, ideal
from omi_async.local import Quota

__all__ = ["draw", "figure"]

INK = "#6e7681"
"""Text and lines; a contrast of 4 to 1 on white as on nearly black (#0d1117)."""

COLOURS = ("#2f81f7", "#d9722e", "#9a6dd7", "#2da067")
REFUSED = "#e5484d"
BIN = 60.0
"""Seconds; the refused calls of such a time are drawn as one cross."""

RC: dict[Any, Any] = {
    "svg.hashsalt": "omi_async",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.facecolor": "none",
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(path: Path, quota: Quota, outcomes: Mapping[str, Outcome]) -> None:
    """Write the SVG; the same calls give the same file."""
    with mpl.rc_context(RC):
        figure(quota, outcomes).savefig(path, metadata={"Date": None}, transparent=True)


def figure(quota: Quota, outcomes: Mapping[str, Outcome]) -> Figure:
    """Draw a panel for each strategy, one above the other, over the same hours."""
    calls = next(sum(not refused for _, refused in outcome["calls"]) for outcome in outcomes.values())
    best = ideal([quota], calls)
    hours = max(outcome["seconds"] for outcome in outcomes.values()) / 3600
    drawing = Figure(figsize=(8.4, 1.5 * len(outcomes) + 1.1), layout="constrained")
    panels = drawing.subplots(len(outcomes), 1, sharex=True, squeeze=False)[:, 0]
    for panel, colour, (title, outcome) in zip(panels, COLOURS, outcomes.items(), strict=False):
        _panel(panel, quota, outcome, best, title=title.strip("*`"), colour=colour)
    panels[-1].set_xlabel("hours")
    drawing.supxlabel(
        "dashed: the ideal  ·  shaded: the windows that the server opened  ·  "
        "cross: refused calls, those of one minute in one",
        fontsize=9,
        color=INK,
    )
    panels[-1].set_xlim(-0.04, hours * 1.02)
    drawing.supylabel("calls accepted", fontsize=10, color=INK)
    drawing.suptitle(
        f"{calls} calls, with {quota.limit} an hour allowed: {best['seconds'] / 3600:.1f} h at best",
        fontsize=11.5,
        fontweight="bold",
    )
    return drawing


def _panel(panel: Axes, quota: Quota, outcome: Outcome, best: Outcome, *, title: str, colour: str) -> None:
    calls = len(best["calls"])
    end = outcome["seconds"] / 3600
    accepted = [moment / 3600 for moment, refused in outcome["calls"] if not refused]
    refused = [moment / 3600 for moment, refused in outcome["calls"] if refused]
    for number, (opened, ends) in enumerate(_windows(quota, outcome)):
        panel.axvspan(opened, min(ends, 24.0), color=INK, alpha=0.20 if number % 2 == 0 else 0.08, lw=0)
    ideally = [moment / 3600 for moment, _ in best["calls"]]
    steps = range(1, calls + 1)
    panel.step([0, *ideally], [0, *steps], where="post", color=INK, lw=1.2, ls=(0, (4, 3)))
    panel.step([0, *accepted, end], [0, *steps, calls], where="post", color=colour, lw=2.2)
    panel.plot([end], [calls], "o", color=colour, ms=6, clip_on=False, zorder=5)
    if refused:
        bins = sorted({int(moment * 3600 // BIN) for moment in refused})
        places = [min(moment for moment in refused if moment * 3600 // BIN == place) for place in bins]
        heights = [sum(moment < place for moment in accepted) for place in places]
        panel.plot(places, heights, "x", color=REFUSED, ms=5, mew=1.2, zorder=6, clip_on=False)
    panel.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=colour, pad=4)
    how_many = f"{len(refused):,} calls refused" if refused else "no call refused"
    panel.set_title(f"{end:.2f} h, {how_many}", loc="right", fontsize=10, color=INK, pad=4)
    panel.set_ylim(0, calls * 1.08)
    panel.set_yticks(range(0, calls + 1, quota.limit))
    panel.spines[["top", "right"]].set_visible(False)


def _windows(quota: Quota, outcome: Outcome) -> list[tuple[float, float]]:
    """Return the windows that the server opened: from, to, in hours."""
    windows: list[tuple[float, float]] = []
    for moment, _ in outcome["calls"]:
        hours = moment / 3600
        if not windows or hours >= windows[-1][1]:
            windows.append((hours, hours + quota.window / 3600))
    return windows
