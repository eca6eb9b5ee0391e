"""What an import needs of a session."""

from __future__ import annotations

from typing import Protocol, TypeVar

from omi_async._api.messages import Request
from omi_async._quota.pacer import Pacer
from omi_async._quota.permit import Permit

__all__ = ["Sender"]

T = TypeVar("T")


class Sender(Protocol):
    """What everything above the session needs of it."""

    @property
    def base_url(self) -> str:
        """The server's base URL, without a slash at its end; a journal knows its server by it."""
        ...

    @property
    def pacing(self) -> Pacer:
        """Who may call now."""
        ...

    async def send(self, request: Request[T], /, *, permit: Permit | None = None) -> T:
        """Send a request and return what its answer means; with a permit, in one attempt."""
        ...
