"""How an import shows that it is at work: a bar on a terminal, lines elsewhere, events for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from omi_async.cli.format import STATES, counts_in_words, duration
from omi_async.cli.imports.events import Events
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.imports.pace import News, Pace, in_words, seconds_to_wait
from omi_async.cli.logs import LONG_WAIT, without_long_waits
from omi_async.cli.output import print_message
from omi_async.importing.report import ImportReport

if TYPE_CHECKING:
    from omi_async.importing.forecast import Forecast

__all__ = ["View", "counts_of", "watched"]

LINES_EVERY: Final = 5.0
EVENTS_EVERY: Final = 1.0
BAR_EVERY: Final = 0.1

Show = Callable[[ImportReport], None]


class View:
    """What the user sees of an import.

    Attributes:
        show: to be called with the live report, as often as there is news.
    """

    def __init__(self, show: Show, pace: Pace) -> None:
        self.show = show
        self._pace = pace

    def foresee_by(self, forecast: Callable[[int], Forecast]) -> None:
        """Take the importer's forecasts from now on."""
        self._pace.forecast = forecast


@contextmanager
def watched(inputs: Inputs, events: Events | None) -> Iterator[View]:
    """Yield what shows the import: to a program, if there are events, else to people."""
    pace = Pace(inputs)
    if events is not None:
        yield View(_events(pace, events), pace)
        return
    with without_long_waits():  # they are shown here
        if sys.stderr.isatty():
            from omi_async.cli.imports.bar import bar  # noqa: PLC0415  # only a terminal needs it

            with bar(pace, News(BAR_EVERY, first=True)) as show:
                yield View(show, pace)
        else:
            yield View(_lines(pace), pace)


def counts_of(report: ImportReport) -> dict[str, int]:
    """Return the report's numbers for a program."""
    return {name: getattr(report, name) for name in ("pulled", *STATES, "requests", "retries")}


def _events(pace: Pace, events: Events) -> Show:
    news = News(EVENTS_EVERY, first=True)
    settled = 0

    def show(report: ImportReport) -> None:
        nonlocal settled
        # While it waits, nothing comes later that could tell of what is left out now.
        urgent = news.wait_begins(report.waiting_for) or bool(report.waiting_for and report.settled > settled)
        if news.is_due(urgent=urgent):
            settled = report.settled
            events.put({"event": "progress", **counts_of(report), **_times(report, pace)})

    return show


def _times(report: ImportReport, pace: Pace) -> dict[str, Any]:
    state, done_at = report.waiting_for, pace.done_at(report)
    opens_at = None if state is None else state.opens_at
    return {
        "elapsed": round(pace.elapsed, 3),
        "waiting_for": None if state is None else state.policy,
        "opens_at": None if opens_at is None else opens_at.isoformat(timespec="seconds"),
        "done_about": None if done_at is None else done_at.isoformat(timespec="seconds"),
    }


def _lines(pace: Pace) -> Show:
    news = News(LINES_EVERY, first=False)

    def show(report: ImportReport) -> None:
        wait = in_words(report, pace) if news.wait_begins(report.waiting_for) else None
        if wait is not None and seconds_to_wait(report) >= LONG_WAIT:
            news.is_due(urgent=True)
            print_message(wait())
        elif news.is_due():
            print_message(_line(report, pace))

    return show


def _line(report: ImportReport, pace: Pace) -> str:
    total, left = pace.total(report), pace.left(report)
    of = f" of about {total:,}" if total is not None else ""
    rest = f", about {duration(left)} left" if left is not None else ""
    return f"{report.settled:,}{of} facts: {counts_in_words(report)}; {pace.rate(report):,.0f} a second{rest}"
