"""Draws what `throughput` measured: ``python -m benchmarks.plot throughput.json benchmarks/throughput.svg``.

The same figures give the same file, byte for byte, with the same matplotlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS
from benchmarks.running import Samples, ratios, spread

__all__ = ["draw"]

OURS, BASE = "import_facts", "aiohttp"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "omi_async",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw a bar for each client: the CPU of a batch, cheapest first."""
    import matplotlib as mpl  # noqa: PLC0415 - it takes a second, and is not needed to measure
    from matplotlib.figure import Figure  # noqa: PLC0415

    samples: Samples = document["samples"]
    costs = {key: spread(it["cpu_per_batch"] for it in own).median * 1e6 for key, own in samples.items()}
    keys = sorted(costs, key=costs.__getitem__, reverse=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.32 * len(keys) + 0.8), layout="constrained")
        axes = figure.add_subplot()
        bars = axes.barh(
            [_title(key) for key in keys],
            [costs[key] for key in keys],
            color=["#d1495b" if key.startswith(OURS) else "#8d99ae" for key in keys],
        )
        axes.bar_label(bars, [_label(key, costs[key], samples) for key in keys], padding=3)
        axes.margins(x=0.16)
        axes.tick_params(axis="y", length=0)
        figure.supxlabel(
            f"µs of the client's CPU for 25 facts (times {_title(BASE)})", size=STYLE["font.size"]
        )
        figure.savefig(path, format="svg", metadata={"Date": None})


def _title(key: str) -> str:
    return CONTESTANTS[key].title.replace("*", "").replace("`", "")


def _label(key: str, cost: float, samples: Samples) -> str:
    if BASE not in samples:
        return f"{cost:,.0f}"
    return f"{cost:,.0f} ({ratios(samples, key, BASE, 'cpu_per_batch').median:.2f})"


def main() -> None:
    """Read the command line, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("document", type=Path, help="what `python -m benchmarks throughput --json` printed")
    parser.add_argument("svg", type=Path, help="the file to write")
    options = parser.parse_args()
    draw(json.loads(options.document.read_text()), options.svg)


if __name__ == "__main__":
    main()
