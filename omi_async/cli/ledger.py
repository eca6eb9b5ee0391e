"""Where the command line keeps what is spent of the quotas, for the next command and the one beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from omi_async.cli.output import say

__all__ = ["VARIABLE", "ledger_path", "usable_ledger"]

VARIABLE: Final = "OMI_LEDGER"


def ledger_path() -> Path | None:
    """Return the ledger's file, whether it is there or not; None where none is to be kept."""
    given = os.environ.get(VARIABLE)
    if given is not None and not given.strip():
        return None
    try:
        return Path(given.strip()).expanduser() if given is not None else _default()
    except RuntimeError:  # nobody's home
        return None


def _default() -> Path | None:
    from platformdirs import user_state_path  # noqa: PLC0415  # only where it is asked for

    path = user_state_path("omi_async", appauthor=False) / "quotas.db"
    return path if path.is_absolute() else None


def usable_ledger() -> Path | None:
    """Return the ledger's file, with its directory made; None, and a warning, where it cannot be written."""
    path = ledger_path()
    if path is None or path == Path(os.devnull):
        return None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no file")
        path.open("ab").close()
    except OSError as error:
        say(
            f"warning: {path} cannot be written ({error.strerror}): other commands are not told what this "
            f"one spends of the quotas. {VARIABLE}=PATH keeps that elsewhere, an empty {VARIABLE} nowhere."
        )
        return None
    return path
