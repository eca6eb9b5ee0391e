"""What goes over the wire, and what comes back: plain values, known to everything above."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import attrs

__all__ = ["BatchAnswer", "Kind", "Listed", "ListedMemory", "Page", "Request", "Response"]

T = TypeVar("T")

Kind = Literal["list", "search", "create", "batch", "update", "delete", "key"]
"""The kinds of calls; the service's quotas are kept by them."""


@attrs.frozen(slots=False)  # one is made for each call: a frozen class with slots takes longer to fill
class Response:
    """An answer as it came: status, headers (any mapping), the whole body.

    Attributes:
        cut: whether the body was longer than the library reads; then it is only the beginning.
        sent: when its call left, in epoch seconds.
        received: when it came.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)
    cut: bool = False
    sent: float | None = None
    received: float | None = None

    def header(self, name: str) -> str | None:
        """Return a header whatever its case, also from a plain dict."""
        value = self.headers.get(name)
        if value is None and not hasattr(self.headers, "getall"):  # a multidict of aiohttp's knows no case
            lowered = name.lower()
            value = next((text for key, text in self.headers.items() if key.lower() == lowered), None)
        return value


@attrs.frozen(kw_only=True, slots=False)  # as Response
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
        answers: statuses that are no failures for this call, to what they mean.
        advice: what to add to the words of an error, by its status.
        guard: asked right before the bytes of the body leave, after every wait; if it says no, they do not.
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
    answers: Mapping[int, T] = attrs.field(factory=dict, repr=False, eq=False)
    advice: Mapping[int, str] = attrs.field(factory=dict, repr=False, eq=False)
    guard: Callable[[], bool] | None = attrs.field(default=None, repr=False, eq=False)


class BatchAnswer(NamedTuple):
    """As much of an answer's memories as the importer needs, column by column.

    Attributes:
        ids: of each memory.
        contents: likewise.
        created: the server's text for `created_at`; empty if there is none.
        answer: what they were read from.
        memories: all of it, as it came.
    """

    ids: list[str]
    contents: list[str]
    created: list[str]
    answer: Response
    memories: Sequence[Any] = ()


class ListedMemory(NamedTuple):
    """The same of one memory of the list, and what shows in which order the list is.

    Attributes:
        updated_at: the server's text; empty if there is none.
        scored: whether it shows a `scoring`, by which older servers sort.
        tags: what it says of its tags, whatever that is.
    """

    id: str
    content: str
    created_at: str
    updated_at: str = ""
    scored: bool = False
    tags: object = None


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=_HasId)


class Page(NamedTuple, Generic[T]):
    """One page of the list.

    Attributes:
        memories: in the server's order.
        truncated: the server gave up reading before the end of the list (X-Omi-List-Truncated).
        unreadable: elements that could not be read at all, for want of an id.
        problems: what is wrong, in words, with those and with the odd memories.
        odd: ids of the memories that could be read only in part.
        categories: those of the memories; empty if it was not looked at them.
        beyond: the server refused the page, since it does not show the list so far.
        answer: what they were read from, for those who need more of it.
    """

    memories: list[T]
    truncated: bool = False
    unreadable: int = 0
    problems: Sequence[str] = ()
    odd: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    beyond: bool = False
    answer: Response | None = None
