"""Where what the library does can be watched: by nobody, unless `omi_async.telemetry` is enabled.

The session and the importer call these functions whether they are watched or not. That costs them one look at
`observer`, and spares them and everything that is built on them an argument to hand on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from omi_async._api.messages import Kind, Response
from omi_async.errors import OmiError
from omi_async.importing.report import ImportReport

__all__ = ["Observer", "attempted", "call", "importing", "observer"]


class Observer(Protocol):
    """Whoever watches. It learns nothing that it could give away: no request, no text, no key."""

    def call(self, kind: Kind, base_url: str, *, of_import: bool) -> AbstractContextManager[Any]:
        """Return a block around a call and all of its attempts; what leaves the block is its outcome."""
        ...

    def attempted(self, answer: Response | OmiError | None, waited: float) -> None:
        """Note an attempt of the call around it, what came of it, and how long it waited for a quota."""
        ...

    def importing(self, base_url: str, report: ImportReport) -> AbstractContextManager[Any]:
        """Return a block around an import, whose report is complete at its end."""
        ...


observer: Observer | None = None
"""Who watches all Sessions of the process. The variable is `omi_async.telemetry`'s to set."""

_NOTHING: Final = nullcontext()  # one for all: it holds no state


def call(kind: Kind, base_url: str, *, of_import: bool = False) -> AbstractContextManager[Any]:
    """Return a block for a call with all of its attempts, of an import or of anybody else."""
    return _NOTHING if observer is None else observer.call(kind, base_url, of_import=of_import)


def attempted(answer: Response | OmiError | None, waited: float) -> None:
    """Tell of an attempt.

    Args:
        answer: what came of it; None if it was cancelled on its way.
        waited: seconds that it waited for a quota.
    """
    if observer is not None:
        observer.attempted(answer, waited)


def importing(base_url: str, report: ImportReport) -> AbstractContextManager[Any]:
    """Return a block for an import."""
    return _NOTHING if observer is None else observer.importing(base_url, report)
