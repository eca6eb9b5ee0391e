"""How an import shows that it is at work: a bar on a terminal, lines elsewhere, events for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from omi_async.cli.inputs import Inputs
from omi_async.cli.output import emit, say
from omi_async.cli.words import STATES, counts_in_words, duration
from omi_async.importing.outcomes import ImportReport

__all__ = ["counts_of", "watched"]

LINES_EVERY: Final = 5.0
EVENTS_EVERY: Final = 1.0
BAR_EVERY: Final = 0.1

Show = Callable[[ImportReport], None]


class Pace:
    """How fast an import goes, and how long it will take as far as the input's size tells."""

    def __init__(self, inputs: Inputs, clock: Callable[[], float] = time.monotonic) -> None:
        self._inputs = inputs
        self._clock = clock
        self._started = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._started

    def rate(self, report: ImportReport) -> float:
        """Return the facts that are done with in a second."""
        return (report.settled - report.not_sent) / max(self.elapsed, 0.001)

    def total(self, report: ImportReport) -> int | None:
        """Estimate the number of facts in all."""
        fraction = self._inputs.fraction()
        return max(report.pulled, round(report.pulled / fraction)) if fraction else None

    def left(self, report: ImportReport) -> float | None:
        """Estimate the seconds that are left."""
        total, rate = self.total(report), self.rate(report)
        return (total - report.settled) / rate if total and rate else None


@contextmanager
def watched(inputs: Inputs, *, as_json: bool) -> Iterator[Show]:
    """Give what is to be called with the live report, as often as there is news."""
    pace = Pace(inputs)
    if as_json:
        yield _paced(lambda report: _show_event(report, pace), EVENTS_EVERY)
    elif sys.stderr.isatty():
        with _bar(pace) as show:
            yield show
    else:
        yield _paced(lambda report: _show_line(report, pace), LINES_EVERY, first=False)


def _paced(
    show: Show, every: float, *, first: bool = True, clock: Callable[[], float] = time.monotonic
) -> Show:
    """Let a call pass at most once in so many seconds."""
    last = float("-inf") if first else clock()

    def paced(report: ImportReport) -> None:
        nonlocal last
        if clock() - last >= every:
            last = clock()
            show(report)

    return paced


def counts_of(report: ImportReport) -> dict[str, int]:
    """Return the report's numbers for a program."""
    return {name: getattr(report, name) for name in ("pulled", *STATES, "requests", "retries")}


def _show_event(report: ImportReport, pace: Pace) -> None:
    emit({"event": "progress", **counts_of(report), "elapsed": round(pace.elapsed, 3)})


def _show_line(report: ImportReport, pace: Pace) -> None:
    total, left = pace.total(report), pace.left(report)
    of = f" of about {total:,}" if total is not None else ""
    rest = f", about {duration(left)} left" if left is not None else ""
    say(f"{report.settled:,}{of} facts: {counts_in_words(report)}; {pace.rate(report):,.0f} a second{rest}")


@contextmanager
def _bar(pace: Pace) -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415  # only a terminal needs it
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
    )
    latest: ImportReport | None = None
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("import", total=None, words="starting")

        def draw(report: ImportReport) -> None:
            bar.update(
                task, total=pace.total(report), completed=report.settled, words=_bar_words(report, pace)
            )

        drawn_sometimes = _paced(draw, BAR_EVERY)

        def show(report: ImportReport) -> None:
            nonlocal latest
            latest = report
            drawn_sometimes(report)

        yield show
        if latest is not None:
            draw(latest)


def _bar_words(report: ImportReport, pace: Pace) -> str:
    words = f"{counts_in_words(report)} · {pace.rate(report):,.0f}/s"
    left = pace.left(report)
    return f"{words} · {duration(left)} left" if left else words
