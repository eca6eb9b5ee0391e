"""The stand-in server in a thread of its own, for code that is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from omi_async.local.calls import CallRecord
from omi_async.local.quotas import Quotas
from omi_async.local.script import Faults

if TYPE_CHECKING:
    from omi_async.local.server import LocalServer

__all__ = ["ThreadedServer"]

T = TypeVar("T")


class ThreadedServer:
    """A `LocalServer` with an event loop of its own in a daemon thread. Made by `LocalServer.in_thread`.

    Its methods may be called from any thread, and have the meaning that they have there.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<ThreadedServer of {self._server!r}>"

    def start(self) -> Self:
        """Start the thread, and wait until the server listens. Raises what `LocalServer.start` raises."""
        if self._loop is not None:
            raise RuntimeError("the server is open already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="omi-local", daemon=True)
        self._thread.start()
        try:
            self._wait(self._server.start())
        except BaseException:
            self._stop()
            raise
        return self

    def close(self) -> None:
        """Close the server and end its thread. Twice is fine."""
        if self._loop is not None:
            try:
                self._wait(self._server.close())
            finally:
                self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(_end_all_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the server is not open")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def _call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Call a function in the server's thread: its data belong to it."""

        async def call() -> T:
            return function(*args, **options)

        return self._wait(call())

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return self._server.url

    @property
    def api_key(self) -> str:
        """The key that the server accepts."""
        return self._server.api_key

    @property
    def faults(self) -> Faults:
        """The faults to come."""
        return self._server.faults

    @property
    def quotas(self) -> Quotas:
        """The quotas in force."""
        return self._server.quotas

    @property
    def requests(self) -> list[CallRecord]:
        """The calls that were handled up to now."""
        return self._call(list, self._server.requests)

    @property
    def max_in_flight(self) -> int:
        """The highest number of calls that were handled at once."""
        return self._server.max_in_flight

    @property
    def max_in_flight_by_operation(self) -> Mapping[str, int]:
        """The highest number of calls of each operation that were handled at once."""
        return self._server.max_in_flight_by_operation

    def add_key(self, api_key: str | None = None, **options: Any) -> str:
        """See `LocalServer.add_key`."""
        return self._server.add_key(api_key, **options)

    def revoke_key(self, api_key: str) -> None:
        """See `LocalServer.revoke_key`."""
        self._server.revoke_key(api_key)

    def memories(self) -> list[dict[str, Any]]:
        """See `LocalServer.memories`."""
        return self._call(self._server.memories)

    def add(self, *texts: str, **fields: Any) -> list[dict[str, Any]]:
        """See `LocalServer.add`."""
        return self._call(self._server.add, *texts, **fields)

    def assert_each_stored_once(self, facts: Iterable[Any]) -> None:
        """See `LocalServer.assert_each_stored_once`."""
        self._call(self._server.assert_each_stored_once, list(facts))


async def _end_all_tasks() -> None:
    """End what still works for a client that has gone, as `asyncio.run` would."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
