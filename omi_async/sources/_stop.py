"""A wish to stop that reaches a thread even while it waits for a pipe or a terminal."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import ClassVar

__all__ = ["Stop"]


class Stop:
    """Set once, by any thread, a finalizer among them; seen by the thread that reads.

    `wait_readable` belongs to the reading thread, which calls `between_chunks` after each chunk and `close`
    at its end.
    """

    CAN_WAIT: ClassVar[bool] = hasattr(select, "poll")
    """False on Windows, where only sockets can be waited for; there a stuck reader is left behind."""

    def __init__(self, between_chunks: Callable[[], object] = lambda: None) -> None:
        self.requested = False
        self.between_chunks = between_chunks
        # Reentrant, as a finalizer may call `request` in the very thread that holds it.
        self._lock = threading.RLock()
        self._pipe: tuple[int, int] | None = None

    def request(self) -> None:
        """Ask the reader to stop; never blocks, and may be repeated."""
        with self._lock:
            if not self.requested:
                self.requested = True
                if self._pipe is not None:
                    os.write(self._pipe[1], b"\0")

    def wait_readable(self, fd: int) -> bool:
        """Wait until `fd` has bytes or is at its end; False when asked to stop."""
        with self._lock:
            if self._pipe is None:
                self._pipe = os.pipe()
            if self.requested:
                return False
            waker = self._pipe[0]
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(waker, select.POLLIN)
        poll.poll()
        return not self.requested

    def close(self) -> None:
        """Give the descriptors back; nothing is waited for any more."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
            for fd in pipe or ():
                os.close(fd)
