"""The knowledge of the API: one builder per endpoint, and what an answer means.

Nothing here does I/O: ``interpret(create_memory(fact), Response(429, {"Retry-After": "7"}, b"..."))`` works
with nothing running.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import attrs

from omi_async import _json
from omi_async._codec import fact_payload, format_error, memories_from, memory_from
from omi_async._retry import parse_retry_after
from omi_async.config import BATCH_SIZE, PAGE_LIMIT, PRE_WORK_503
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
    ResponseFormatError,
    ServerError,
)
from omi_async.models import Fact, Memory

__all__ = [
    "Identity",
    "Page",
    "Request",
    "Response",
    "Sender",
    "create_batch",
    "create_memory",
    "delete_memory",
    "import_batch",
    "import_single",
    "interpret",
    "list_identities",
    "list_memories",
    "refused_items",
    "update_memory",
]

T = TypeVar("T")

MEMORIES: Final = "/v1/dev/user/memories"


@attrs.frozen
class Response:
    """An answer as it came: status, headers (any mapping), the whole body.

    Attributes:
        cut: whether the body was longer than the library reads; then it is only the beginning.
        received: when it came, in epoch seconds; needed only where the server sends no Date.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)
    cut: bool = False
    received: float | None = None

    def header(self, name: str) -> str | None:
        """Return a header whatever its case, also from a plain dict."""
        value = self.headers.get(name)
        if value is None:
            lowered = name.lower()
            value = next((text for key, text in self.headers.items() if key.lower() == lowered), None)
        return value


@attrs.frozen(kw_only=True)
class Request(Generic[T]):
    """One call, ready to be sent.

    Attributes:
        operation: what it does, in words for a person ("create a memory").
        path: below the base URL, percent-encoded, with its query.
        decode: makes a T of the answer to a success; raises `ResponseFormatError`.
        idempotent: doing it twice is the same as doing it once.
        slow: waits for the `batch_timeout` of the Session instead of its `timeout`.
        attempts: calls in all, or None for what the Session's `Retry` says.
    """

    operation: str
    method: str
    path: str
    decode: Callable[[Response], T] = attrs.field(repr=False, eq=False)
    body: bytes | None = attrs.field(default=None, repr=False)
    idempotent: bool = False
    slow: bool = False
    attempts: int | None = None


class Sender(Protocol):
    """What everything above the session needs of it."""

    @property
    def base_url(self) -> str:
        """The server's base URL, without a slash at its end; a journal knows its server by it."""
        ...

    async def send(self, request: Request[T], /) -> T:
        """Send a request and return what its answer means."""
        ...


class Identity(NamedTuple):
    """As much of a memory as the importer needs. `created_at` is the server's text, or None."""

    id: str
    content: str
    created_at: str | None


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=_HasId)


@attrs.frozen
class Page(Generic[Listed]):
    """One page of the list.

    Attributes:
        memories: in the server's order.
        truncated: the server gave up reading before the end of the list (X-Omi-List-Truncated).
        unreadable: elements that could not be read; always 0 where those raise.
        date: the answer's Date header.
    """

    memories: list[Listed]
    truncated: bool = False
    unreadable: int = 0
    date: str | None = None


def list_memories(
    *, limit: int = 25, offset: int = 0, categories: str | Sequence[str] = ()
) -> Request[Page[Memory]]:
    """Build GET memories. Raises ValueError where the server would silently take another limit."""
    return _list(_decode_page, limit, offset, categories)


def list_identities(
    *, limit: int, offset: int, categories: str | Sequence[str] = ()
) -> Request[Page[Identity]]:
    """Build GET memories for the importer: one attempt, and what is unreadable is counted, not raised."""
    return attrs.evolve(_list(_decode_identity_page, limit, offset, categories), attempts=1)


def _list(
    decode: Callable[[Response], T], limit: int, offset: int, categories: str | Sequence[str]
) -> Request[T]:
    if not 1 <= limit <= PAGE_LIMIT:
        raise ValueError(f"limit must be from 1 to {PAGE_LIMIT}, not {limit}; iterate() reads every page")
    if offset < 0:
        raise ValueError(f"offset must not be negative, not {offset}")
    query: dict[str, str | int] = {"limit": limit, "offset": offset}
    if categories:
        query["categories"] = categories if isinstance(categories, str) else ",".join(categories)
    return Request(
        operation="list memories",
        method="GET",
        path=f"{MEMORIES}?{urlencode(query)}",
        decode=decode,
        idempotent=True,
    )


