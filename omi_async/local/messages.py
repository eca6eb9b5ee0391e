"""What goes over the wire, as values: a call that came in, the reply that goes out, a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from omi_async._api import json

__all__ = ["Call", "Refusal", "Reply"]

JSON_TYPE: Final = "application/json"

Headers = tuple[tuple[str, str], ...]

ABSENT: Final[Any] = object()
"""A request without a body, which is not the same as `null`."""


@attrs.frozen
class Reply:
    """An answer, before it is written to a socket.

    Attributes:
        cut: bytes of the body after which the connection is dropped, or None to send it whole.
        reset: drop the connection instead of answering.
        closes: close the connection after the answer, without a header that says so.
    """

    status: int
    body: bytes
    headers: Headers = ()
    content_type: str = JSON_TYPE
    cut: int | None = None
    reset: bool = False
    closes: bool = False

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Headers = ()) -> Reply:
        """Make an answer of JSON."""
        return cls(status, json.dumps(value), headers)

    @classmethod
    def detail(cls, status: int, detail: Any, *, headers: Headers = ()) -> Reply:
        """Make the answer that FastAPI gives to an HTTPException: an object with one `detail`."""
        return cls(status, json.dumps({"detail": detail}), headers)


BROKEN_DOWN: Final = Reply(
    500, b"Internal Server Error", content_type="text/plain; charset=utf-8", closes=True
)
"""What Starlette answers when the service's own code raised; uvicorn closes the connection then."""


class Refusal(Exception):  # noqa: N818 - a decision of the service, not an error of its code
    """The service refuses a call: carries the answer out of however deep the check stands."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply

    @classmethod
    def because(cls, status: int, detail: Any, *, headers: Headers = ()) -> Refusal:
        """Make the refusal that says `detail`."""
        return cls(Reply.detail(status, detail, headers=headers))


@attrs.frozen
class Call:
    """A request, routed and read.

    Attributes:
        kind: "list", "search", "create", "batch", "update", "delete", "key", or "" if there is no such route.
        payload: the JSON of the body, `ABSENT` if there is none.
        refusal: why no route or no JSON could be made of the request, decided before anything else.
    """

    kind: str
    memory_id: str = ""
    query: Mapping[str, str] = attrs.field(factory=dict)
    authorization: str | None = None
    payload: Any = ABSENT
    refusal: Refusal | None = None

    def contents(self) -> list[str]:
        """Return every text of a memory that the call carries, valid or not."""
        items = [item.get("content") for item in self._items() if isinstance(item, dict)]
        return [content for content in items if isinstance(content, str)]

    def item_count(self) -> int:
        """Return the number of memories in a batch, 1 for a single write, otherwise 0."""
        return len(self._items())

    def _items(self) -> list[Any]:
        # It is not validated yet: a fault is planned for a call whatever its body is.
        if not isinstance(self.payload, dict):
            return []
        if self.kind != "batch":
            return [self.payload]
        memories = self.payload.get("memories")
        return memories if isinstance(memories, list) else []
