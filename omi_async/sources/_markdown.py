r"""A text of several lines as one bullet, and back: ``<br>`` for a line break, a backslash for look-alikes.

``- \[x] done`` is the text "[x] done" and no check box; ``\<br>`` is the four characters.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escaped", "unescaped"]

_LOOKALIKE: Final = re.compile(r"\\[!-/:-@\[-`{-~]|[-\[`~]")
"""What, at the start of a bullet's text, Markdown or we would take for something else."""

_BREAK: Final = re.compile(r"(\\*)(\n|<br[ ]?/?>)")


def escaped(text: str) -> str:
    """Write a text so that it stands on one line, behind a bullet."""
    line = _BREAK.sub(_write_break, text)
    return f"\\{line}" if _LOOKALIKE.match(line) else line


def _write_break(found: re.Match[str]) -> str:
    slashes, what = found.groups()
    return f"{slashes * 2}<br>" if what == "\n" else f"{slashes * 2}\\{what}"


def unescaped(line: str) -> str:
    """Read the text behind a bullet."""
    if line.startswith("\\") and _LOOKALIKE.match(line):
        line = line[1:]
    return _BREAK.sub(_read_break, line)


def _read_break(found: re.Match[str]) -> str:
    slashes, what = found.groups()
    half = slashes[: len(slashes) // 2]
    return f"{half}{what}" if len(slashes) % 2 else f"{half}\n"