def create_memory(fact: Fact) -> Request[Memory]:
    """Build POST memories."""
    return _create(fact, _decode_memory)


def _create(fact: Fact, decode: Callable[[Response], T]) -> Request[T]:
    return Request(
        operation="create a memory",
        method="POST",
        path=MEMORIES,
        body=_json.dumps(fact_payload(fact)),
        decode=decode,
    )


def create_batch(facts: Sequence[Fact]) -> Request[list[Memory]]:
    """Build POST memories/batch that returns memories. Raises ValueError above 25 facts."""
    return _batch(facts, _decode_batch)


def import_batch(facts: Sequence[Fact]) -> Request[Page[Identity]]:
    """Build POST memories/batch for the importer: one attempt, read no further than identity needs."""
    return attrs.evolve(_batch(facts, _decode_batch_identities), attempts=1)


def import_single(fact: Fact) -> Request[Page[Identity]]:
    """Build POST memories for the importer, answered as a batch of one."""
    return attrs.evolve(_create(fact, _decode_single_identity), attempts=1)


def _batch(facts: Sequence[Fact], decode: Callable[[Response], T]) -> Request[T]:
    if len(facts) > BATCH_SIZE:
        raise ValueError(
            f"a batch holds at most {BATCH_SIZE} facts, not {len(facts)}; import_facts() takes any number"
        )
    return Request(
        operation=f"create a batch of {len(facts)}",
        method="POST",
        path=f"{MEMORIES}/batch",
        body=_json.dumps({"memories": [fact_payload(fact) for fact in facts]}),
        decode=decode,
        slow=True,
    )


def update_memory(memory_id: str, changes: Mapping[str, Any]) -> Request[Memory]:
    """Build PATCH memories/{id}. Raises ValueError for an unusable id or no change."""
    if not changes:
        raise ValueError("nothing to update: give content, visibility, category or tags")
    return Request(
        operation="update a memory",
        method="PATCH",
        path=f"{MEMORIES}/{_segment(memory_id)}",
        body=_json.dumps(dict(changes)),
        decode=_decode_memory,
    )


def delete_memory(memory_id: str) -> Request[None]:
    """Build DELETE memories/{id}. Raises ValueError for an unusable id."""
    return Request(
        operation="delete a memory",
        method="DELETE",
        path=f"{MEMORIES}/{_segment(memory_id)}",
        decode=_decode_deleted,
        idempotent=True,
    )


def _segment(memory_id: str) -> str:
    """Encode an id as one path segment. '', '.' and '..' would name another resource."""
    if memory_id in {"", ".", ".."}:
        raise ValueError(f"not a memory id: {memory_id!r}")
    try:
        return quote(memory_id, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"not a memory id: {memory_id!r} is no Unicode text") from None


# What a success says


def _json_body(response: Response) -> Any:
    if response.cut:
        raise ResponseFormatError("the server's answer is too long to be one of this API")
    try:
        return _json.loads(response.body)
    except _json.JSONError as error:
        kind = _content_type(response)
        raise ResponseFormatError(
            f"the server answered {response.status} with {kind} that cannot be read",
            problems=[f"body: {error}"],
        ) from None


def _content_type(response: Response) -> str:
    if not response.body:
        return "an empty body"
    declared = (response.header("Content-Type") or "").partition(";")[0].strip().lower()
    return {"text/html": "an HTML page", "application/json": "JSON"}.get(declared, "a body")


def _decode_memory(response: Response) -> Memory:
    return memory_from(_json_body(response))


def _decode_page(response: Response) -> Page[Memory]:
    return Page(memories_from(_json_body(response)), _truncated(response))


def _truncated(response: Response) -> bool:
    return (response.header("X-Omi-List-Truncated") or "").strip().lower() == "true"


def _decode_identity_page(response: Response) -> Page[Identity]:
    body = _json_body(response)
    if type(body) is not list:
        raise format_error("the server's answer", ["body: expected an array"])
    return _identities(body, response)


def _decode_batch_identities(response: Response) -> Page[Identity]:
    return _identities(_batch_items(response), response)


def _decode_single_identity(response: Response) -> Page[Identity]:
    return _identities([_json_body(response)], response)


def _identities(items: list[Any], response: Response) -> Page[Identity]:
    found = []
    for item in items:
        try:
            memory_id, content, created_at = item["id"], item["content"], item.get("created_at")
        except (TypeError, KeyError, AttributeError):
            continue
        if type(memory_id) is str and type(content) is str and memory_id:
            found.append(Identity(memory_id, content, created_at if type(created_at) is str else None))
    return Page(found, _truncated(response), len(items) - len(found), response.header("Date"))


