"""Faults: how the stand-in server misbehaves on request.

Faults are plain values, made by the static methods of `Fault`. One happens to the next batch call after
`server.faults.add(Fault.after_prefix(3), on="batch")`; `omi_async.local.plan` decides which call meets which.
A fault that needs code of its own is a subclass with a `happen`:

```python
class Reworded(Fault):
    kinds = ("batch", "list")

    async def happen(self, work, sleep):
        reply = await work()
        return attrs.evolve(reply, body=reply.body.replace(b"colour", b"color"))
```
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from omi_async._api import json
from omi_async.local.messages import JSON_TYPE, Reply
from omi_async.local.quotas import KINDS
from omi_async.local.twist import PLAIN, Poison, Twist, breakdown

__all__ = ["FOREVER", "Fault", "Sleep", "Work"]

FOREVER: Final = math.inf
"""For `times`: the fault is never used up."""

Sleep = Callable[[float], Awaitable[Any]]


class Work(Protocol):
    """The work of the service for one call: do it, in the plain way or with departures from it."""

    def __call__(self, twist: Twist = PLAIN) -> Awaitable[Reply]:
        """Return the answer of the service."""
        ...


class Fault:
    """Something that goes wrong with one call. Faults that the static methods make compare by value.

    Attributes:
        kinds: the kinds of calls that it can happen to, if nothing else is said.
        times: how often it happens, if nothing else is said.
        standing: it is a state rather than an event, and happens beside any other fault.
        twist: what a standing one asks of the service itself.
    """

    kinds: tuple[str, ...] = KINDS
    times: float = 1
    standing: bool = False
    twist: Twist = PLAIN

    async def happen(self, work: Work, sleep: Sleep) -> Reply:  # noqa: ARG002 - the plain way
        """Answer the call: do the work, or not, and bend the answer."""
        return await work()

    def concerns(self, contents: Sequence[str]) -> bool:  # noqa: ARG002 - the plain way
        """Return whether it happens to a call that carries these texts."""
        return True

    @staticmethod
    def answer(
        status: int,
        detail: object = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        stored: bool = False,
        closes: bool = False,
    ) -> Fault:
        """Answer with `detail` (string, list or object) as FastAPI would, or with the bytes of `body`.

        Nothing is stored, or all of it before the answer (`stored`). With `closes` the connection is closed
        after the answer, and no header says so: what uvicorn does after an exception of the application.
        """
        others = dict(headers or {})
        content_type = others.pop("Content-Type", JSON_TYPE)
        if body is None:
            body = json.dumps({"detail": detail})
        reply = Reply(status, body, tuple(others.items()), content_type, closes=closes)
        return _Event("answer", instead=reply, stored=stored)

    @staticmethod
    def rate_limited(retry_after: str | float | None = None, *, limit: int | None = None) -> Fault:
        """Answer 429 with no quota spent; `Retry-After` is sent as it is written here, or left out."""
        headers = {"Retry-After": retry_after, "X-RateLimit-Limit": limit}
        present = {name: str(value) for name, value in headers.items() if value is not None}
        seconds = "" if retry_after is None else f" Try again in {retry_after}s."
        return Fault.answer(429, f"Rate limit exceeded.{seconds}", headers=present)

    @staticmethod
    def html(status: int = 502, *, stored: bool = False) -> Fault:
        """Answer with a page, as a proxy in front of the service does."""
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
    def paused() -> Fault:
        """Refuse a write (503) that the limiter has counted, as the service does while writes are paused."""
        reply = Reply.detail(503, "Memory writes are globally paused")
        return _Event("paused", kinds=("create", "batch", "update", "delete"), twist=Twist(refusal=reply))

    @staticmethod
    def after_prefix(count: int, *, status: int = 500) -> Fault:
        """Break down in a batch when its first `count` memories are stored."""
        if count < 0:
            raise ValueError(f"the number of stored memories is at least 0, not {count}")
        return _Event(
            "after_prefix", kinds=("batch",), twist=Twist(at_most=count, breakdown=breakdown(status))
        )

    @staticmethod
    def after_all(*, status: int = 500) -> Fault:
        """Break down when everything is stored."""
        return _Event("after_all", instead=breakdown(status), stored=True)

    @staticmethod
    def reset(*, stored: bool = False) -> Fault:
        """Reset the connection instead of answering, before the work or (`stored`) after it."""
        return _Event("reset", instead=Reply(0, b"", reset=True), stored=stored)

    @staticmethod
    def half_body() -> Fault:
        """Do the work, send half of the answer's body, and drop the connection."""
        return _Event("half_body", halved=True)

    @staticmethod
    def names_only(count: int) -> Fault:
        """Do the work, and name only the first `count` of the memories in the answer."""
        if count < 0:
            raise ValueError(f"the number of named memories is at least 0, not {count}")
        return _Event("names_only", kinds=("list", "batch"), first=count)

    @staticmethod
    def reordered() -> Fault:
        """Do the work, and give the memories of the answer in reverse order."""
        return _Event("reordered", kinds=("list", "batch"), reverse=True)

    @staticmethod
    def slow(seconds: float, *, stored: bool = False) -> Fault:
        """Wait before the work, or (`stored`) between the work and the answer."""
        if seconds < 0:
            raise ValueError(f"a delay is at least 0 seconds, not {seconds}")
        return _Event("slow", delay=0.0 if stored else seconds, delay_after=seconds if stored else 0.0)

    @staticmethod
    def list_lag(seconds: float) -> Fault:
        """Hide from the list, forever, what was created less than `seconds` ago by the server's clock."""
        if seconds < 0:
            raise ValueError(f"a lag is at least 0 seconds, not {seconds}")
        return _Condition("list_lag", kinds=("list",), twist=Twist(hide_newer=seconds))

    @staticmethod
    def poison(
        text: str | Callable[[str], bool], *, status: int = 422, loc: bool = True, stored_prefix: bool = False
    ) -> Fault:
        """Refuse, forever, every write with a text that holds `text` (or that the function says yes to).

        A 422 with `loc` names the memory, without it gives a sentence only. With `stored_prefix` the memories
        of a batch that stand before the poisoned one are stored.
        """
        poison = Poison(text, status, loc, stored_prefix)
        return _Condition("poison", kinds=("create", "batch", "update"), twist=Twist(poisons=(poison,)))


