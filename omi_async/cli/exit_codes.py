"""Exit codes, and what to say of an error: what happened, what was saved, what to do next."""

from __future__ import annotations

import os
import traceback
from asyncio import CancelledError
from collections.abc import Sequence
from typing import Final

import click

from omi_async.cli.format import until_in_words
from omi_async.cli.output import print_message
from omi_async.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    ConnectError,
    InvalidRequestError,
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

__all__ = ["CommandError", "code_of", "explain"]

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
    (RateLimitError, QUOTA),
    (NotFoundError, NOT_FOUND),
    (InvalidRequestError, USAGE),
    (ConflictError, USAGE),
    (APIError, SERVER),
    (TransportError, SERVER),
    (ResponseFormatError, SERVER),
    (OmiError, USAGE),
    (OSError, USAGE),
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
        "`omi-async list` shows the ids; where it finds nothing either, the base URL is wrong (its path?).",
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
    """Return the exit code for an error; `SERVER` for one that nobody expected."""
    if isinstance(error, ImportStoppedError):
        return code_of(error.__cause__)
    return next((code for kind, code in CODES if isinstance(error, kind)), SERVER)


def advice(error: BaseException | None) -> str | None:
    """Say what to do next."""
    if isinstance(error, ImportStoppedError):
        return advice(error.__cause__)
    if isinstance(error, RateLimitError):
        when = "later" if error.retry_after is None else until_in_words(error.retry_after)
        return f"The quota is used up; try again {when}."
    return next((words for kind, words in ADVICE if isinstance(error, kind)), None)


def explain(error: BaseException) -> int:
    """Print what an error means, without a traceback, and return its exit code."""
    if isinstance(error, OmiError | OSError):
        print_message(f"Error: {described(error)}")
        for note in getattr(error, "__notes__", ()):
            print_message(note)
        if (hint := advice(error)) is not None:
            print_message(hint)
    else:
        print_message(f"Internal error: {type(error).__name__}: {error}")
        print_message(f"This is a bug in omi-async. Please report it to {ISSUES}, with what {DEBUG}=1 shows.")
    if os.environ.get(DEBUG):
        print_message("".join(traceback.format_exception(error)))
    return code_of(error)


def described(error: BaseException) -> str:
    """Put an error in words; those of the operating system come with the file's name."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
