"""Who may call now: what everything above the pacer needs of it."""

from __future__ import annotations

from typing import Protocol

from omi_async._api.messages import Kind, Response
from omi_async._quota.policy import QuotaState

__all__ = ["CallGroup", "Pacing", "Permit"]


class Permit(Protocol):
    """Leave to make one call; to be ended in one of three ways, of which only the first counts."""

    def give_back(self) -> None:
        """End it without a call."""
        ...

    def answered(self, response: Response) -> None:
        """End it with an answer, of whatever status."""
        ...

    def failed(self, error: BaseException) -> None:
        """End it without an answer; a call that was given up may have reached the server."""
        ...


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


class Pacing(Protocol):
    """Gives out turns, in the order in which they were asked for."""

    async def acquire(
        self, kind: Kind, *, group: CallGroup | None = None, patience: float | None = None
    ) -> Permit:
        """Wait for a turn, for so many seconds of quotas at most."""
        ...

    def wait(self, kind: Kind, *, live: bool = True) -> float:
        """Return the seconds until a call may go, as far as quotas are concerned."""
        ...

    def capacity(self, kind: Kind, seconds: float) -> float:
        """Return how many calls an import can make within so many seconds."""
        ...

    def seconds_for(self, kind: Kind, calls: int) -> float:
        """Return how long so many calls of an import wait for windows, the last one of them."""
        ...

    def states(self) -> tuple[QuotaState, ...]:
        """Return what is known of each policy."""
        ...

    def reconsider(self) -> None:
        """Look again who may go: a group has changed its mind."""
        ...
