"""Faults: how the stand-in server misbehaves on request.

A `Fault` is a plain value; `server.faults.add(Fault.after_prefix(3), on="batch")` makes it happen to the next
batch call. `Chaos(seed)` draws faults at random, the same ones for the same seed and order of calls::

    Fault.answer(503, "Rate limiter unavailable")     any status, detail, headers; nothing is stored
    Fault.answer(500, stored=True)                    the same answer, given after the work was done
    Fault.rate_limited(retry_after=7)                 a 429 that no quota caused
    Fault.html(502)                                   the page of a proxy in front of the service
    Fault.empty(504)                                  no body at all
    Fault.garbage()                                   a 200 whose body is no JSON
    Fault.after_prefix(3)                             a batch breaks down with three memories stored
    Fault.after_all()                                 everything is stored, the answer is a 500
    Fault.reset()  Fault.reset(stored=True)           the connection is reset, before or after the work
    Fault.half_body()                                 everything is stored, half of the answer arrives
    Fault.names_only(20)                              a 200 that names only the first 20 memories
    Fault.reordered()                                 the memories in reverse order
    Fault.slow(2.0)  Fault.slow(2.0, stored=True)     seconds of delay before or after the work
    Fault.list_lag(5.0)                               the list does not show what is younger than 5 seconds
    Fault.poison("bad word")                          a write that holds the text is refused
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import attrs

from omi_async._api import json
from omi_async.local.messages import BROKEN_DOWN, JSON_TYPE, Reply
from omi_async.local.quotas import OPERATIONS
from omi_async.local.service import Twist

__all__ = ["FOREVER", "Chaos", "Fault", "Faults"]

FOREVER: Final = math.inf
"""For `times`: the fault is never used up."""

Sleep = Callable[[float], Awaitable[Any]]


class Work(Protocol):
    """The work of the service for one call: do it, in the plain way or with departures from it."""

    def __call__(self, **twist: Any) -> Reply: ...


class Fault:
    """Something that goes wrong with one call. Make one with the class methods; they compare by value.

    Attributes:
        operations: the calls that it can happen to, where nothing else is said.
        times: how often it happens, where nothing else is said.
    """

    operations: ClassVar[tuple[str, ...]] = OPERATIONS
    times: ClassVar[float] = 1

    async def happen(self, work: Work, sleep: Sleep) -> Reply:  # noqa: ARG002 - the plain way
        """Answer the call: do the work, or not, and bend the answer."""
        return work(**self.twist())

    def twist(self) -> dict[str, Any]:
        """Give what is asked of the service itself (the fields of `Twist`)."""
        return {}

    def concerns(self, contents: Sequence[str]) -> bool:  # noqa: ARG002 - the plain way
        """Say whether it happens to a call that carries these texts."""
        return True

    @staticmethod
    def answer(
        status: int,
        detail: object = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        stored: bool = False,
    ) -> Fault:
        """Answer with `detail` (string, list or object) as FastAPI would, or with the bytes of `body`."""
        given = dict(headers or {})
        content_type = given.pop("Content-Type", JSON_TYPE)
        if body is None:
            body = json.dumps({"detail": detail})
        return Answered(Reply(status, body, tuple(given.items()), content_type), stored)

    @staticmethod
    def rate_limited(retry_after: str | float | None = None, *, limit: int | None = None) -> Fault:
        """Answer 429; with `Retry-After` (as it is written here) and `X-RateLimit-Limit`, or without."""
        headers = {"Retry-After": retry_after, "X-RateLimit-Limit": limit}
        said = {name: str(value) for name, value in headers.items() if value is not None}
        seconds = "" if retry_after is None else f" Try again in {retry_after}s."
        return Fault.answer(429, f"Rate limit exceeded.{seconds}", headers=said)

    @staticmethod
    def html(status: int = 502, *, stored: bool = False) -> Fault:
        """Answer as a proxy does, with a page."""
        page = f"<html><head><title>{status}</title></head><body><h1>Error {status}</h1></body></html>"
        headers = {"Content-Type": "text/html; charset=UTF-8"}
        return Fault.answer(status, body=page.encode(), headers=headers, stored=stored)

    @staticmethod
    def empty(status: int = 504, *, stored: bool = False) -> Fault:
        """Answer without a body, as the service's timeout does."""
        return Fault.answer(status, body=b"", stored=stored)

    @staticmethod
    def garbage(body: bytes = b'{"memories": [{"id": \x00\xff', *, stored: bool = True) -> Fault:
        """Answer 200 with bytes that are no JSON."""
        return Fault.answer(200, body=body, stored=stored)

    @staticmethod
    def after_prefix(count: int, *, status: int = 500) -> Fault:
        """Break down in a batch when its first `count` memories are stored."""
        return AfterPrefix(count, status)

    @staticmethod
    def after_all(*, status: int = 500) -> Fault:
        """Break down when everything is stored."""
        return Answered(_breakdown(status), stored=True)

    @staticmethod
    def reset(*, stored: bool = False) -> Fault:
        """Reset the connection instead of answering, before the work or (`stored`) after it."""
        return Reset(stored)

    @staticmethod
    def half_body() -> Fault:
        """Do the work, send half of the answer's body, and drop the connection."""
        return HalfBody()

    @staticmethod
    def names_only(count: int) -> Fault:
        """Do the work, and name only the first `count` of the memories in the answer."""
        return NamesOnly(count)

    @staticmethod
    def reordered() -> Fault:
        """Do the work, and give the memories of the answer in reverse order."""
        return Reordered()

    @staticmethod
    def slow(seconds: float, *, stored: bool = False) -> Fault:
        """Wait before the work, or (`stored`) between the work and the answer."""
        return Slow(seconds, stored)

    @staticmethod
    def list_lag(seconds: float) -> Fault:
        """Hide from the list, for ever, what was created less than `seconds` ago by the server's clock."""
        return ListLag(seconds)

    @staticmethod
    def poison(
        text: str | Callable[[str], bool], *, status: int = 422, loc: bool = True, stored_prefix: bool = False
    ) -> Fault:
        """Refuse, for ever, every write with a text that holds `text` (or that the function says yes to).

        A 422 with `loc` names the memory, without it gives a sentence only. With `stored_prefix` the memories
        of a batch that stand before the poisoned one are stored.
        """
        return Poison(text, status, loc, stored_prefix)


