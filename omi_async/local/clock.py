"""A loop whose clock jumps: hours pass in milliseconds, over real sockets.

The selector is asked first; only when no socket is ready and no thread is at work does the clock jump to the
next timer. So a client and the stand-in server, both in this loop, talk over real HTTP, and an import that
waits for an hour takes a moment. A server in another thread or process is too late for it: the clock jumps
while that one is still at work.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

__all__ = ["VirtualClockLoop", "run"]

T = TypeVar("T")

_GRACE: Final = 0.002
"""Real seconds that threads get, again and again, until they are done."""

_MOMENT: Final = 0.0002
"""Real seconds that the kernel gets to deliver what is under way. Without them, answers would come after the
timers that are to end when they do not come."""


class _Wall:
    """Stands in for `time.time` while a virtual loop runs: each thread sees the time of its own loop.

    The library and the stand-in server read the clock on the wall as everyone does, so a test of hours has to
    turn that clock too. It is replaced only while some virtual loop runs: no other test, and no thread beside
    it, ever sees another time than the real one.
    """

    def __init__(self) -> None:
        self._real = time.time
        self._lock = threading.Lock()
        self._running = threading.local()
        self._loops = 0

    def __call__(self) -> float:
        loop: VirtualClockLoop | None = getattr(self._running, "loop", None)
        return self._real() if loop is None else loop.wall()

    @contextmanager
    def following(self, loop: VirtualClockLoop) -> Iterator[None]:
        """Show this thread the loop's time."""
        before = getattr(self._running, "loop", None)
        with self._lock:  # each thread may run a loop: the first replaces the clock, the last puts it back
            if self._loops == 0:
                self._real, time.time = time.time, self
            self._loops += 1
        self._running.loop = loop
        try:
            yield
        finally:
            self._running.loop = before
            with self._lock:
                self._loops -= 1
                if self._loops == 0:
                    time.time = self._real


_wall = _Wall()


class _Selector(selectors.DefaultSelector):
    """Tells the loop what is ready; if nothing is, turns the clock to the next timer instead of waiting."""

    loop: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        time.sleep(_MOMENT)  # epoll waits for whole milliseconds
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None or self.loop.threads:
            return super().select(timeout if timeout is None else min(timeout, _GRACE))
        self.loop.now += timeout
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock; while it runs, `time.time` in its thread goes with it.

    Attributes:
        now: its time in seconds; begins at 1,000.
        wall_at_zero: what the clock on the wall shows at 0; a test that adds to it sets that clock.
        threads: jobs of the executor under way; the clock stands still meanwhile.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall_at_zero = time.time() - self.now
        self.threads = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self.now

    def run_forever(self) -> None:
        """Run as any loop does, with `time.time` turned."""
        with _wall.following(self):
            super().run_forever()

    def wall(self) -> float:
        """Return what `time.time` does while it runs."""
        return self.wall_at_zero + self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]  # typeshed's has TypeVars
        """Run a function in a thread; the clock stands still until it is done."""
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(  # the signature is asyncio's
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # asyncio's own
    ) -> None:
        """Wait for the threads, as any loop does."""
        self.threads += 1  # it waits for threads, and up to `timeout` seconds that must not jump by
        try:
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()
        finally:
            self.threads -= 1

    def _thread_done(self, _future: Any) -> None:
        self.threads -= 1


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own with a virtual clock, and return its result."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(coroutine)
