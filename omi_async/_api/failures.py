"""What a status that is no success says: the error for it, in words that help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from omi_async._api import json
from omi_async._api.headers import retry_after
from omi_async._api.messages import Response
from omi_async.constants import PRE_WORK_503
from omi_async.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OmiError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ResponseLostError,
    ServerError,
)

__all__ = ["error_for", "log_name", "refused_items", "shown"]


NO_ADVICE: Final[Mapping[int, str]] = {}


def error_for(operation: str, response: Response, advice: Mapping[int, str] = NO_ADVICE) -> OmiError:
    """Make the error for a status that is no success."""
    status = response.status
    detail = _detail(response)
    message = f"cannot {operation}: {status} {_phrase(status)}{_sentence(response, detail)}"
    message += advice.get(status) or _ADVICE.get(status, "")
    if status in _NO_ANSWERS:
        # Without the server's words: these errors go into logs as they are.
        return ResponseLostError(f"cannot {operation}: no answer in time ({status} {_phrase(status)})")
    about: dict[str, Any] = {
        "status": status,
        "detail": detail,
        "headers": response.headers,
        "retry_after": retry_after(response),
    }
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        before_work = (
            status == HTTPStatus.SERVICE_UNAVAILABLE and isinstance(detail, str) and detail in PRE_WORK_503
        )
        return ServerError(message, maybe_applied=not before_work, **about)
    return _ERRORS.get(status, APIError)(message, **about)


_NO_ANSWERS: Final = frozenset({408, 499})
"""Statuses by which something on the way says that it has waited long enough for the server, or the server
for the rest of the call. It may be at work on it all the same."""


_ERRORS: Final[dict[int, type[APIError]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitError,
}

_ADVICE: Final[dict[int, str]] = {
    401: " (check the key: OMI_API_KEY or Session(api_key=...) must hold a Developer API key, omi_dev_...)",
    403: " (check that the key has the scopes memories:read and memories:write; a new key may be needed)",
}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no standard status)"


_TITLE: Final = re.compile(rb"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_LONGEST_DETAIL: Final = 300
_LONGEST_PAGE: Final = 2**16
_ERRORS_NAMED: Final = 5
_MOST_DETAILS: Final = 100
"""Parts of a long detail that are kept at each level: more than the 25 items of a batch."""
_MOST_LEVELS: Final = 5
"""Levels of it: FastAPI's errors have three."""


def _detail(response: Response) -> Any:
    """Return FastAPI's `detail`, or what a proxy said instead, as text; None for JSON that is unreadable."""
    try:
        body = json.loads_answer(response.body)
    except json.JSONError:
        page = response.body[:_LONGEST_PAGE]
        title = _TITLE.search(page)
        if not title and page.lstrip().startswith((b"{", b"[", b'"')):
            return None  # JSON cut short may be a validation error, and those echo what was sent
        text = (title[1] if title else page[:_LONGEST_DETAIL]).decode(errors="replace")
        return " ".join(text.split())
    detail = body.get("detail", body) if isinstance(body, dict) else body
    return detail if len(response.body) <= _LONGEST_PAGE else _cut(detail)


def _cut(detail: Any, levels: int = _MOST_LEVELS) -> Any:
    """Return as much of a detail as a report can hold, which keeps failures by the thousand."""
    match detail:
        case str():
            return detail[:_LONGEST_DETAIL]
        case list() if levels:
            return [_cut(item, levels - 1) for item in detail[:_MOST_DETAILS]]
        case dict() if levels:
            return {_cut(key): _cut(detail[key], levels - 1) for key in [*detail][:_MOST_DETAILS]}
        case list() | dict():
            return None
        case _:
            return detail


def _sentence(response: Response, detail: Any) -> str:
    """Put the server's words into the message; of validation errors only the place, never the input."""
    location = response.header("Location")
    if 300 <= response.status < 400 and location:  # noqa: PLR2004  # the 3xx class
        return f": it points to {_host(location)}; redirects are not followed, correct the base URL"
    match detail:
        case str():
            words = detail
        case list():
            words = "; ".join(_validation_words(item) for item in detail[:_ERRORS_NAMED])
        case dict():
            given = (detail.get(key) for key in ("message", "reason", "code", "error"))
            words = ", ".join(word for word in given if isinstance(word, str))
        case _:
            words = ""
    return f": {shown(words)}" if words else ""


def _host(location: str) -> str:
    try:
        host = urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        host = "no readable address"
    return shown(host) or "another path"


def shown(words: str) -> str:
    """Make a server's words fit for a message: some hundred characters, none of which moves a cursor.

    Messages end in logs, journals and on terminals, and an answer may be 32 MiB of escapes.
    """
    return "".join(sign if sign.isprintable() else " " for sign in words[:_LONGEST_DETAIL])


def _validation_words(item: Any) -> str:
    if not isinstance(item, dict):
        return "unreadable validation error"
    loc = item.get("loc")
    return f"{_place(loc) if isinstance(loc, list) else '?'}: {_why(item)}"


def _place(loc: list[Any]) -> str:
    return ".".join(str(step) if isinstance(step, str | int) else "?" for step in loc)


def _why(item: dict[str, Any]) -> str:
    given = (item.get("msg"), item.get("type"))
    return next((words for words in given if isinstance(words, str)), "refused")


def log_name(error: OmiError) -> str:
    """Name an error for a log, without the server's words: those may hold what was sent."""
    return f"{error.status} {type(error).__name__}" if isinstance(error, APIError) else str(error)


def refused_items(error: OmiError) -> dict[int, str]:
    """Name the items of a batch that a 422 refuses: index to the server's words; {} if it names none.

    FastAPI gives ``loc: ["body", "memories", 3, "content"]``.
    """
    if not isinstance(error, InvalidRequestError) or not isinstance(error.detail, list):
        return {}
    refused: dict[int, str] = {}
    for item in error.detail:
        match item:
            case {"loc": ["body", "memories", int(index), *field]} if type(index) is int and index >= 0:
                before = f"{refused[index]}; " if index in refused else ""
                refused[index] = shown(f"{before}{_place(field)}: {_why(item)}")
            case _:
                return {}
    return refused
