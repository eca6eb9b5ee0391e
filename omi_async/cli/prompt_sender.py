"""A sender for the commands whose user waits at a prompt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from omi_async._api.messages import Kind, Request
from omi_async._api.retry import Retry, wait_after, waits
from omi_async._quota.pacer import Pacer
from omi_async._quota.permit import Permit
from omi_async.cli.format import until_in_words, window_in_words
from omi_async.cli.output import print_message
from omi_async.errors import OmiError, RateLimitError

if TYPE_CHECKING:
    from omi_async.session import Session

__all__ = ["PromptSender"]

T = TypeVar("T")

RETRY: Final = Retry()

NOTICEABLE: Final = 3.0
"""Seconds from which on a wait is announced: who waits longer without a word takes it for a hang."""


class PromptSender:
    """Tries again as a Session does, unless the waits are longer, in all, than the user wants to wait.

    It differs from `Session(max_wait=...)` in what holds for a prompt: the waits that a failing server asks
    for count too, what takes long is announced, and a DELETE whose answer is lost is not repeated, for its
    404 would tell nothing.

    Args:
        session: makes the calls.
        max_wait: seconds.
    """

    def __init__(self, session: Session, max_wait: float) -> None:
        self._session = session
        self._left = max_wait

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._session.base_url

    @property
    def pacing(self) -> Pacer:
        """Who may call now."""
        return self._session.pacing

    async def send(self, request: Request[T], /, *, permit: Permit | None = None) -> T:
        """Send a request, and again if that is safe and soon."""
        for longest in waits(RETRY):
            try:
                permit = permit or await self._permit(request.kind)
                return await self._session.send(request, permit=permit)
            except OmiError as error:
                wait = self._wait_after(error, request, longest)
                if wait is None:
                    raise
            permit = None
            if wait:  # else the next permit is what is waited for
                with self._waiting(wait, "The server has trouble; trying again"):
                    await asyncio.sleep(wait)
        raise AssertionError("after the last attempt there is no wait")

    def _wait_after(self, error: OmiError, request: Request[T], longest: float | None) -> float | None:
        """Return the seconds until the next attempt, or None if there is none."""
        idempotent = request.method == "GET"
        wait = wait_after(error, longest, idempotent=idempotent, chance=random.random())  # noqa: S311  # jitter
        if isinstance(error, RateLimitError) and self.pacing.wait(request.kind) > self._left:
            return None
        return None if wait is None or wait > self._left else wait

    async def _permit(self, kind: Kind) -> Permit:
        with self._waiting(self.pacing.wait(kind), self._why(kind)):
            return await self.pacing.acquire(kind, patience=self._left)

    def _why(self, kind: Kind) -> str:
        shut = [state for state in self._session.quotas if kind in state.kinds and state.opens_at is not None]
        if not shut:
            return "The server takes no calls for now; going on"
        longest = max(shut, key=lambda state: str(state.opens_at))
        return f"Waiting for {window_in_words(longest)}, which opens"

    @contextmanager
    def _waiting(self, wait: float, words: str) -> Iterator[None]:
        """Announce a wait that will be waited out, and count how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if NOTICEABLE <= wait <= self._left:
            print_message(f"{words} {until_in_words(wait)}. Ctrl-C ends it.")
        try:
            yield
        finally:
            # What the wait took beyond that was the call's own time: a slow server spends no patience.
            self._left -= min(wait, loop.time() - began)
