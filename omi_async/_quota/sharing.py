"""What a ledger knows, as text: for a store that processes on many machines share.

The text holds all of it, since whoever reads it goes on counting in the same windows; the ledger's file has
less. All moments are by the store's clock. Kinds, counts and moments are in it, and neither keys nor facts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

import attrs
from attrs.validators import ge, in_, instance_of, optional

from omi_async._api import json
from omi_async._api.messages import Kind
from omi_async._quota.balancer import Balancer
from omi_async._quota.known import Known, Probe
from omi_async._quota.policy import KINDS, SOURCES, UNKNOWN, Rule, Source, kinds_of
from omi_async._quota.window import CountedCall, State, Window

__all__ = ["FORMAT", "NO_STATE", "Held", "SharedQuotas", "SharedRecord", "dump", "load"]

FORMAT: Final = 1
"""The version of the text. A store keeps texts of two versions apart, or two releases of this library that
run side by side would take turns in forgetting what the other one has counted."""

CALLS_SHARED: Final = 256
"""Calls whose time is told to others, to find out who opened a window that turns out to be shut: as many as
the service takes in an hour. With more, each call would have to carry more text; of a limit that is higher
the length is found out one refusal later."""

NO_STATE: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
"""What `load` raises for a text that is none of ours: each stands for a kind of garbage."""


@attrs.frozen
class Held:
    """What a store holds of one key's quotas.

    Attributes:
        version: what tells this text from others; empty if there is none.
        text: what `dump` gave; may be empty if the reader has written it itself.
        now: the time by the store's clock, in epoch seconds.
    """

    version: str
    text: str | bytes
    now: float


class SharedRecord(Protocol):
    """One key's quotas in a store. Both raise an `OmiError` or an `OSError` if the store is away."""

    async def read(self) -> Held:
        """Return what is held."""
        ...

    async def write(self, text: bytes, version: str, *, over: str) -> Held:
        """Replace what is held if that has the version `over`, in one step; return what is held then."""
        ...


class SharedQuotas(Protocol):
    """A store of quotas that processes on many machines share."""

    def quotas_of(self, account: str, server: str) -> SharedRecord:
        """Return the record of a key, which goes by its fingerprint, at a server."""
        ...


def dump(known: Known, now: float) -> bytes:
    """Write down what a ledger knows. Windows that are over, and taught nothing, are left out."""
    calls: dict[str, list[_Call]] = {}
    for call in [*known.calls][-CALLS_SHARED:]:
        if call not in known.out:
            calls.setdefault(call.kind, []).append(_dump_call(call))
    return json.dumps_checked(
        {
            "windows": [_dump_window(it, known.out) for it in known.windows if _worth_telling(it, now)],
            "calls": calls,
            "out": [(call.id, call.kind, call.sent) for call in known.out],
            "probes": {kind: (it.call.id, it.until) for kind, it in known.probes.items() if it.until > now},
            "balancer": attrs.astuple(known.balancer),
        }
    )


def load(text: str | bytes, ours: Mapping[str, CountedCall]) -> Known:
    """Read what `dump` wrote. Calls whose id is one of `ours` are these.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: it is no such text.
    """
    fields = json.loads(text)
    out = {
        str(id_): ours.get(id_) or CountedCall(_kind(kind), _moment(sent), id=str(id_))
        for id_, kind, sent in fields["out"]
    }
    went = [_load_call(kind, call) for kind, calls in fields["calls"].items() for call in calls]
    return Known(
        windows=[_Kept(**each).window(out) for each in fields["windows"]],
        calls=sorted([*went, *out.values()], key=_sent),
        out=out.values(),
        probes={
            _kind(kind): Probe(out[id_], _moment(until))
            for kind, (id_, until) in fields["probes"].items()
            if id_ in out
        },
        balancer=_load_balancer(*fields["balancer"]),
    )


_Call = tuple[float, float | None]
"""When a call was sent, and the seconds until its answer; None if that was lost."""


def _dump_call(call: CountedCall) -> _Call:
    return call.sent, _or_none(call.took)


def _load_call(kind: Any, call: Any) -> CountedCall:
    sent, took = call
    return CountedCall(_kind(kind), _moment(sent), math.inf if took is None else _moment(took))


def _load_balancer(opens_at: Any, refusals: Any, learned_at: Any) -> Balancer:
    return Balancer(_moment(opens_at), int(refusals), _moment(learned_at))


def _worth_telling(window: Window, now: float) -> bool:
    return window.rule.source == "learned" or window.ends > now


def _dump_window(window: Window, out: Collection[CountedCall]) -> dict[str, Any]:
    rule, opener = window.rule, window.opener
    return {
        "kinds": sorted(rule.kinds),
        "limit": _or_none(rule.limit),
        "length": _or_none(rule.length),
        "source": rule.source,
        "name": rule.given_name,
        "state": window.state.value,
        "opener": None if opener is None else opener.id if opener in out else _dump_call(opener),
        "until": _or_none(window.until),
        "counted": window.counted,
        "refused_at": _or_none(window.refused_at),
        "short_waits": window.short_waits,
    }


_NUMBER: Final[Any] = instance_of((int, float))
_COUNT: Final[Any] = [instance_of(int), ge(0)]


@attrs.frozen(kw_only=True)
class _Kept:
    """A window in the text, checked. Its moments are by one clock for all, so that none needs a bound."""

    kinds: frozenset[Kind] = attrs.field(converter=kinds_of)
    limit: int | None = attrs.field(validator=optional([instance_of(int), ge(1)]))
    length: float | None = attrs.field(validator=optional([_NUMBER, ge(1e-3)]))
    source: Source = attrs.field(validator=in_(SOURCES))
    name: str | None = attrs.field(validator=optional(instance_of(str)))
    state: State = attrs.field(converter=State)
    opener: Any
    until: float | None = attrs.field(validator=optional(_NUMBER))
    counted: int = attrs.field(validator=_COUNT)
    refused_at: float | None = attrs.field(validator=optional(_NUMBER))
    short_waits: int = attrs.field(validator=_COUNT)

    def window(self, out: Mapping[str, CountedCall]) -> Window:
        """Make the window; whose opener may be a call that is out."""
        opener = self.opener
        if isinstance(opener, str):
            opener = out[opener]
        elif opener is not None:
            opener = _load_call(min(self.kinds), opener)
        return Window(
            Rule(self.kinds, self.limit or math.inf, self.length or UNKNOWN, self.source, self.name),
            self.state,
            opener=opener,
            until=_or_unknown(self.until),
            counted=self.counted,
            refused_at=_or_unknown(self.refused_at),
            short_waits=self.short_waits,
        )


def _kind(name: Any) -> Any:
    if name not in KINDS:
        raise ValueError(f"no kind of calls: {name!r}")
    return name


def _moment(value: Any) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"no moment: {value!r}")
    return value


def _sent(call: CountedCall) -> float:
    return call.sent


def _or_none(value: float) -> Any:
    return value if math.isfinite(value) else None


def _or_unknown(value: float | None) -> float:
    return UNKNOWN if value is None else value
