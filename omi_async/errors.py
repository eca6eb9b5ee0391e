"""Every exception that omi_async raises, as one tree.

Catch `OmiError` to catch all of them:

```text
OmiError                                                       maybe_applied (of a write)
 |- ConfigurationError     no key, unusable base_url, ...      no
 |- InvalidFactError       also a ValueError                   no
 |- TransportError
 |   |- ConnectError       never reached the server            no
 |   `- ResponseLostError  sent, but no usable answer came     yes
 |- APIError               (.status .detail .headers)          no
 |   |- InvalidRequestError    400 413 422
 |   |- AuthenticationError    401
 |   |- PaymentRequiredError   402
 |   |- PermissionDeniedError  403
 |   |- NotFoundError          404
 |   |- ConflictError          409
 |   |- RateLimitError         429 (.retry_after)
 |   `- ServerError            5xx                             yes, unless raised before the work
 |- ResponseFormatError    2xx that does not decode            yes
 |- ListLimitError         a long list, shown only in part      no
 |- JournalError                                               no
 |   `- JournalInUseError  another import has it open          no
 |- ImportStoppedError     the import could not go on (.report)
 `- ImportFailedError      an ExceptionGroup of failed facts
```

`maybe_applied` answers the one question that matters after a failed write: may the server have stored it
all the same? It says nothing of interest after a read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omi_async.memory import Memory

__all__ = [
    "APIError",
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "InvalidFactError",
    "InvalidRequestError",
    "JournalError",
    "JournalInUseError",
    "ListLimitError",
    "NotFoundError",
    "OmiError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "ResponseFormatError",
    "ResponseLostError",
    "ServerError",
    "TransportError",
]

NOTHING: Mapping[str, str] = {}


class OmiError(Exception):
    """The base of every error of this library. Each can be copied and pickled, with its attributes."""

    maybe_applied: bool = False
    """Whether the write that failed may have been carried out by the server."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is rebuilt from its args alone, but ours have keywords that must be given.
        return _rebuilt, (type(self), self.args, vars(self))


def _rebuilt(kind: type[OmiError], args: tuple[Any, ...], attributes: dict[str, Any]) -> OmiError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class ConfigurationError(OmiError):
    """The Session cannot work as it was configured: no key, an unusable base URL, used after close, ..."""


class InvalidFactError(OmiError, ValueError):
    """Something that cannot be a fact: refused here, never sent.

    Attributes:
        field: the field at fault (``"content"``, ``"tags"``, ...), or ``""`` for the record as a whole.
        record: what was given instead of a fact, so that it can be fixed; never part of the message.
    """

    def __init__(self, message: str, *, field: str = "", record: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.record = record


class TransportError(OmiError):
    """No usable answer came from the server."""


class ConnectError(TransportError):
    """The server was never reached: no such host, refused, TLS failed. Nothing was applied."""


class ResponseLostError(TransportError):
    """The request went out and no usable answer came back: a timeout, a reset, an answer cut short, a 408."""

    maybe_applied = True


class APIError(OmiError):
    """The server answered with a status that is not a success.

    Attributes:
        status: the HTTP status.
        detail: what the server said: a string, a list (FastAPI's validation errors) or an object.
            A list echoes the facts that were sent, so it stands in no message.
        headers: the answer's headers.
        retry_after: seconds that the server asks to wait, or None if it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        detail: Any = None,
        headers: Mapping[str, str] = NOTHING,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.retry_after = retry_after


class InvalidRequestError(APIError):
    """400, 413, 422: the server refuses what was sent, and will refuse it again."""


class AuthenticationError(APIError):
    """401: the key is missing, unknown, revoked, or of another API."""


class PaymentRequiredError(APIError):
    """402: the account's plan does not cover this."""


class PermissionDeniedError(APIError):
    """403: the key is good, but may not do this (a missing scope, no grant on the memories, ...)."""


class NotFoundError(APIError):
    """404: there is no such memory."""


class ConflictError(APIError):
    """409: the state of the resource does not allow this."""


class RateLimitError(APIError):
    """429: a quota window is used up. `retry_after` says for how many seconds, if the server said it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 429,
        detail: Any = None,
        headers: Mapping[str, str] = NOTHING,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, detail=detail, headers=headers, retry_after=retry_after)


class ServerError(APIError):
    """5xx: the server failed, in most cases after it may have begun the work.

    Attributes:
        maybe_applied: False for the answers that are known to come before the work.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        detail: Any = None,
        headers: Mapping[str, str] = NOTHING,
        maybe_applied: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, detail=detail, headers=headers, retry_after=retry_after)
        self.maybe_applied = maybe_applied


class ResponseFormatError(OmiError):
    """A success whose body is not what the API promises. The write, if it was one, was probably applied.

    Attributes:
        problems: one sentence for each thing that is wrong, with its place (``"[3].content: ..."``).
        memories: what could be read all the same, so that one broken memory does not hide its page.
    """

    maybe_applied = True

    def __init__(
        self, message: str, *, problems: Sequence[str] = (), memories: Sequence[Memory] = ()
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.memories = tuple(memories)


class ListLimitError(OmiError):
    """The server shows no more of a list, though there may be more: it has a limit, and gives no cursor.

    Attributes:
        read: how many memories of it could be read.
    """

    def __init__(self, message: str, *, read: int = 0) -> None:
        super().__init__(message)
        self.read = read


class JournalError(OmiError):
    """The journal cannot be used: corrupt, foreign, in use by another import, or its disk is full.

    Attributes:
        remembers: whether it holds what an import has sent, so that importing the same with another journal,
            or with none, may store it twice.
    """

    def __init__(self, message: str, *, remembers: bool = False) -> None:
        super().__init__(message)
        self.remembers = remembers


class JournalInUseError(JournalError):
    """Another import has the journal open: wait for its end, or stop it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, remembers=True)
