"""Quotas: fixed windows, as the service counts them.

The first call of a window opens it; every call counts, a refused one too, but never makes the window longer;
`Retry-After` is what is left of it in whole seconds, so it may be 0 (backend: INCR with a TTL).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import attrs

from omi_async.local.messages import Headers, Refusal

__all__ = ["DOCUMENTED_QUOTAS", "KINDS", "REAL_QUOTAS", "Quota", "Quotas"]

KINDS: Final = ("list", "search", "create", "batch", "update", "delete", "key")
"""The kinds of calls."""


def kinds_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of calls that are named. Raises ValueError for a name that is none."""
    kinds = (names,) if isinstance(names, str) else tuple(names)
    if unknown := set(kinds).difference(KINDS):
        raise ValueError(f"no such kind of call: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return kinds


@attrs.frozen
class Quota:
    """So many calls in a window.

    Attributes:
        limit: calls in one window.
        window: seconds, from the first call on.
        kinds: the kinds of calls that share it.
        per: whether each key has its own count, or all keys of the user share one.
        announced: say `X-RateLimit-Limit`, `-Remaining` and `-Reset` on every answer, as the documentation
            promises, not only on the 429.
    """

    name: str
    limit: int = attrs.field(validator=attrs.validators.ge(0))
    window: float = attrs.field(validator=attrs.validators.gt(0))
    kinds: tuple[str, ...] = attrs.field(default=KINDS, converter=kinds_of)
    per: Literal["key", "user"] = attrs.field(default="key", kw_only=True)
    announced: bool = attrs.field(default=False, kw_only=True)


DOCUMENTED_QUOTAS: Final = (
    Quota("minute", 100, 60, announced=True),
    Quota("day", 10_000, 86_400, per="user", announced=True),
)
"""What the documentation promises (docs.omi.me)."""

REAL_QUOTAS: Final = (
    Quota("memories_read", 120, 3600, ("list", "search")),
    Quota("memories", 120, 3600, ("create", "update", "delete")),
    Quota("memories_batch", 15, 3600, ("batch",)),
    Quota("memories_write_burst", 30, 60, ("create",)),
)
"""What the backend's source enforces."""


@attrs.define
class _Window:
    ends: float
    calls: int = 0


class Quotas:
    """The quotas in force and their counts. Limits can be changed while the server runs.

    `clock` returns epoch seconds.
    """

    def __init__(self, quotas: Iterable[Quota] = (), *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}
        self.replace(*quotas)

    def __iter__(self) -> Iterator[Quota]:
        return iter(self._quotas)

    def __repr__(self) -> str:
        return f"Quotas{self._quotas!r}"

    def replace(self, *quotas: Quota) -> None:
        """Replace all quotas by these. Counts of a quota of the same name go on."""
        if len({quota.name for quota in quotas}) < len(quotas):
            raise ValueError("two quotas have the same name")
        self._quotas = quotas
        self._by_kind = {
            kind: [quota for quota in quotas if kind in quota.kinds]
            for kind in KINDS
            if any(kind in quota.kinds for quota in quotas)
        }

    def change(self, name: str, *, limit: int | None = None, window: float | None = None) -> None:
        """Change one quota; a window that is open keeps its count and its end. Raises KeyError."""
        if name not in {quota.name for quota in self._quotas}:
            raise KeyError(name)
        given = {"limit": limit, "window": window}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        self.replace(*[attrs.evolve(q, **changes) if q.name == name else q for q in self._quotas])

    def forget(self) -> None:
        """Close every window: all counts start again."""
        self._windows.clear()

    def spend(self, kind: str, key_id: str, account: int = 0) -> Headers:
        """Count a call, and return the headers for its answer. Raises `Refusal` (429)."""
        if kind not in self._by_kind:
            return ()
        announced: Headers = ()
        fewest = float("inf")
        for quota in self._by_kind[kind]:
            window = self._count(quota, key_id if quota.per == "key" else f"user {account}")
            remaining = quota.limit - window.calls
            if remaining < 0:
                raise self._refusal(quota, window)
            # There is one set of headers for all quotas: it tells of the one that is spent first.
            if quota.announced and remaining < fewest:
                fewest, announced = remaining, _announcement(quota, window)
        return announced

    def _count(self, quota: Quota, whose: str) -> _Window:
        now = self._clock()
        subject = (quota.name, whose)
        window = self._windows.get(subject)
        # The first call opens a window; nothing else moves it, least of all a refused call.
        if window is None or now >= window.ends:
            window = self._windows[subject] = _Window(now + quota.window)
        # Before it is known whether the call is refused: a refused one counts too, and so does its
        # repetition.
        window.calls += 1
        return window

    def _refusal(self, quota: Quota, window: _Window) -> Refusal:
        # Rounded down, as the TTL of a Redis key is: 0 in the last second, in which a call is refused all the
        # same.
        seconds = int(window.ends - self._clock())
        headers: Headers = (
            ("Retry-After", str(seconds)),
            ("X-RateLimit-Limit", str(quota.limit)),
            ("X-RateLimit-Remaining", "0"),
        )
        if quota.announced:
            headers = (headers[0], *_announcement(quota, window))
        return Refusal.because(429, f"Rate limit exceeded. Try again in {seconds}s.", headers=headers)


def _announcement(quota: Quota, window: _Window) -> Headers:
    return (
        ("X-RateLimit-Limit", str(quota.limit)),
        ("X-RateLimit-Remaining", str(max(0, quota.limit - window.calls))),
        ("X-RateLimit-Reset", str(int(window.ends))),
    )
