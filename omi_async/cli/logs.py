"""What the library logs, for people: one line each on stderr, and one for each wait."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Final

from omi_async.cli.output import print_message

__all__ = ["LONG_WAIT", "logs_to_stderr", "without_long_waits"]

SAME: Final = 1.0
"""Seconds by which the ends of two waits may differ that are told once."""

LONG_WAIT: Final = 10.0
"""Seconds from which on an import's wait for a window is shown with its progress, and told nowhere else."""

_WAIT: Final = re.compile(r"\bin ([0-9]+(?:\.[0-9]+)?) s$")
_NEXT_CALL: Final = re.compile(r"; the next \w+ call in ([0-9]+(?:\.[0-9]+)?) s$")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class SeenTexts(logging.Filter):
    """Passes one of the library's warnings for each wait.

    When a quota is used up, each worker has its call refused and says so; for a person that is one event.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._until: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record tells anything new: other words, or a wait that ends later."""
        if record.levelno != logging.WARNING or not record.name.startswith("omi_async"):
            return True
        message = record.getMessage()
        wait = _WAIT.search(message)
        until = self._clock() + (float(wait[1]) if wait else 0.0)
        words = _NUMBER.sub("#", message)
        if until <= self._until.get(words, float("-inf")) + SAME:
            return False
        self._until[words] = until
        return True


def _is_no_long_wait(record: logging.LogRecord) -> bool:
    """Whether a record is something else than the refusal that a long wait for a window begins with."""
    if record.levelno != logging.WARNING:
        return True
    wait = _NEXT_CALL.search(record.getMessage())
    return wait is None or float(wait[1]) < LONG_WAIT


@contextlib.contextmanager
def without_long_waits() -> Iterator[None]:
    """Do not tell of long waits for quota windows: somebody shows them. With --verbose tell all the same."""
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


class _Saying(logging.Handler):
    """Hands log records to `print_message`, so that they stand above a progress bar and hold no key."""

    def emit(self, record: logging.LogRecord) -> None:
        print_message(self.format(record))


@contextlib.contextmanager
def logs_to_stderr(level: int) -> Iterator[None]:
    """Show the library's log from this level on, and the worst of everybody else's, without tracebacks."""
    root, library = logging.getLogger(), logging.getLogger("omi_async")
    before, handlers = library.level, root.handlers
    handler = _Saying()
    handler.setFormatter(_OneLine())
    handler.addFilter(SeenTexts())
    root.handlers = [handler]
    library.setLevel(level)
    try:
        yield
    finally:
        root.handlers = handlers
        library.setLevel(before)
