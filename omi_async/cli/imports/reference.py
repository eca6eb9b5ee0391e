"""How a line of a failures file names the journal of its import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

__all__ = ["journal_at", "journal_reference"]

_QUOTED: Final = "file:"
"""Begins the name of a journal that JSON cannot hold as it is: its bytes are no UTF-8."""


def journal_reference(journal: Path, folder: Path | None = None) -> str:
    """Name a journal for a file of that folder: without the folder if it is the same, so both may move."""
    there = journal.absolute()
    name = there.name if folder is not None and there.parent == folder.absolute() else str(there)
    if name.startswith(_QUOTED) or not _is_unicode(name):
        return f"{_QUOTED}{quote_from_bytes(os.fsencode(name))}"
    return name


def journal_at(reference: str, folder: Path) -> Path:
    """Return the journal that a file of that folder names."""
    if reference.startswith(_QUOTED):
        reference = os.fsdecode(unquote_to_bytes(reference.removeprefix(_QUOTED)))
    return folder / reference


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
