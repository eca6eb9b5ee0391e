"""What goes over the wire, and what comes back: plain values, known to everything above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import attrs

__all__ = [
    "Crowd",
    "Identity",
    "Kind",
    "Listed",
    "Named",
    "Pacing",
    "Page",
    "QuotaState",
    "Request",
    "Response",
    "Sender",
    "Turn",
]

T = TypeVar("T")

Kind = Literal["list", "create", "batch", "update", "delete"]
"""The kinds of calls; the service's quotas are kept by them."""


Source = Literal["given", "documented", "announced", "learned"]
"""Who says that there is such a policy: the user, the documentation, each answer, or a refusal."""


@attrs.frozen
class QuotaState:
    """What is known of one policy at this moment.

    Attributes:
        policy: its name, such as "15-an-hour".
        kinds: the calls that share it.
        limit: calls in one window; None while nobody has said.
        window: seconds; None while nobody can tell.
        used: calls counted in the window that is open.
        opens_at: when the next window opens, where this one is used up; None where a call may go now.
        source: who says that there is such a policy: "given" (by you), "documented", "announced" (by each
            answer) or "learned" (from a refusal).
    """

    policy: str
    kinds: frozenset[Kind]
    limit: int | None
    window: float | None
    used: int
    opens_at: datetime | None
    source: Source


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


class Turn(Protocol):
    """Leave to make one call; to be ended in one of three ways, of which only the first counts."""

    def give_back(self) -> None:
        """End it without a call."""
        ...

    def answered(self, response: Response) -> None:
        """End it with an answer, of whatever status."""
        ...

    def failed(self, error: BaseException) -> None:
        """End it without an answer; a call that was given up may have reached the server."""
        ...


class Crowd(Protocol):
    """The calls of one import, which wait for more than quotas and connections."""

    @property
    def free(self) -> bool:
        """Whether another one may begin."""
        ...

    def begin(self) -> None:
        """Note that one begins."""
        ...

    def end(self) -> None:
        """Note that one has ended."""
        ...

    def parked(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls of this kind have to wait so many seconds for a quota."""
        ...


class Pacing(Protocol):
    """Gives out turns, in the order in which they were asked for."""

    def turn_at_once(self, kind: Kind, *, crowd: Crowd | None = None) -> Turn | None:
        """Return a turn, or None where it would have to be waited for."""
        ...

    async def turn(self, kind: Kind, *, crowd: Crowd | None = None, patience: float | None = None) -> Turn:
        """Wait for a turn, for so many seconds of quotas at most."""
        ...

    def wait(self, kind: Kind, *, live: bool = True) -> float:
        """Return the seconds until a call may go, as far as quotas are concerned."""
        ...

    def capacity(self, kind: Kind, seconds: float) -> float:
        """Return how many calls an import can make within so many seconds."""
        ...

    def seconds_for(self, kind: Kind, calls: int) -> float:
        """Return how long so many calls of an import wait for windows, the last one of them."""
        ...

    def poke(self) -> None:
        """Look again who may go: a crowd has changed its mind."""
        ...


class Sender(Protocol):
    """What everything above the session needs of it."""

    @property
    def base_url(self) -> str:
        """The server's base URL, without a slash at its end; a journal knows its server by it."""
        ...

    @property
    def pacing(self) -> Pacing:
        """Who may call now."""
        ...

    async def send(self, request: Request[T], /, *, turn: Turn | None = None) -> T:
        """Send a request and return what its answer means; with a turn, in one attempt."""
        ...


class Named(NamedTuple):
    """As much of an answer's memories as the importer needs, column by column.

    Attributes:
        ids: of each memory.
        contents: likewise.
        created: the server's text for `created_at`; empty where there is none.
        answer: what they were read from.
    """

    ids: list[str]
    contents: list[str]
    created: list[str]
    answer: Response


class Identity(NamedTuple):
    """The same of one memory of the list."""

    id: str
    content: str
    created_at: str


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=_HasId)


class Page(NamedTuple, Generic[T]):
    """One page of the list.

    Attributes:
        memories: in the server's order.
        truncated: the server gave up reading before the end of the list (X-Omi-List-Truncated).
        unreadable: elements that could not be read; always 0 where those raise.
        answer: what they were read from, for those who need more of it.
    """

    memories: list[T]
    truncated: bool = False
    unreadable: int = 0
    answer: Response | None = None
