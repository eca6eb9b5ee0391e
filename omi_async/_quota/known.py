"""What a ledger knows, as a whole: for another process that goes on from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.balancer import Balancer
from omi_async._quota.window import CountedCall, Window

__all__ = ["Known", "Probe"]


@attrs.frozen
class Probe:
    """The first call through a window that was waited for. It goes alone: only it may come too early.

    Attributes:
        call: that one.
        until: when the others wait no longer for it.
    """

    call: CountedCall
    until: float


@attrs.frozen
class Known:
    """All that a ledger knows.

    Attributes:
        windows: as they are; how many calls each has out follows from `out`.
        calls: those on the wire and those that went through, the latest last.
        out: those on the wire.
        probes: those that others wait for, by kind.
        balancer: what the load balancer wants.
    """

    windows: Collection[Window]
    calls: Collection[CountedCall]
    out: Collection[CountedCall]
    probes: Mapping[Kind, Probe]
    balancer: Balancer
