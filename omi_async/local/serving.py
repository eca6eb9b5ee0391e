"""Runs the stand-in server until a signal ends it: what ``omi-async serve`` does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, Final

from omi_async.local.server import LocalServer

__all__ = ["serve"]

ACCESS_LOG: Final = "omi_async.local"


async def serve(
    database: str | PathLike[str] | None = None,
    *,
    ready: Callable[[LocalServer], object] | None = None,
    **options: Any,
) -> None:
    """Serve until SIGTERM, SIGINT or cancellation, then close in order.

    Takes what `LocalServer` takes; the calls are logged by the `omi_async.local` logger at level INFO.
    `ready` is called with the server when it listens: it can print the `url`, and an `api_key` that was made.
    Raises what `LocalServer` and its `start` raise.
    """
    options.setdefault("access_log", logging.getLogger(ACCESS_LOG))
    ended = asyncio.Event()
    with _signals_set(ended):
        async with LocalServer(database, **options) as server:
            if ready is not None:
                ready(server)
            await ended.wait()


@contextlib.contextmanager
def _signals_set(event: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set the event; the handlers that stood before stand again after."""
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # signals reach no other
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, event.set)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