def _batch_items(response: Response) -> Any:
    body = _json_body(response)
    if type(body) is not dict or type(body.get("memories")) is not list:
        raise format_error("the server's answer", ["memories: expected an object that holds this array"])
    return body["memories"]


def _decode_batch(response: Response) -> list[Memory]:
    return memories_from(_batch_items(response), "memories")


def _decode_deleted(response: Response) -> None:
    if response.status == HTTPStatus.NO_CONTENT:
        return
    body = _json_body(response)
    if type(body) is not dict or body.get("success") is not True:
        raise format_error("the server's answer", ['success: expected {"success": true}'])


# What a failure says


def interpret(request: Request[T], response: Response, *, repeated: bool = False) -> T:
    """Return what the answer means, or raise the error that it is.

    Args:
        request: the call that was made.
        response: the answer to it.
        repeated: whether an earlier attempt of the same call may have been applied; then a DELETE that finds
            nothing has done its work.

    Raises:
        APIError: the subclass for the status.
        ResponseFormatError: a success that does not decode.
    """
    if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        return request.decode(response)
    if repeated and request.method == "DELETE" and response.status == HTTPStatus.NOT_FOUND:
        return request.decode(Response(HTTPStatus.NO_CONTENT))
    raise error_for(request, response)


def error_for(request: Request[Any], response: Response) -> APIError:
    """Make the error for a status that is no success."""
    status = response.status
    detail = _detail(response)
    message = f"cannot {request.operation}: {status} {_phrase(status)}{_sentence(response, detail)}"
    message += _ADVICE.get(status, "")
    about: dict[str, Any] = {"status": status, "detail": detail, "headers": response.headers}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitError(message, retry_after=_retry_after(response), **about)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        before_work = (
            status == HTTPStatus.SERVICE_UNAVAILABLE and isinstance(detail, str) and detail in PRE_WORK_503
        )
        return ServerError(
            message, retry_after=_retry_after(response), maybe_applied=not before_work, **about
        )
    return _ERRORS.get(status, APIError)(message, **about)


_ERRORS: Final[dict[int, type[APIError]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
}

_ADVICE: Final[dict[int, str]] = {
    401: " (check the key: OMI_API_KEY or Session(api_key=...) must hold a Developer API key, omi_dev_...)",
    403: " (check that the key has the scopes memories:read and memories:write; a new key may be needed)",
}


def _retry_after(response: Response) -> float | None:
    return parse_retry_after(
        response.header("Retry-After"), date=response.header("Date"), now=response.received
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no standard status)"


_TITLE: Final = re.compile(rb"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_LONGEST_DETAIL: Final = 300
_LONGEST_PAGE: Final = 2**16
_ERRORS_NAMED: Final = 5


def _detail(response: Response) -> Any:
    """Return FastAPI's `detail`, or what a proxy said instead, as text; None for JSON that is unreadable."""
    try:
        body = _json.loads(response.body)
    except _json.JSONError:
        page = response.body[:_LONGEST_PAGE]
        title = _TITLE.search(page)
        if not title and page.lstrip().startswith((b"{", b"[", b'"')):
            return None  # JSON cut short may be a validation error, and those echo what was sent
        text = (title[1] if title else page[:_LONGEST_DETAIL]).decode(errors="replace")
        return " ".join(text.split())
    if isinstance(body, dict):
        return body.get("detail", body)
    return body


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
    return f": {_one_line(words[:_LONGEST_DETAIL])}" if words else ""


def _host(location: str) -> str:
    try:
        host = urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        host = "no readable address"
    return _one_line(host[:_LONGEST_DETAIL]) or "another path"


def _one_line(words: str) -> str:
    """Keep line ends and the escapes of terminals out of messages, which end in logs and on screens."""
    return "".join(sign if sign.isprintable() else " " for sign in words)


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


def refused_items(error: OmiError) -> dict[int, str]:
    """Name the items of a batch that a 422 refuses: index to the server's words; {} where it names none.

    FastAPI gives ``loc: ["body", "memories", 3, "content"]``.
    """
    if not isinstance(error, InvalidRequestError) or not isinstance(error.detail, list):
        return {}
    refused: dict[int, str] = {}
    for item in error.detail:
        match item:
            case {"loc": ["body", "memories", int(index), *field]} if type(index) is int and index >= 0:
                words = f"{_place(field)}: {_why(item)}"
                refused[index] = f"{refused[index]}; {words}" if index in refused else words
            case _:
                return {}
    return refused
