"""What refuses without a word: the load balancer before the service."""

from __future__ import annotations

import attrs

from omi_async._quota.window import CountedCall

__all__ = ["Balancer"]


@attrs.define
class Balancer:
    """The load balancer before the service. It says neither how many nor how long; all kinds of calls wait.

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
