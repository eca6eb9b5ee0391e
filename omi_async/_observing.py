"""Where what the library does can be watched: in the log, and by `omi_async.telemetry` if that is enabled.

The session and the importer call these functions whether they are watched or not. That costs them one look at
`observer`, and spares them and everything that is built on them an argument to hand on.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from omi_async._api.failures import log_name
from omi_async._api.messages import Kind, Request, Response
from omi_async.errors import OmiError, RateLimitError
from omi_async.importing.report import ImportReport

__all__ = ["Observer", "attempted", "call", "importing", "log_attempt", "log_retry", "observer"]

log: Final = logging.getLogger("omi_async")


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


def log_attempt(request: Request[Any], answer: Response | OmiError) -> None:
    """Log what came of an attempt, for who looks for details."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    if isinstance(answer, OmiError):
        about = {"omi_kind": request.kind, "omi_error": type(answer).__name__}
        log.debug("%s %s: %s", request.method, request.path, answer, extra=about)
        return
    took = (answer.received or 0.0) - (answer.sent or 0.0)
    size = len(answer.body)
    log.debug(
        "%s %s: %d in %.3f s, %d bytes",
        request.method,
        request.path,
        answer.status,
        took,
        size,
        extra={
            "omi_kind": request.kind,
            "omi_status": answer.status,
            "omi_took": took,
            "omi_bytes": size,
        },
    )


def log_retry(request: Request[Any], number: int, error: OmiError, wait: float) -> None:
    """Log that an attempt has failed, and that the next one comes in so many seconds."""
    why = "quota" if isinstance(error, RateLimitError) else "trouble"
    log.warning(
        "%s %s: attempt %d failed (%s); the next in %.2f s",
        request.method,
        request.path,
        number,
        log_name(error),
        wait,
        extra={"omi_why": why, "omi_kind": request.kind, "omi_wait": wait},
    )
