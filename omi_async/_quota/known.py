"""What a ledger knows, as a whole: for another process that goes on from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.window import CountedCall, Window

__all__ = ["Balancer", "Known", "Probe"]


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


@attrs.define
class Balancer:
    """The load balancer before the service, which refuses without a word; it holds all kinds of calls back.

    Attributes:
        opens_at: when calls may go again.
        refusals: those in a row.
        learned_at: when the last one was learned from.
    """

    opens_at: float = 0.0
    refusals: int = 0
    learned_at: float = 0.0

    def refused(self, call: CountedCall, now: float, pause: float) -> None:
        """Hold calls back for so many seconds. Several that were refused together are one lesson."""
        if call.sent > self.learned_at:
            self.opens_at = now + pause
            self.refusals += 1
            self.learned_at = now