@attrs.frozen(repr=False)
class _Condition(Fault):
    """A state that stands until it is cleared: only the service's own work departs from the plain way."""

    name: str = attrs.field(eq=False)
    kinds: tuple[str, ...] = KINDS
    twist: Twist = PLAIN
    times: float = FOREVER
    standing: bool = True

    def __repr__(self) -> str:
        return _described(self)

    def concerns(self, contents: Sequence[str]) -> bool:
        poisons = self.twist.poisons
        return not poisons or any(poison.first(contents) is not None for poison in poisons)


@attrs.frozen(repr=False)
class _Event(Fault):
    """What goes wrong with one call.

    Attributes:
        delay: seconds before the work.
        stored: the work is done.
        delay_after: seconds between the work and the answer.
        instead: this is answered, whatever the work came to.
        halved: the connection is dropped in the middle of the body.
        first: the answer shows no more memories than so many.
        reverse: the answer shows the last memory first.
    """

    name: str = attrs.field(eq=False)
    kinds: tuple[str, ...] = KINDS
    twist: Twist = PLAIN
    delay: float = 0.0
    stored: bool = True
    delay_after: float = 0.0
    instead: Reply | None = None
    halved: bool = False
    first: int | None = None
    reverse: bool = False

    def __repr__(self) -> str:
        return _described(self)

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        await _pause(self.delay, sleep)
        reply = await work(self.twist) if self.stored else None
        await _pause(self.delay_after, sleep)
        return self._bent(self.instead or reply or _NOTHING)

    def _bent(self, reply: Reply) -> Reply:
        if self.halved:
            return attrs.evolve(reply, cut=len(reply.body) // 2)
        if (self.first is None and not self.reverse) or reply.status != 200:  # noqa: PLR2004
            return reply  # also a refusal: it shows no memories
        value = json.loads(reply.body)
        if isinstance(value, list):
            return attrs.evolve(reply, body=json.dumps(self._rearranged(value)))
        if "memories" not in value:
            return reply  # one memory, or a bare success: there is nothing to leave out
        memories = self._rearranged(value["memories"])
        changed = value | {"memories": memories, "created_count": len(memories)}
        return attrs.evolve(reply, body=json.dumps(changed))

    def _rearranged(self, memories: list[Any]) -> list[Any]:
        return memories[: self.first][:: -1 if self.reverse else 1]


_NOTHING: Final = Reply(0, b"", reset=True)


async def _pause(seconds: float, sleep: Sleep) -> None:
    # A sleep of 0 seconds would still be a turn of the loop: with it, calls would end in another order.
    if seconds:
        await sleep(seconds)


def _described(fault: _Condition | _Event) -> str:
    """Return what is not as usual: most of the fields say nothing about most of the faults."""
    _name, *fields = attrs.fields(type(fault))
    unusual = [(it.name, value) for it in fields if (value := getattr(fault, it.name)) != it.default]
    return f"Fault.{fault.name}({', '.join(f'{name}={value!r}' for name, value in unusual)})"
