"""The progress bar of an import, and the countdown in its place while that waits for a quota window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn
from rich.text import Text

from omi_async.cli.format import counts_in_words, duration
from omi_async.cli.imports.pace import News, Pace, in_words
from omi_async.importing.report import ImportReport

__all__ = ["bar"]

Show = Callable[[ImportReport], None]


class _Words(ProgressColumn):
    """Asks for its words with each drawing, so that a countdown in them goes on."""

    def render(self, task: Task) -> Text:
        words: Callable[[], str] = task.fields["words"]
        return Text(words())


class _WhileMoving(ProgressColumn):
    """Another column, which makes room while the import waits."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> RenderableType:
        return "" if task.fields["waiting"] else self._column(task)


@contextmanager
def bar(pace: Pace, news: News) -> Iterator[Show]:
    """Show a bar on stderr; it draws itself ten times a second."""
    columns = (SpinnerColumn(), _WhileMoving(BarColumn(bar_width=20)), TaskProgressColumn(), _Words())
    latest: ImportReport | None = None
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("import", total=None, words=lambda: "starting", waiting=False)

        def draw(report: ImportReport, *, ended: bool = False) -> None:
            wait = None if ended else in_words(report, pace)
            progress.update(
                task,
                total=pace.total(report),
                completed=report.settled,
                words=wait or _moving(report, None if ended else pace.left(report), pace.rate(report)),
                waiting=wait is not None,
            )

        def show(report: ImportReport) -> None:
            nonlocal latest
            latest = report
            if news.is_due(urgent=news.wait_begins(report.waiting_for)):
                draw(report)

        yield show
        # Once more, since the last news may have come too soon after the news before, and was left out.
        if latest is not None:
            draw(latest, ended=True)


def _moving(report: ImportReport, left: float | None, rate: float) -> Callable[[], str]:
    words = f"{counts_in_words(report)} · {rate:,.0f}/s"
    words = f"{words} · {duration(left)} left" if left else words
    return lambda: words
