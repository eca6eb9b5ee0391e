"""The file in which all commands of this machine count what they spend of quotas (`OMI_LEDGER`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from omi_async.cli.format import described, shortened
from omi_async.cli.output import PRIVATE_FILE, print_message

__all__ = ["VARIABLE", "ledger_path", "usable_ledger"]

VARIABLE: Final = "OMI_LEDGER"


def ledger_path() -> Path | None:
    """Return the ledger's file, whether it is there or not; None if none is to be kept."""
    given = os.environ.get(VARIABLE)
    if given is not None and not given.strip():
        return None
    try:
        path = Path(given.strip()).expanduser() if given is not None else _default()
    except RuntimeError:  # the user has no home
        return None
    return None if path == Path(os.devnull) else path


def _default() -> Path | None:
    from platformdirs import user_state_path  # noqa: PLC0415  # only if it is asked for

    path = user_state_path("omi_async", appauthor=False) / "quotas.db"
    return path if path.is_absolute() else None


def usable_ledger() -> Path | None:
    """Return the ledger's file, with its directory made; None, and a warning, if it cannot be written."""
    path = ledger_path()
    if path is None:
        return None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no file")
        # Tried here, where it is a sentence; later it would be a warning in the middle of a call.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE))
    except OSError as error:
        words = described(OSError(error.errno, error.strerror))
        print_message(
            f"warning: {shortened(path)} cannot be written ({words}): other commands are not told what this "
            f"one spends of the quotas. {VARIABLE}=PATH keeps that elsewhere, an empty {VARIABLE} nowhere."
        )
        return None
    return path
