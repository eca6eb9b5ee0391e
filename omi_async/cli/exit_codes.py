"""Exit codes, and what to say of an error: what happened, what was saved, what to do next."""

from __future__ import annotations

import os
import traceback
from asyncio import CancelledError
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click

from omi_async.cli.format import described, until_in_words
from omi_async.cli.output import print_message
from omi_async.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    ConnectError,
    InvalidRequestError,
    ListLimitError,
    NotFoundError,
    OmiError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ResponseFormatError,
    ServerError,
    TransportError,
)
from omi_async.importing.report import ImportStoppedError

__all__ = ["CommandError", "Explanation", "code_of", "explain", "explanation_of"]

OK: Final = 0
USAGE: Final = 1
AUTHENTICATION: Final = 2
SERVER: Final = 3
QUOTA: Final = 4
NOT_FOUND: Final = 5
SOME_FAILED: Final = 6
INTERRUPTED: Final = 130

ISSUES: Final = "the project's issue tracker"

DEBUG: Final = "OMI_ASYNC_DEBUG"


CODES: Final[Sequence[tuple[type[BaseException], int]]] = (
    (AuthenticationError, AUTHENTICATION),
    (PermissionDeniedError, AUTHENTICATION),
    (PaymentRequiredError, AUTHENTICATION),
    (RateLimitError, QUOTA),  # before APIError, of which it is one, as are the next three
    (NotFoundError, NOT_FOUND),
    (InvalidRequestError, USAGE),
    (ConflictError, USAGE),
    (APIError, SERVER),
    (TransportError, SERVER),
    (ResponseFormatError, SERVER),
    (ListLimitError, SERVER),
    (OmiError, USAGE),
    (OSError, USAGE),  # of files; those of the network are TransportErrors by now
    (KeyboardInterrupt, INTERRUPTED),
    (CancelledError, INTERRUPTED),
)
"""The first class that fits decides; what fits none is a bug."""

_PORTAL: Final = "app.omi.me under Developer > API Keys"

ADVICE: Final[Sequence[tuple[type[BaseException], str]]] = (
    (AuthenticationError, f"Keys are made at {_PORTAL}."),
    (PermissionDeniedError, f"Keys are made at {_PORTAL}."),
    (PaymentRequiredError, "The plan of the account does not cover this."),
    (
        NotFoundError,
        "`omi-async list` shows the ids; if it finds nothing either, the base URL is wrong (its path?).",
    ),
    (
        ConnectError,
        "Nothing was sent. Is the server's address right (--base-url, OMI_API_BASE), and does it run?",
    ),
    (ServerError, "The server has trouble; try again later."),
    (TransportError, "Try again later, or wait longer for the answer with --timeout."),
)


class CommandError(click.ClickException):
    """A command cannot go on, for a reason that a sentence explains."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException | None) -> int:
    """Return the exit code for an error; `SERVER` for one that was not expected."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, ImportStoppedError):
        # What stopped it tells a script what to do: a wrong key is no matter of trying again.
        return code_of(error.__cause__)
    return next((code for kind, code in CODES if isinstance(error, kind)), SERVER)


def advice(error: BaseException | None) -> str | None:
    """Return what to do next, in words."""
    if isinstance(error, ImportStoppedError):
        return advice(error.__cause__)
    if isinstance(error, RateLimitError):
        when = "later" if error.retry_after is None else until_in_words(error.retry_after)
        return f"The quota is used up; try again {when}."
    return next((words for kind, words in ADVICE if isinstance(error, kind)), None)


class Explanation(NamedTuple):
    """What is said of an error.

    Attributes:
        code: the exit code.
        error: what happened.
        kind: the class of the error, or of what stopped the import.
        hints: what was saved, what to do next: a sentence each.
        heading: what kind of trouble it is, for people.
    """

    code: int
    error: str
    kind: str
    hints: Sequence[str] = ()
    heading: str = "Error"

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        hints = {"hint": " ".join(self.hints)} if self.hints else {}
        return {
            "event": "error",
            "error": self.error,
            "type": self.kind,
            **hints,
            "exit_code": self.code,
        }

    def in_words(self) -> str:
        """Return it for people."""
        return "\n".join([f"{self.heading}: {self.error}", *self.hints])


def explanation_of(error: BaseException) -> Explanation:
    """Put an error in words, without a traceback."""
    kind = type(error.__cause__ or error if isinstance(error, ImportStoppedError) else error).__name__
    if isinstance(error, CommandError):
        return Explanation(error.code, error.format_message(), kind)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Explanation(INTERRUPTED, "interrupted", "KeyboardInterrupt")
    if isinstance(error, OmiError | OSError):
        hints = [*getattr(error, "__notes__", ())]
        if (hint := advice(error)) is not None:
            hints.append(hint)
        return Explanation(code_of(error), described(error), kind, hints)
    words = f"{type(error).__name__}: {error}"
    hint = f"This is a bug in omi-async. Please report it to {ISSUES}, with what {DEBUG}=1 shows."
    return Explanation(code_of(error), words, kind, [hint], "Internal error")


def explain(error: BaseException) -> int:
    """Print what an error means, and return its exit code."""
    explanation = explanation_of(error)
    print_message(explanation.in_words())
    print_traceback_if_wanted(error)
    return explanation.code


def print_traceback_if_wanted(error: BaseException) -> None:
    """Print where an error came from, for who looks for a bug and has set `OMI_ASYNC_DEBUG`."""
    if os.environ.get(DEBUG):
        print_message("".join(traceback.format_exception(error)))
