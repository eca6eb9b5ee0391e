"""What a policy is, and what is known beforehand: the documented ones, and which calls share a window."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal, get_args

import attrs

from omi_async._api.messages import Kind

__all__ = [
    "BACKEND",
    "DOCUMENTED",
    "KINDS",
    "LONGEST",
    "SOURCES",
    "UNITS",
    "UNKNOWN",
    "QuotaPolicy",
    "QuotaState",
    "Rule",
    "Source",
    "kinds_of",
    "rate_name",
]

KINDS: Final[frozenset[Kind]] = frozenset(get_args(Kind))

UNITS: Final = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86_400.0: "day"}
"""Seconds of the usual windows. A length is only believed at first sight if it is one of these: calls of
others with the same key make a measured one too long, and a wait that is too long costs more than a refused
call."""

LONGEST: Final = 366 * 86_400.0
"""Seconds; no window is longer. Whatever says so is a clock gone wrong, and must not shut a key forever."""


def kinds_of(given: Iterable[str]) -> frozenset[Any]:
    """Return the kinds of calls that are named. Raises ValueError for other names, and for none."""
    names = {given} if isinstance(given, str) else set(given)
    if not names or not names <= KINDS:
        raise ValueError(f"kinds must be some of {', '.join(sorted(KINDS))}, not {sorted(names)}")
    return frozenset(names)


@attrs.frozen
class QuotaPolicy:
    """So many calls in a fixed window, which its first call opens.

    Attributes:
        limit: calls in one window, at least 1.
        window: seconds.
        kinds: the calls that share it, of "list", "search", "create", "batch", "update", "delete" and "key";
            all of them if nothing else is said.
        name: to be shown; "15-an-hour" if nothing else is said.
    """

    limit: int = attrs.field(validator=[attrs.validators.instance_of(int), attrs.validators.ge(1)])
    window: float = attrs.field(converter=float, validator=attrs.validators.gt(0))
    kinds: frozenset[Kind] = attrs.field(default=KINDS, converter=kinds_of, kw_only=True)
    name: str = attrs.field(kw_only=True)

    @name.default
    def _named_by_numbers(self) -> str:
        return rate_name(self.limit, self.window)

    @window.validator
    def _finite(self, _attribute: object, value: float) -> None:
        if not value <= LONGEST:
            raise ValueError(f"window must be a number of seconds of a year at most, not {value!r}")


def rate_name(limit: int | None, window: float | None) -> str:
    """Name a policy by its numbers."""
    many = "quota" if limit is None else f"{limit:,}"
    if window is None:
        return many if limit is None else f"{many}-a-window"
    unit = UNITS.get(window)
    if unit is None:
        return f"{many}-in-{window:g}-s"
    return f"{many}-{'an' if unit == 'hour' else 'a'}-{unit}"


DOCUMENTED: Final = (
    QuotaPolicy(100, 60, name="100-a-minute"),
    QuotaPolicy(10_000, 86_400, name="10,000-a-day"),
)
"""What the documentation promises: for a key, and for a user (docs.omi.me)."""

BACKEND: Final[tuple[tuple[frozenset[Kind], float], ...]] = (
    (frozenset({"create"}), 60.0),
    (frozenset({"batch"}), 3600.0),
    (frozenset({"create", "update", "delete"}), 3600.0),
    (frozenset({"list", "search"}), 3600.0),
    (frozenset({"key"}), 3600.0),
)
"""Which calls share a window, and its seconds (backend: rate_limit_config). Limits vary: none is assumed."""


Source = Literal["given", "documented", "announced", "learned"]
"""Who says that there is such a policy: the user, the documentation, each answer, or a refusal."""

SOURCES: Final[tuple[Source, ...]] = get_args(Source)

UNKNOWN: Final = -math.inf
"""A moment or a length that is unknown: it lies in the past, so nothing waits for it."""


@attrs.frozen
class QuotaState:
    """What is known of one policy at this moment.

    Attributes:
        policy: its name, such as "15-an-hour".
        kinds: the calls that share it.
        limit: calls in one window; None while it is unknown.
        window: seconds; None while they are unknown.
        used: calls counted in the window that is open.
        opens_at: when the next window opens, if this one is used up; None if a call may go now.
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

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it."""
        return {
            "policy": self.policy,
            "kinds": sorted(self.kinds),
            "limit": self.limit,
            "window": self.window,
            "used": self.used,
            "opens_at": None if self.opens_at is None else self.opens_at.isoformat(),
            "source": self.source,
        }


@attrs.frozen
class Rule:
    """What is believed of a policy, by whoever says so; the server's word replaces what was learned.

    Attributes:
        kinds: the calls that share its windows.
        limit: calls in one window; infinite while it is unknown.
        length: seconds of one; minus infinity while they are unknown.
        source: who says so.
        given_name: what the user calls it; None for a name made of the numbers.
    """

    kinds: frozenset[Kind]
    limit: float
    length: float
    source: Source
    given_name: str | None = None

    @property
    def may_change(self) -> bool:
        """Whether the server alone told of it: a user's own limit stands whatever the server says."""
        return self.source in {"learned", "announced"}

    @property
    def name(self) -> str:
        """What to call it before a person."""
        limit = None if self.limit == math.inf else int(self.limit)
        return self.given_name or rate_name(limit, None if self.length == UNKNOWN else self.length)

    @property
    def key(self) -> str:
        """What tells it from the others of its ledger, in this process and in others."""
        size = f"{self.length:g} s" if self.length > UNKNOWN else self.name
        return f"{self.source} {self.given_name or size}: {', '.join(sorted(self.kinds))}"
