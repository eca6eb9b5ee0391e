"""A window as another process is told of it: JSON, in the ledger's file.

What is read there was written by others, and by clocks gone wrong. It binds for its own length at most, so
that a file which tells of a server that is gone costs one probe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import attrs
from attrs.validators import and_, ge, in_, instance_of, le, optional

from omi_async._api.messages import Kind
from omi_async._quota.policy import LONGEST, SOURCES, UNKNOWN, Rule, Source, kinds_of
from omi_async._quota.window import CLOCK_TOLERANCE, State, Window, or_none

__all__ = ["dump_window", "load_window"]


def dump_window(window: Window) -> dict[str, Any]:
    """Return what another process should know of a window, as JSON."""
    rule = window.rule
    return {
        "kinds": sorted(rule.kinds),
        "limit": or_none(rule.limit),
        "length": or_none(rule.length),
        "source": rule.source,
        "name": rule.given_name,
        "state": window.state.value,
        "ends": or_none(window.ends),
        "counted": window.used,
        "refused_at": or_none(window.refused_at),
    }


def load_window(fields: Mapping[str, Any], now: float) -> Window:
    """Make a window of what `dump_window` gave. Raises ValueError or TypeError for what is no dump.

    It ends within its length from now, whatever the clock was that wrote it; if that is unknown, within
    the wait that was named.
    """
    kept = _Kept(**fields)
    rule = Rule(kept.kinds, kept.limit or math.inf, kept.length or UNKNOWN, kept.source, kept.name)
    named = (kept.ends or now) - (kept.refused_at or now)
    longest = min(LONGEST, kept.length or max(0.0, named))
    refused_at = min(now, kept.refused_at or UNKNOWN)
    until = min(kept.ends or UNKNOWN, now + longest + CLOCK_TOLERANCE)
    state = State(kept.state) if until > now or kept.ends is None else State.CLOSED
    window = Window(rule, state, refused_at=refused_at)
    if state is not State.CLOSED:
        window.until, window.counted = until, kept.counted
    if now - refused_at >= longest:
        # The last refusal is older than a window, perhaps of a server that is gone: the first window here
        # tests the limit by one call more.
        window.refused_at = UNKNOWN
    return window


MOST: Final = 1e12
"""No number of a dump is larger. NaN, which would make waits that never end, is not smaller either."""

_MOMENT: Final[Any] = optional(and_(instance_of((int, float)), ge(-MOST), le(MOST)))
_COUNT: Final[Any] = and_(instance_of(int), ge(0), le(MOST))


@attrs.frozen(kw_only=True)
class _Kept:
    """What a dump holds, checked."""

    kinds: frozenset[Kind] = attrs.field(converter=kinds_of)
    source: Source = attrs.field(validator=in_(SOURCES))
    state: str = attrs.field(validator=in_([*State]))
    name: str | None = attrs.field(validator=optional(instance_of(str)))
    limit: int | None = attrs.field(validator=optional([_COUNT, ge(1)]))
    length: float | None = attrs.field(validator=optional([_MOMENT, ge(1e-3), le(LONGEST)]))
    counted: int = attrs.field(validator=_COUNT)
    ends: float | None = attrs.field(validator=_MOMENT)
    refused_at: float | None = attrs.field(validator=_MOMENT)
