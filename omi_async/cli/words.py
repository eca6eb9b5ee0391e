"""Numbers and texts in words for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["counts_in_words", "duration", "facts_are", "plural", "printable"]

STATES: Final = ("created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent")
"""In the order of a report."""

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def duration(seconds: float) -> str:
    """Say a length of time with two units at most: ``4 min``, ``26 h 0 min``, ``3 d 4 h``."""
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    if seconds < 4 * _DAY:
        hours, rest = divmod(round(seconds / _MINUTE), 60)
        return f"{hours} h {rest} min"
    days, rest = divmod(round(seconds / _HOUR), 24)
    return f"{days} d {rest} h"


def plural(number: int, noun: str) -> str:
    """Say ``1 call``, ``2,000 calls``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def facts_are(number: int) -> str:
    """Say ``1 fact is``, ``2,000 facts are``."""
    return f"{number:,} fact is" if number == 1 else f"{number:,} facts are"


def counts_in_words(report: object, *, always: Iterable[str] = ("created",)) -> str:
    """Say the counts of an import: ``2,400 created, 50 existing``."""
    shown = frozenset(always)
    counts = {state: int(getattr(report, state)) for state in STATES}
    return ", ".join(
        f"{count:,} {state.replace('_', ' ')}" for state, count in counts.items() if count or state in shown
    )


def printable(text: str) -> str:
    """Put a space for line ends, tabs and whatever could steer a terminal: the text is somebody else's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
