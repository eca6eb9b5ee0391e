"""The command line ``omi-async``: commands to library calls to exit codes.

Nothing here is imported by the library. Importing this package loads neither click nor aiohttp, so that
``omi-async --help`` is quick, and a missing `cli` extra is said in a sentence.
"""

from __future__ import annotations

# Until `main` runs, Ctrl-C is a traceback. So nothing is imported here that takes time: not typing, and not
# signal, which makes enums of what is in this module.
import _signal  # type: ignore[import-not-found]  # of CPython and PyPy alike
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType
    from typing import Final

__all__ = ["main"]

NEEDED: Final = ("click", "platformdirs", "rich")

_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``omi-async`` with these arguments (`sys.argv` if None) and return its exit code."""
    before = _signal.getsignal(_signal.SIGINT)
    try:
        _leave_at_ctrl_c()
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            sys.stderr.write(f"omi-async needs {' and '.join(missing)}: pip install 'omi-async[cli]'\n")
            return 1
        from omi_async.cli.app import run  # noqa: PLC0415  # needs click
    finally:
        if _signal.getsignal(_signal.SIGINT) is _leave:
            _signal.signal(_signal.SIGINT, before)
    return run(arguments)


def find_spec(name: str) -> ModuleSpec | None:
    """Return where a module is; None if it is not installed."""
    from importlib import util  # noqa: PLC0415  # see above

    return util.find_spec(name)


def _leave_at_ctrl_c() -> None:
    """Let Ctrl-C end the process at once while modules are loaded, for nothing was begun.

    As a KeyboardInterrupt it would come out of whatever module is being executed, and not each one lets it
    pass: it would be printed as a traceback, or ignored. If it is ignored on purpose, or `main` does not run
    in the main thread, all stays as it is.
    """
    if _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler:
        return
    try:
        _signal.signal(_signal.SIGINT, _leave)
    except ValueError:  # not in the main thread
        return


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(_INTERRUPTED)
