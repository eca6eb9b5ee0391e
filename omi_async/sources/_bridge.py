"""Batches from a thread to an event loop: bounded, prompt to stop, and never waited for by the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from omi_async.sources._stop import Stop

__all__ = ["Bridge"]

AHEAD: Final = 3
"""Batches that wait for the loop, at most."""

PATIENCE: Final = 1.0
"""Seconds to wait for the thread at the end; only a read that nothing can interrupt takes longer."""

T = TypeVar("T")


class Bridge(Generic[T]):
    """Runs an iterator of batches in a thread of its own.

    The thread knows the bridge, not whoever uses it: a user that goes away unclosed can be collected, and its
    finalizer calls `stop`. The thread is a daemon so that even then an interpreter can exit at once.
    """

    def __init__(self, batches: Callable[[Stop], Generator[list[T], None, None]]) -> None:
        self._batches = batches
        self._stop = Stop(self._let_loop_run)
        self._ready: deque[list[T]] = deque()
        self._room: SimpleQueue[None] = (
            SimpleQueue()
        )  # its `put` is safe in a finalizer, a semaphore's is not
        self._error: BaseException | None = None
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        for _ in range(AHEAD):
            self._room.put(None)
        self._thread = threading.Thread(target=self._run, name="omi_async.sources", daemon=True)
        self._thread.start()

    async def get(self) -> list[T] | None:
        """Wait for the next batch; None at the end. Raises, once, what the iterator raised."""
        while not self._ready and not self._over.is_set():
            self._news.clear()
            await self._news.wait()
        if self._ready:
            self._room.put(None)
            return self._ready.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def stop(self) -> None:
        """Tell the thread to end; never blocks."""
        self._stop.request()
        self._room.put(None)

    async def aclose(self) -> None:
        """Stop, and wait until the thread is gone."""
        self.stop()
        self._ready.clear()
        self._error = None
        try:
            async with asyncio.timeout(PATIENCE):
                await self._over.wait()
                while self._thread.is_alive():  # noqa: ASYNC110 - microseconds are left, and no event comes
                    await asyncio.sleep(0)
        except TimeoutError:
            self._end()  # for those who wait in `get`

    def _run(self) -> None:
        batches = self._batches(self._stop)
        try:
            for batch in batches:
                self._room.get()
                if self._stop.requested:
                    break
                self._ready.append(batch)
                self._tell(self._news.set)
        except BaseException as error:  # noqa: BLE001 - it is raised in the loop, by `get`
            # Bytes that end because nobody wants them look like a file that is cut short.
            self._error = None if self._stop.requested else error
        finally:
            batches.close()
            self._stop.close()
            self._tell(self._end)

    def _let_loop_run(self) -> None:
        """Wait for a turn of the loop, after each chunk.

        A thread that only lets go of the interpreter takes it back before the loop wakes up, chunk after
        chunk: the loop would be late for everybody else, and stand still over a long stretch of blank lines.
        """
        turn = threading.Event()
        self._tell(turn.set)
        if not self._stop.requested:
            turn.wait(PATIENCE)

    def _end(self) -> None:
        self._over.set()
        self._news.set()

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: nobody reads on
            self._stop.request()
