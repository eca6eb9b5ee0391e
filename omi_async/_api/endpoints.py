"""The knowledge of the API: one builder per endpoint, and what an answer means.

Nothing here does I/O: ``interpret(create_memory(fact), Response(429, {"Retry-After": "7"}, b"..."))`` works
with nothing running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import attrs

from omi_async._api import json
from omi_async._api.codec import array_from, format_error, item_from, memories_from, memory_from, read_items
from omi_async._api.failures import error_for, shown
from omi_async._api.messages import BatchAnswer, ListedMemory, Page, Request, Response
from omi_async.constants import BATCH_SIZE, LONGEST_ID, PAGE_LIMIT, SEARCH_LIMIT
from omi_async.errors import ResponseFormatError
from omi_async.fact import Fact, Payload, fact_payload
from omi_async.key import KeyInfo
from omi_async.memory import FoundMemory, Memory

__all__ = [
    "create_batch",
    "create_memory",
    "delete_memory",
    "import_batch",
    "import_single",
    "interpret",
    "key_info",
    "list_for_import",
    "list_memories",
    "search_memories",
    "set_tags",
    "update_memory",
]

T = TypeVar("T")

MEMORIES: Final = "/v1/dev/user/memories"
KEY: Final = "/v1/dev/key"


def list_memories(
    *, limit: int = 25, offset: int = 0, categories: str | Sequence[str] = ()
) -> Request[Page[Memory]]:
    """Build GET memories. Raises ValueError if the server would silently take another limit."""
    return _list(_decode_page, limit, offset, categories)


def list_for_import(
    *, limit: int, offset: int, categories: str | Sequence[str] = ()
) -> Request[Page[ListedMemory]]:
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
        kind="list",
        operation="list memories",
        method="GET",
        path=f"{MEMORIES}?{urlencode(query)}",
        decode=decode,
        idempotent=True,
    )


def search_memories(query: str, *, limit: int = 10) -> Request[Page[FoundMemory]]:
    """Build GET memories/vector/search. Raises ValueError for an empty query or a limit that is refused."""
    if not query.strip():
        raise ValueError("there is nothing to search for")
    if not 1 <= limit <= SEARCH_LIMIT:
        raise ValueError(f"limit must be from 1 to {SEARCH_LIMIT}, not {limit}")
    try:
        asked = urlencode({"query": query, "limit": limit})
    except UnicodeEncodeError:
        raise ValueError("the query holds half of a surrogate pair, which is no Unicode text") from None
    return Request(
        kind="search",
        operation="search memories",
        method="GET",
        path=f"{MEMORIES}/vector/search?{asked}",
        decode=_decode_found,
        idempotent=True,
    )


def key_info() -> Request[KeyInfo]:
    """Build GET key: what the server says of the key that asks."""
    return Request(
        kind="key",
        operation="ask about the key",
        method="GET",
        path=KEY,
        decode=_decode_key,
        idempotent=True,
        advice={404: " (this server is too old to tell; list(limit=1) shows whether it takes the key)"},
    )


def create_memory(fact: Fact) -> Request[Memory]:
    """Build POST memories."""
    return _create(fact_payload(fact), _decode_memory)


def _create(payload: Payload, decode: Callable[[Response], T]) -> Request[T]:
    return Request(
        kind="create",
        operation="create a memory",
        method="POST",
        path=MEMORIES,
        body=json.dumps_checked(payload),
        decode=decode,
    )


def create_batch(facts: Sequence[Fact]) -> Request[list[Memory]]:
    """Build POST memories/batch that returns memories. Raises ValueError above 25 facts."""
    return _batch([fact_payload(fact) for fact in facts], _decode_batch)


def import_batch(payloads: Sequence[Payload]) -> Request[BatchAnswer]:
    """Build POST memories/batch for the importer: one attempt, read no further than identity needs."""
    return _batch(payloads, _decode_batch_named, attempts=1)


def import_single(payload: Payload) -> Request[BatchAnswer]:
    """Build POST memories for the importer, answered as a batch of one."""
    return attrs.evolve(_create(payload, _decode_single_named), attempts=1)


def _batch(
    payloads: Sequence[Payload], decode: Callable[[Response], T], attempts: int | None = None
) -> Request[T]:
    if len(payloads) > BATCH_SIZE:
        raise ValueError(
            f"a batch holds at most {BATCH_SIZE} facts, not {len(payloads)}; import_facts() takes any number"
        )
    return Request(
        kind="batch",
        operation=f"create a batch of {len(payloads)}",
        method="POST",
        path=f"{MEMORIES}/batch",
        body=json.dumps_checked({"memories": payloads}),
        decode=decode,
        slow=True,
        attempts=attempts,
    )


def update_memory(memory_id: str, changes: Mapping[str, Any]) -> Request[Memory]:
    """Build PATCH memories/{id}. Raises ValueError for an unusable id or no change."""
    if not changes:
        raise ValueError("nothing to update: give content, visibility, category or tags")
    return Request(
        kind="update",
        operation="update a memory",
        method="PATCH",
        path=f"{MEMORIES}/{_segment(memory_id)}",
        body=json.dumps(dict(changes)),
        decode=_decode_memory,
    )


def set_tags(memory_id: str, tags: Sequence[str]) -> Request[list[str]]:
    """Build PATCH memories/{id} for the importer: one attempt, answered by the tags that the memory has then.

    Doing it twice is the same as doing it once. Raises ValueError for an unusable id.
    """
    request = update_memory(memory_id, {"tags": tags})
    return attrs.evolve(request, decode=_decode_tags, idempotent=True, attempts=1)  # type: ignore[arg-type, return-value]


def delete_memory(memory_id: str) -> Request[None]:
    """Build DELETE memories/{id}. Raises ValueError for an unusable id."""
    return Request(
        kind="delete",
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
    """Read the JSON of an answer."""
    if response.cut:
        raise ResponseFormatError("the server's answer is too long to be one of this API")
    try:
        return json.loads_answer(response.body)
    except json.JSONError as error:
        raise ResponseFormatError(
            f"the server answered {response.status} with {_content(response)} that cannot be read",
            problems=[f"body: {error}"],
        ) from None


def _content(response: Response) -> str:
    if not response.body:
        return "an empty body"
    encoding = (response.header("Content-Encoding") or "").strip().lower()
    if encoding not in _ENCODINGS:
        return f"a body in the content encoding {shown(encoding)!r}, which was not asked for and"
    declared = (response.header("Content-Type") or "").partition(";")[0].strip().lower()
    return {"text/html": "an HTML page", "application/json": "JSON"}.get(declared, "a body")


_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})
"""Those that aiohttp has undone by the time that an answer is read, or could not read at all."""


def _decode_memory(response: Response) -> Memory:
    return memory_from(_json_body(response))


def _decode_tags(response: Response) -> list[str]:
    body = _json_body(response)
    tags = body.get("tags") if type(body) is dict else None
    if type(tags) is not list:
        raise format_error("the server's answer", ["tags: expected an array of strings"])
    return [tag for tag in tags if type(tag) is str]


def _decode_page(response: Response) -> Page[Memory]:
    body = _json_body(response)
    read = read_items(body, Memory)
    return Page(
        read.items,
        _truncated(response),
        len(body) - len(read.items),
        read.problems,
        frozenset(read.odd),
        frozenset([memory.category for memory in read.items]),
        answer=response,
    )


def _decode_found(response: Response) -> Page[FoundMemory]:
    body = _json_body(response)
    if type(body) is not dict:
        raise format_error("the server's answer", ["items: expected an object that holds this array"])
    found = read_items(body.get("items"), FoundMemory, "items")
    unreadable = len(body["items"]) - len(found.items)
    return Page(found.items, unreadable=unreadable, problems=found.problems, odd=frozenset(found.odd))


def _decode_key(response: Response) -> KeyInfo:
    return item_from(_json_body(response), KeyInfo, "key")


def _truncated(response: Response) -> bool:
    return (response.header("X-Omi-List-Truncated") or "").strip().lower() == "true"


def _decode_identity_page(response: Response) -> Page[ListedMemory]:
    body = array_from(_json_body(response), "body")
    items = [item for item in body if _is_readable(item)]
    found = [
        ListedMemory(
            memory_id,
            content,
            created,
            _text_of(item, "updated_at"),
            item.get("scoring") is not None,
            item.get("tags"),
        )
        for memory_id, content, created, item in zip(*_columns(items), items, strict=True)
    ]
    return Page(found, _truncated(response), len(body) - len(found), answer=response)


def _text_of(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return value if type(value) is str else ""


def _decode_batch_named(response: Response) -> BatchAnswer:
    items = _batch_items(_json_body(response))
    return BatchAnswer(*_columns(items), response, items)


def _decode_single_named(response: Response) -> BatchAnswer:
    items = [_json_body(response)]
    return BatchAnswer(*_columns(items), response, items)


def _columns(items: list[Any]) -> tuple[list[str], list[str], list[str]]:
    """Return id, content and `created_at` of the memories that can be read."""
    try:
        ids = [item["id"] for item in items]
        contents = [item["content"] for item in items]
        created = [item["created_at"] for item in items]
        texts = {*map(type, [*ids, *contents, *created])} <= {str}
        if texts and all(ids) and max(map(len, ids), default=0) <= LONGEST_ID:
            return ids, contents, created
    except (TypeError, KeyError):
        pass
    readable = [item for item in items if _is_readable(item)]
    dates = [item.get("created_at") for item in readable]
    return (
        [item["id"] for item in readable],
        [item["content"] for item in readable],
        [date if type(date) is str else "" for date in dates],
    )


def _is_readable(item: Any) -> bool:
    if type(item) is not dict:
        return False
    if type(item.get("id")) is not str or type(item.get("content")) is not str:
        return False
    return 0 < len(item["id"]) <= LONGEST_ID


def _batch_items(body: Any) -> list[Any]:
    if type(body) is not dict or type(body.get("memories")) is not list:
        raise format_error("the server's answer", ["memories: expected an object that holds this array"])
    return array_from(body["memories"], "memories")


def _decode_batch(response: Response) -> list[Memory]:
    return memories_from(_batch_items(_json_body(response)), "memories")


def _decode_deleted(response: Response) -> None:
    if response.status == HTTPStatus.NO_CONTENT:
        return
    body = _json_body(response)
    if type(body) is not dict or body.get("success") is not True:
        raise format_error("the server's answer", ['success: expected {"success": true}'])


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
    if 200 <= response.status < 300:  # noqa: PLR2004  # the 2xx class
        return request.decode(response)
    if response.status in request.answers:
        return request.answers[response.status]
    if repeated and request.method == "DELETE" and response.status == HTTPStatus.NOT_FOUND:
        return request.decode(Response(HTTPStatus.NO_CONTENT))
    raise error_for(request.operation, response, request.advice)
