"""A sender for the commands that somebody waits for at a prompt."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from typing import Final, TypeVar

from omi_async._requests import Request, Sender
from omi_async._retry import wait_before, worth_retrying
from omi_async.config import Retry
from omi_async.errors import OmiError

__all__ = ["Briefly"]

T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds that somebody waits for the next try; a quota window of an hour ends the command (exit code 4)."""


class Briefly:
    """Tries again as a Session does, unless the wait is long.

    Args:
        sender: a Session that does not try again by itself.
        retry: attempts and waits.
    """

    def __init__(self, sender: Sender, retry: Retry = Retry()) -> None:  # noqa: B008  # immutable
        self._sender = sender
        self._retry = retry

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._sender.base_url

    async def send(self, request: Request[T], /) -> T:
        """Send a request. A DELETE whose answer is lost is not repeated: its 404 would tell nothing."""
        for number in count():
            try:
                return await self._sender.send(request)
            except OmiError as error:
                wait = wait_before(self._retry, number, error, random.random())  # noqa: S311  # a wait
                last = number + 1 >= self._retry.attempts or wait > PATIENCE
                if last or not worth_retrying(error, idempotent=request.method == "GET"):
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("count() does not end")
