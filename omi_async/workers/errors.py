"""What ends the work on a part before the part is done."""

from __future__ import annotations

from datetime import datetime

from omi_async.errors import JournalError, OmiError, RateLimitError, ServerError, TransportError
from omi_async.importing.report import ImportReport, ImportStoppedError

__all__ = ["LeaseLost", "QuotaShut", "StoreError", "may_pass"]


class QuotaShut(OmiError):  # noqa: N818  # no error: the task ends, and is to be started again
    """A quota window is shut for longer than a task should sleep: run the part again at `resume_at`.

    Attributes:
        resume_at: when the window opens, aware.
        report: the account of the part so far; what was not sent yet stands in it as ``not_sent``.
    """

    def __init__(self, message: str, *, resume_at: datetime, report: ImportReport) -> None:
        super().__init__(message)
        self.resume_at = resume_at
        self.report = report


class LeaseLost(OmiError):  # noqa: N818  # no error: another worker does the work
    """Another worker holds the part, or has taken it over; nothing more is recorded by this one.

    Attributes:
        part: its name.
        resume_at: when it is worth another try, aware: by then the other worker has ended its work, renewed
            its lease, or died.
    """

    def __init__(self, message: str, *, part: str, resume_at: datetime) -> None:
        super().__init__(message)
        self.part = part
        self.resume_at = resume_at


class StoreError(JournalError):
    """The store cannot be used: it stays away, refuses a command, or knows the import in another shape."""


def may_pass(error: BaseException) -> bool:
    """Return whether a run that ended so may end better later: the server, the store or the app was away."""
    cause = error.__cause__ if isinstance(error, ImportStoppedError) else error
    if isinstance(cause, OmiError):
        return isinstance(cause, TransportError | ServerError | RateLimitError | StoreError)
    return True  # the app's own: of its database, as a rule
