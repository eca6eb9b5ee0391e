"""What goes over the wire, and what comes back: plain values, known to everything above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import attrs

__all__ = ["Identity", "Kind", "Listed", "Page", "Request", "Response", "Sender"]

T = TypeVar("T")

Kind = Literal["list", "create", "batch", "update", "delete"]
"""The kinds of calls; the service's quotas are kept by them."""


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
        kind: whose quotas it spends.
        operation: what it does, in words for a person ("create a memory").
        path: below the base URL, percent-encoded, with its query.
        decode: makes a T of the answer to a success; raises `ResponseFormatError`.
        idempotent: doing it twice is the same as doing it once.
        slow: waits for the `batch_timeout` of the Session instead of its `timeout`.
        attempts: calls in all, or None for what the Session's `Retry` says.
    """

    kind: Kind
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