def _breakdown(status: int) -> Reply:
    return attrs.evolve(BROKEN_DOWN, status=status)


@attrs.frozen
class Answered(Fault):
    """See `Fault.answer`."""

    reply: Reply
    stored: bool

    async def happen(self, work: Work, sleep: Sleep) -> Reply:  # noqa: ARG002 - like the base
        """Give the answer, after the work or instead of it."""
        if self.stored:
            work()
        return self.reply


@attrs.frozen
class AfterPrefix(Fault):
    """See `Fault.after_prefix`."""

    operations = ("batch",)

    count: int = attrs.field(validator=attrs.validators.ge(0))
    status: int = 500

    def twist(self) -> dict[str, Any]:
        """Ask for the breakdown."""
        return {"at_most": self.count, "breakdown": _breakdown(self.status)}


@attrs.frozen
class Reset(Fault):
    """See `Fault.reset`."""

    stored: bool

    async def happen(self, work: Work, sleep: Sleep) -> Reply:  # noqa: ARG002 - like the base
        """Give an answer that is never sent."""
        if self.stored:
            work()
        return Reply(0, b"", reset=True)


@attrs.frozen
class HalfBody(Fault):
    """See `Fault.half_body`."""

    async def happen(self, work: Work, sleep: Sleep) -> Reply:  # noqa: ARG002 - like the base
        """Cut the answer."""
        reply = work()
        return attrs.evolve(reply, cut=len(reply.body) // 2)


class _Rearranged(Fault):
    """The work is done, the memories of its answer are not all there or not in order."""

    operations = ("list", "batch")

    async def happen(self, work: Work, sleep: Sleep) -> Reply:  # noqa: ARG002 - like the base
        """Rearrange the memories of a good answer."""
        reply = work()
        if reply.status != 200:  # noqa: PLR2004 - a refusal names no memories
            return reply
        value = json.loads(reply.body)
        if isinstance(value, dict):
            value["memories"] = self.rearrange(value["memories"])
            value["created_count"] = len(value["memories"])
        else:
            value = self.rearrange(value)
        return attrs.evolve(reply, body=json.dumps(value))

    def rearrange(self, memories: list[Any]) -> list[Any]:
        """Give the memories as they are to be sent."""
        raise NotImplementedError


@attrs.frozen
class NamesOnly(_Rearranged):
    """See `Fault.names_only`."""

    count: int = attrs.field(validator=attrs.validators.ge(0))

    def rearrange(self, memories: list[Any]) -> list[Any]:
        """Keep the first ones."""
        return memories[: self.count]


@attrs.frozen
class Reordered(_Rearranged):
    """See `Fault.reordered`."""

    def rearrange(self, memories: list[Any]) -> list[Any]:
        """Turn them round."""
        return memories[::-1]


@attrs.frozen
class Slow(Fault):
    """See `Fault.slow`."""

    seconds: float = attrs.field(validator=attrs.validators.ge(0))
    stored: bool = False

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        """Sleep, on one side of the work."""
        if not self.stored:
            await sleep(self.seconds)
            return work()
        reply = work()
        await sleep(self.seconds)
        return reply


class Condition(Fault):
    """A fault that is a state rather than an event: it happens for ever, beside any other fault."""

    times = FOREVER


@attrs.frozen
class ListLag(Condition):
    """See `Fault.list_lag`."""

    operations = ("list",)

    seconds: float = attrs.field(validator=attrs.validators.ge(0))

    def twist(self) -> dict[str, Any]:
        """Ask for the lag."""
        return {"hide_newer": self.seconds}


@attrs.frozen
class Poison(Condition):
    """See `Fault.poison`."""

    operations = ("create", "batch", "update")

    text: str | Callable[[str], bool]
    status: int = 422
    loc: bool = True
    stored_prefix: bool = False

    def concerns(self, contents: Sequence[str]) -> bool:
        """Say whether one of the texts is poisoned."""
        return self._first(contents) is not None

    def twist(self) -> dict[str, Any]:
        """Ask for the inspection."""
        return {"inspect": (self.inspect,)}

    def inspect(self, operation: str, contents: Sequence[str]) -> tuple[int, Reply] | None:
        """Give the place of the first poisoned text that is not to be stored, and the answer to it."""
        index = self._first(contents)
        if index is None:
            return None
        item: list[str | int] = ["memories", index] if operation == "batch" else []
        place = ["body", *item, "content"]
        return index if self.stored_prefix else 0, self._refusal(place, contents[index])

    def _first(self, contents: Sequence[str]) -> int | None:
        return next((index for index, content in enumerate(contents) if self._holds(content)), None)

    def _holds(self, content: str) -> bool:
        return self.text in content if isinstance(self.text, str) else self.text(content)

    def _refusal(self, place: list[str | int], content: str) -> Reply:
        if self.status >= 500:  # noqa: PLR2004 - the service's code raises, it does not refuse
            return _breakdown(self.status)
        if self.status != 422 or not self.loc:  # noqa: PLR2004
            return Reply.detail(self.status, "This memory cannot be stored")
        message = "Value error, this memory cannot be stored"
        problem = {
            "type": "value_error",
            "loc": place,
            "msg": message,
            "input": content,
            "ctx": {"error": {}},
        }
        return Reply.detail(422, [problem])


async def happen(faults: Sequence[Fault], answer: Callable[[Twist], Reply], sleep: Sleep) -> Reply:
    """Answer a call with the faults that were taken for it."""
    standing: dict[str, Any] = {}
    events = []
    for fault in faults:
        if isinstance(fault, Condition):
            standing = _merged(standing, fault.twist())
        else:
            events.append(fault)

    def work(**twist: Any) -> Reply:
        return answer(Twist(**_merged(standing, twist)))

    return await events[0].happen(work, sleep) if events else work()


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = first | second
    if "inspect" in first and "inspect" in second:
        merged["inspect"] = first["inspect"] + second["inspect"]
    return merged


class Chaos:
    """A random source of faults: the same ones for the same seed and the same order of calls.

    Attributes:
        rate: the share of calls that go wrong, 0 to 1.
        menu: the faults to draw from; None for a set of all kinds.
    """

    def __init__(self, seed: int, *, rate: float = 0.1, menu: Iterable[Fault] | None = None) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is a share of the calls, 0 to 1, not {rate}")
        self.seed = seed
        self.rate = rate
        self.menu = MENU if menu is None else tuple(menu)
        self._random = random.Random(seed)  # noqa: S311 - it is to be predictable

    def __repr__(self) -> str:
        return f"Chaos({self.seed!r}, rate={self.rate!r})"

    def draw(self, operation: str) -> Fault | None:
        """Give the fault for the next call, or None. Every call draws two numbers, whatever becomes of it."""
        hit, choice = self._random.random() < self.rate, self._random.random()
        fitting = [fault for fault in self.menu if operation in fault.operations]
        return fitting[int(choice * len(fitting))] if hit and fitting else None


MENU: Final = (
    Fault.answer(503, "Rate limiter unavailable"),
    Fault.answer(503, "Memory writes are globally paused"),
    Fault.answer(500, "Internal Server Error"),
    Fault.rate_limited(0),
    Fault.rate_limited(),
    Fault.html(502),
    Fault.html(502, stored=True),
    Fault.empty(504),
    Fault.empty(504, stored=True),
    Fault.garbage(),
    Fault.after_all(),
    Fault.after_prefix(1),
    Fault.after_prefix(12),
    Fault.after_prefix(24),
    Fault.reset(),
    Fault.reset(stored=True),
    Fault.half_body(),
    Fault.names_only(0),
    Fault.names_only(20),
    Fault.reordered(),
)
"""What `Chaos` draws from unless it is given something else: what passes when the call is tried again."""


@attrs.define
class _Planned:
    fault: Fault
    operations: tuple[str, ...]
    left: float


class Faults:
    """The faults that are planned for the calls to come.

    Scripted ones happen in the order in which they were added, each to the first call that it fits; one call
    has one of them. Conditions (`list_lag`, `poison`) happen beside them. Where no scripted fault fits,
    `chaos` may draw one.
    """

    def __init__(self, chaos: Chaos | None = None) -> None:
        self.chaos = chaos
        self._planned: list[_Planned] = []

    def __iter__(self) -> Iterator[Fault]:
        """Give the faults that are still to happen."""
        return iter([planned.fault for planned in self._planned])

    def __len__(self) -> int:
        return len(self._planned)

    def __repr__(self) -> str:
        return f"Faults({list(self)!r}, chaos={self.chaos!r})"

    def add(self, *faults: Fault, on: str | Iterable[str] | None = None, times: float | None = None) -> None:
        """Plan faults, one after the other.

        `on` names the operations that they happen to ("list", "search", "create", "batch", "update",
        "delete", "key"; "any"); without it they are those that the fault is made for. `times` is how often
        each happens: once, or for ever (`FOREVER`) for `list_lag` and `poison`. Raises ValueError.
        """
        if times is not None and times < 1:
            raise ValueError(f"a fault happens once or more often, not {times} times")
        names = _names(on)
        for fault in faults:
            left = fault.times if times is None else times
            self._planned.append(_Planned(fault, names or fault.operations, left))

    def clear(self) -> None:
        """Forget every fault that is still planned, and end the chaos."""
        self._planned.clear()
        self.chaos = None

    def take(self, operation: str, read_contents: Callable[[], Sequence[str]]) -> list[Fault]:
        """Use up what happens to a call: the conditions, then at most one other fault.

        `read_contents` gives the texts that the call carries.
        """
        if not self._planned and self.chaos is None:
            return []
        contents = read_contents()
        fitting = [p for p in self._planned if operation in p.operations and p.fault.concerns(contents)]
        taken = [p for p in fitting if isinstance(p.fault, Condition)]
        taken += [p for p in fitting if not isinstance(p.fault, Condition)][:1]
        for planned in taken:
            planned.left -= 1
        self._planned = [p for p in self._planned if p.left > 0]
        faults = [planned.fault for planned in taken]
        return faults + self._drawn(operation, faults)

    def _drawn(self, operation: str, faults: Sequence[Fault]) -> list[Fault]:
        if self.chaos is None or not operation:
            return []
        drawn = self.chaos.draw(operation)
        scripted = any(not isinstance(fault, Condition) for fault in faults)
        return [] if drawn is None or scripted else [drawn]


def _names(on: str | Iterable[str] | None) -> tuple[str, ...]:
    if on is None:
        return ()
    names = (on,) if isinstance(on, str) else tuple(on)
    if "any" in names:
        return OPERATIONS
    if unknown := set(names).difference(OPERATIONS):
        raise ValueError(
            f"no such operation: {', '.join(sorted(unknown))}; there are {', '.join(OPERATIONS)}"
        )
    return names
