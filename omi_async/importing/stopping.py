"""Stopping without losing what is on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["ImportHalted", "StopSignal"]

T = TypeVar("T")


class ImportHalted(Exception):  # noqa: N818  # no error: a task of the import ends here because the import is stopped
    """The import is stopped, and this task was about to wait for something."""


class StopSignal:
    """Tells the tasks of an import to end: at once where they wait, after their call where they make one.

    Attributes:
        stopped: set once `stop` was called.
    """

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._waiting: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Stop; calling it again changes nothing."""
        if not self.stopped.is_set():
            self.stopped.set()
            for task in self._waiting:
                if task is asyncio.current_task():  # a callback stops it: once it really waits
                    asyncio.get_running_loop().call_soon(self._interrupt, task)
                else:
                    task.cancel()

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        if task in self._waiting:
            task.cancel()

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Await something that may be given up at any time. Raises `ImportHalted` once stopped."""
        if self.stopped.is_set():
            _dispose(awaitable)
            raise ImportHalted
        task = _current_task()
        self._waiting.add(task)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self.stopped.is_set() and task in self._waiting and task.uncancel() == 0:
                raise ImportHalted from None
            raise
        finally:
            self._waiting.discard(task)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Let what is awaited in here finish, although it is awaited inside `wait_for`."""
        task = _current_task()
        waiting = task in self._waiting
        self._waiting.discard(task)
        try:
            yield
        finally:
            if waiting:
                self._waiting.add(task)
        if waiting and self.stopped.is_set():
            raise ImportHalted


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("must be called in a task")
    return task


def _dispose(awaitable: Awaitable[Any]) -> None:
    """Close a coroutine that will not be awaited, which would warn otherwise."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
