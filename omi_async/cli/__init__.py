"""The command line ``omi-async``: commands to library calls to exit codes.

Nothing here is imported by the library. Importing this package loads neither click nor aiohttp, so that
``omi-async --help`` is quick, and a missing `cli` extra is said in a sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

__all__ = ["main"]

NEEDED: Final = ("click", "platformdirs", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``omi-async`` with these arguments (`sys.argv` if None) and return its exit code."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"omi-async needs {' and '.join(missing)}: pip install 'omi-async[cli]'\n")
        return 1
    from omi_async.cli.app import run  # noqa: PLC0415  # needs click

    return run(arguments)
