"""Reading an async source in one task, from its first element to its end.

An async generator runs in whatever task asks it for its next element, and what it holds across a ``yield`` (a
timeout, a task group, a cancel scope, a context variable) belongs to the task that has entered it. So it is
not the workers who read it, each when it needs a batch, but a task that lives as long as the source::

    a worker    hold(25) ────────────┐                 25 items ──> ...       hold(25) ...
                                     ▼                    ▲
    the pump    waits, nothing   a, b, c ... one after the other     waits     ... aclose
                is asked         each read before the next one

Nothing is read that was not asked for. What a timeout of the source's breaks into is mostly the pump's own
waiting; it is handed on to the source, whose it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from omi_async.errors import OmiError
from omi_async.importing.item import Item
from omi_async.importing.stopping import ImportHalted, StopSignal

__all__ = ["Pump"]

T = TypeVar("T")


class Pump(Generic[T]):
    """Reads an async source for those who need its items.

    Args:
        source: is read, and closed.
        read: makes an item of an element, or None if it has to be told of before the next one is read.
        signal: ends the reading at once.

    Attributes:
        items: those read, and not taken yet.
        since: when the first of them was read, by the loop's clock.
        exhausted: whether the source has come to its end.
    """

    def __init__(
        self, source: AsyncIterator[T], *, read: Callable[[T], Item | None], signal: StopSignal
    ) -> None:
        self.items: list[Item] = []
        self.since = 0.0
        self.exhausted = False
        self._source = source
        self._read = read
        self._signal = signal
        self._wanted = 0
        self._asked = asyncio.Event()
        self._told = asyncio.Event()
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    # For those who need items

    async def hold(self, wanted: int, until: float | None = None) -> bool:
        """Wait until so many items are there, or something else is to be told, or the source is at its end.

        Returns whether that was so before the moment `until` of the loop's clock. Raises what the source has
        raised. May be cancelled: the source does not notice.
        """
        self._wanted = wanted
        self._told.clear()
        self._asked.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="omi_async source")
        elif self._task.done():
            self._told.set()
        try:
            async with asyncio.timeout_at(until):
                await self._told.wait()
        except TimeoutError:
            return False
        finally:
            self._wanted = 0  # one that is under way still comes
        self._raise_error()
        return True

    def take(self) -> list[Item]:
        """Take the items that are there."""
        taken, self.items = self.items, []
        return taken

    async def close(self) -> None:
        """Wait until the source is closed; the import is stopped by now. Raises what it raises.

        A source may take its time, or not let go at all; when this is cancelled, it is left to itself.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="omi_async source")
        if not self._task.done():  # else another turn of the loop, for which there may be no time left
            try:
                await asyncio.wait({self._task})
            finally:
                self._task.cancel()
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    # The task of the source

    async def _run(self) -> None:
        try:
            async with self._signal.ends_after(0.0):
                try:
                    await self._read_all()
                except Exception:
                    if not self._signal.stopped:  # else it was interrupted, and is left anyway
                        raise
                finally:
                    if not self.exhausted:
                        await self._close_source()
        except ImportHalted:
            pass
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # noqa: BLE001  # whoever asks for an item, or closes this, raises it
            self._error = error
        except BaseException as error:  # noqa: BLE001  # an exception of the source's that is no Exception
            self._error = OmiError(f"the source raised {type(error).__name__}")
        finally:
            self._told.set()

    async def _read_all(self) -> None:
        while not self._signal.stopped:
            try:
                element = await self._next()
            except StopAsyncIteration:
                self.exhausted = True
                return
            item = self._read(element)
            if item is None:
                self._wanted = 0
                continue
            if not self.items:
                self.since = asyncio.get_running_loop().time()
            self.items.append(item)

    async def _next(self) -> T:
        """Return the next element, once one is asked for."""
        try:
            while len(self.items) >= self._wanted:
                self._told.set()
                self._asked.clear()
                await self._asked.wait()
        except asyncio.CancelledError as error:
            hand_on = getattr(self._source, "athrow", None)
            if self._signal.stopped or hand_on is None:
                raise
            # A timeout or a task group of the source's ends, while it is not the source that waits.
            element: T = await hand_on(error)
            return element
        return await anext(self._source)

    async def _close_source(self) -> None:
        """Close the source. A generator is cancelled first: task groups take GeneratorExit for an error."""
        cancel = getattr(self._source, "athrow", None)
        if cancel is not None:
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await cancel(asyncio.CancelledError())
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()
