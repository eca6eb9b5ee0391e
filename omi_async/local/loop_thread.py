"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """A daemon thread that runs an event loop from `start` to `stop`; it may be started again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if it runs."""
        if self._loop is not None:
            raise RuntimeError("the server is open already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cancel what is left in the loop, and end the thread."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            # From outside, a loop is stopped by itself only; else it would sleep on in its selector.
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and wait for its result. Raises RuntimeError if it does not run."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the server is not open")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function in the loop's thread, to which its data belong."""

        async def call() -> T:
            return function(*args, **options)

        return self.run(call())


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_end_all_tasks())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _end_all_tasks() -> None:
    """End what still works for a client that has gone, as `asyncio.run` would."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
