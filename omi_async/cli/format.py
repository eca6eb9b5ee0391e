"""Numbers, texts and errors in words for people."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from omi_async._quota.policy import QuotaState

__all__ = [
    "STATES",
    "countdown",
    "counts_in_words",
    "described",
    "duration",
    "facts_are",
    "local_time",
    "plural",
    "printable",
    "shell_word",
    "shortened",
    "until_in_words",
    "window_in_words",
]

STATES: Final = ("created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent")
"""In the order of a report."""

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def duration(seconds: float) -> str:
    """Return a length of time with two units at most: ``4 min``, ``26 h 0 min``, ``3 d 4 h``."""
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    if seconds < 4 * _DAY:
        hours, rest = divmod(round(seconds / _MINUTE), 60)
        return f"{hours} h {rest} min"
    days, rest = divmod(round(seconds / _HOUR), 24)
    return f"{days} d {rest} h"


def countdown(seconds: float) -> str:
    """Return how long it still takes, to the second: ``0:07``, ``41:07``, ``26:00:00``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def local_time(moment: datetime) -> str:
    """Return when something will be, local time: ``02:10``, with its date if it is not the next 02:10."""
    soon = moment.timestamp() - time.time() < _DAY
    return f"{moment.astimezone():{'%H:%M' if soon else '%Y-%m-%d %H:%M'}}"


def until_in_words(seconds: float) -> str:
    """Return when a wait ends: ``in 7 s``, ``in 41 min, at 14:05``."""
    words = f"in {duration(seconds)}"
    if seconds < _MINUTE:
        return words
    return f"{words}, at {local_time(datetime.fromtimestamp(time.time() + seconds, UTC))}"


def window_in_words(state: QuotaState) -> str:
    """Name the quota window that is waited for."""
    if state.window is not None:
        return f"the {state.policy} window"
    return "the quota window" if state.limit is None else f"the window of {plural(state.limit, 'call')}"


def plural(number: int, noun: str) -> str:
    """Return ``1 call``, ``2,000 calls``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def facts_are(number: int) -> str:
    """Return ``1 fact is``, ``2,000 facts are``."""
    return f"{number:,} fact is" if number == 1 else f"{number:,} facts are"


def counts_in_words(report: object, *, always: Iterable[str] = ("created",)) -> str:
    """Return the counts of an import: ``2,400 created, 50 existing``."""
    shown = frozenset(always)
    counts = {state: int(getattr(report, state)) for state in STATES}
    return ", ".join(
        f"{count:,} {state.replace('_', ' ')}" for state, count in counts.items() if count or state in shown
    )


def printable(text: str) -> str:
    r"""Put a space for tabs and whatever could steer a terminal: the text is a server's, or a file's name.

    A byte of a file's name that is no UTF-8 (PEP 383) is shown as the byte that it is: ``caf\xe9.txt``.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else " "  # noqa: PLR2004  # the bytes that PEP 383 escapes


LONGEST_NAME: Final = 200
"""Characters of a file's name in a message; its end, which tells more, is kept for the most part."""


def shortened(name: object) -> str:
    """Return a file's name for a message: printable, and its middle left out if it is very long."""
    text = printable(str(name))
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME // 4]}...{text[-LONGEST_NAME * 3 // 4 + 3 :]}"


_PLAIN: Final = frozenset(f"{ascii_letters}{digits} ._-/".encode())


def shell_word(name: object) -> str:
    """Return a file's name for a command that can be pasted into a shell, whatever bytes are in it."""
    text = str(name)
    if text.isprintable():
        return shlex.quote(text)
    # $'...', as bash and zsh read it: no other quoting brings a line end or a foreign byte across.
    escaped = (chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def described(error: BaseException) -> str:
    """Put an error in words; those of the operating system come with the file's name."""
    if isinstance(error, OSError) and error.strerror:
        return f"{shortened(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
