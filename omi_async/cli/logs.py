"""What the library logs, for people: one line each on stderr, and one for each wait.

The library's warnings about a wait carry, beside their words, what a program needs to know of it (`extra=`):
``omi_why`` ("quota" or "trouble"), ``omi_kind`` (the kind of call that waits) and ``omi_wait`` (seconds).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from omi_async.cli.output import print_message

__all__ = ["LONG_WAIT", "logs_to_stderr", "without_long_waits"]

SAME_END: Final = 1.0
"""Seconds by which the ends of two waits may differ that are told once.

With less, each of an import's workers would have its own line about the same window, since their answers
arrive at slightly different times; with more, a short window that shuts again at once would go untold.
"""

LONG_WAIT: Final = 10.0
"""Seconds from which on an import's wait for a window is shown with its progress, and told nowhere else.

A shorter one is over before a line about it has been read; as a line of the log it explains the pause all the
same, without taking the progress display away for a moment.
"""


class OncePerWait(logging.Filter):
    """Passes one warning for each wait.

    When a quota is used up, each worker has its call refused and says so; for a person that is one event.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._ends: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record tells anything new: no wait at all, or one that ends later than told."""
        wait: float | None = getattr(record, "omi_wait", None)
        if wait is None:
            return True
        told = record.__dict__["omi_why"], record.__dict__["omi_kind"]
        end = self._clock() + wait
        if end <= self._ends.get(told, float("-inf")) + SAME_END:
            return False
        self._ends[told] = end
        return True


def _is_no_long_wait(record: logging.LogRecord) -> bool:
    """Return whether a record is anything but the refusal that a long wait for a window begins with."""
    return getattr(record, "omi_why", None) != "quota" or record.__dict__["omi_wait"] < LONG_WAIT


@contextlib.contextmanager
def without_long_waits() -> Iterator[None]:
    """Leave out long waits for quota windows, which the progress display shows; with --verbose, tell them."""
    library = logging.getLogger("omi_async")
    if library.level <= logging.DEBUG:
        yield
        return
    library.addFilter(_is_no_long_wait)
    try:
        yield
    finally:
        library.removeFilter(_is_no_long_wait)


class _OneLine(logging.Formatter):
    """Formats a record without the traceback that may come with it."""

    def format(self, record: logging.LogRecord) -> str:
        where = "" if record.name.startswith("omi_async") else f"{record.name}: "
        return f"{where}{record.getMessage()}"


class _ToMessages(logging.Handler):
    """Hands log records to `print_message`, so that they stand above a progress bar and hold no key."""

    def emit(self, record: logging.LogRecord) -> None:
        print_message(self.format(record))


@contextlib.contextmanager
def logs_to_stderr(level: int) -> Iterator[None]:
    """Show the library's log from this level on, and warnings of all others, without tracebacks."""
    root, library = logging.getLogger(), logging.getLogger("omi_async")
    before, handlers = library.level, root.handlers
    handler = _ToMessages()
    handler.setFormatter(_OneLine())
    handler.addFilter(OncePerWait())
    # In the place of all others: a handler that the environment brought along would say everything twice.
    root.handlers = [handler]
    library.setLevel(level)
    try:
        yield
    finally:
        root.handlers = handlers
        library.setLevel(before)
