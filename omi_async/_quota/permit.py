"""Leave to make one call, and whose call it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from omi_async._api.headers import read_rate_limit_headers
from omi_async._api.messages import Kind, Response
from omi_async._quota.clock import Clock
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaState
from omi_async._quota.window import CountedCall

__all__ = ["TOO_MANY_REQUESTS", "CallGroup", "Permit"]

TOO_MANY_REQUESTS: Final = 429


class CallGroup(Protocol):
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

    def on_quota_wait(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls of this kind have to wait so many seconds for a quota."""
        ...


class Issuer(Protocol):
    """Who gives out permits, and takes them back."""

    @property
    def clock(self) -> Clock:
        """What the ledger's moments are told by."""
        ...

    def settle(self, permit: Permit, learn: Callable[..., object], *what: Any) -> None:
        """Have the ledger learn what has become of the call, and take back the permit."""
        ...


class Permit:
    """Leave to make one call, counted and with a place on the wire; only the first of its ends counts.

    Attributes:
        call: as the ledger counts it.
        group: the import that it belongs to.
        waited: seconds that it was waited for since a quota asked for it. The wait for a connection is none.
    """

    __slots__ = ("_ended", "_issuer", "call", "group", "waited")

    def __init__(self, issuer: Issuer, call: CountedCall, group: CallGroup | None, waited: float) -> None:
        self._issuer = issuer
        self._ended = False
        self.call = call
        self.group = group
        self.waited = waited

    def give_back(self) -> None:
        """End it without a call."""
        if not self._ended:
            self._ended = True
            self._issuer.settle(self, Ledger.give_back)

    def answered(self, response: Response) -> None:
        """End it with an answer, of whatever status."""
        if not self._ended:
            self._ended = True
            learn = Ledger.refused if response.status == TOO_MANY_REQUESTS else Ledger.answered
            self._issuer.settle(self, learn, self._issuer.clock.now(), read_rate_limit_headers(response))

    def failed(self, error: BaseException) -> None:
        """End it without an answer; a call that was given up may have reached the server."""
        if not self._ended:
            self._ended = True
            self._issuer.settle(self, Ledger.failed, error)
