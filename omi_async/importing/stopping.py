"""Stopping without losing what is on the wire.

A stop must end at once whatever only waits (for a quota window, for the source, for the next look at the
list), and must not touch a call that has left: its answer says which facts are stored. So every wait of an
import stands in a scope that the signal knows, and no call does::

    a worker:   | wait for the source | wait for a permit | call on the wire ....... | wait for the source
                                                                    ^ stop()         ^ halted here, at once
    another:    | wait for the source | wait for a permit (an hour)
                                                ^ stop(): halted here, at once

    the import: | the workers, in a task group ....................| each open fact gets its state
                                                ^ stop()  --drain_timeout-->| what is still out is cancelled

The scopes are asyncio's own timeouts, without an end until there is a stop. Their bookkeeping tells our
cancellation from one that comes from outside, which passes through as it is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final, TypeVar

__all__ = ["ImportHalted", "StopSignal", "carried_through", "outlast", "to_the_end"]

T = TypeVar("T")

SAME_BREATH: Final = 0.05
"""Seconds within which another cancellation is the same one: whoever cancels by level says it at every turn
of the loop. One that comes later is a caller who has lost patience."""


class ImportHalted(Exception):  # noqa: N818  # no error: a task of the import ends here because the import is stopped
    """The import is stopped, and this task was about to wait for something."""


class StopSignal:
    """Tells the tasks of an import to end: at once while they wait, after their call while they make one.

    Attributes:
        stopped: whether the import is to end.
        errors: what made it end, the first one first; what came up while it was ending comes after.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.errors: list[Exception] = []
        self._scopes: dict[asyncio.Timeout, float] = {}

    def stop(self) -> None:
        """Stop; calling it again changes nothing."""
        if self.stopped:
            return
        self.stopped = True
        for scope, seconds in self._scopes.items():
            # The task is not cancelled itself: it may be the one that calls this, in a callback.
            scope.reschedule(asyncio.get_running_loop().time() + seconds)

    def fail(self, error: Exception) -> None:
        """Stop because of an error."""
        self.errors.append(error)
        self.stop()

    def ends_after(self, seconds: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Cancel what is in here so many seconds after a stop. Raises `ImportHalted` then.

        Gives the scope, which knows the moment once there was a stop.
        """
        return _Scope(self, seconds)

    def enter(self, scope: asyncio.Timeout, seconds: float) -> None:
        """Have a scope end so many seconds after a stop, until it is left."""
        self._scopes[scope] = seconds
        if self.stopped:
            scope.reschedule(asyncio.get_running_loop().time() + seconds)

    def leave(self, scope: asyncio.Timeout) -> None:
        """Forget a scope."""
        del self._scopes[scope]

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that may be given up at any time. Raises `ImportHalted` once stopped."""
        if self.stopped:
            work.close()  # never begun, it would warn otherwise
            raise ImportHalted
        async with self.ends_after(0.0):
            return await work


class _Scope:
    """A block that ends some seconds after a stop. No generator: each call of an import waits in one."""

    def __init__(self, signal: StopSignal, seconds: float) -> None:
        self._signal = signal
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> asyncio.Timeout:
        await self._timeout.__aenter__()
        self._signal.enter(self._timeout, self._seconds)
        return self._timeout

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._signal.leave(self._timeout)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:  # not the work's own, which it lets pass
            raise ImportHalted from None


async def outlast(task: asyncio.Task[Any], *, impatient: Callable[[], object] | None = None) -> None:
    """Wait for a task's end through all cancellations; tell of one that is not just the last one repeated.

    anyio, and with it Starlette and others, cancels a task again at every turn of the loop until its scope is
    left, which would keep a core busy as long as this waits. So its own shield is used if it is there.
    """
    loop = asyncio.get_running_loop()
    with _shield_of_anyio():
        last = loop.time()  # only now: making the first shield loads a module, longer than a breath
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                if loop.time() - last > SAME_BREATH and impatient is not None:
                    impatient()
                last = loop.time()


async def carried_through(
    work: Coroutine[Any, Any, None], *, impatient: Callable[[], object] | None = None
) -> None:
    """Do what must be done at an end, whole, and only then be cancelled.

    Another cancellation, which is not just the last one repeated, calls `impatient`, or cancels the work.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    finally:
        await outlast(task, impatient=impatient or task.cancel)
    task.result()


async def to_the_end(step: Callable[[], Awaitable[Any]]) -> None:
    """Take a step of the ending, again if a cancellation broke into it."""
    while True:
        try:
            await step()
        except asyncio.CancelledError:
            continue
        return


def _shield_of_anyio() -> AbstractContextManager[Any]:
    anyio: Any = sys.modules.get("anyio")  # not imported: whoever cancels by it has done that
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
