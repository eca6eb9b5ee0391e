"""The importer: workers over the chunks of a source, and how an import ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, get_args

import attrs

from omi_async._requests import Sender
from omi_async.config import BATCH_SIZE, Retry
from omi_async.errors import ConfigurationError, ImportStoppedError, InvalidFactError, OmiError
from omi_async.importing.account import Account, Item, OnOutcome, OnProgress
from omi_async.importing.answers import ImportStart, Rules
from omi_async.importing.calls import Calls
from omi_async.importing.chunks import Chunks, content_key
from omi_async.importing.delivery import Delivery, OnUnknown
from omi_async.importing.outcomes import FactOutcome, ImportReport
from omi_async.importing.reconcile import Reconciler
from omi_async.importing.stopping import Halt, StopSignal
from omi_async.models import Fact, fact_from

__all__ = ["FactLike", "Importer"]

FactLike = Fact | str | Mapping[str, Any] | FactOutcome
"""What an import takes: a fact, its text, a mapping, or the invalid outcome of a source's broken record."""

BREATH: Final = 256
"""Facts pulled in a row before other tasks of the event loop get their turn."""


class Importer:
    """One import, outcome by outcome.

    ::

        async with session.memories.importer(facts) as importer:
            async for outcome in importer:
                ...
        print(importer.report)

    Outcomes come in the order in which facts are settled. A slow reader slows the senders: at most
    ``(concurrency + 1) * 25`` facts are pulled beyond those whose outcome was read. Leaving the block early
    stops the import as `stop` does. Made by `Memories.importer`, which explains the arguments.

    Attributes:
        report: the account so far.
    """

    def __init__(
        self,
        sender: Sender,
        facts: Iterable[FactLike] | AsyncIterable[FactLike],
        *,
        concurrency: int = 4,
        dedupe: bool = True,
        on_unknown: OnUnknown = "reconcile",
        drain_timeout: float = 30.0,
        on_outcome: OnOutcome | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if on_unknown not in get_args(OnUnknown):
            raise ValueError(f"on_unknown must be one of {get_args(OnUnknown)}, not {on_unknown!r}")
        self._sender = sender
        self._concurrency = concurrency
        self._drain_timeout = drain_timeout
        self._signal = StopSignal()
        self._account = Account(
            room=(concurrency + 1) * BATCH_SIZE,
            signal=self._signal,
            on_outcome=on_outcome,
            on_progress=on_progress,
        )
        self._chunks = Chunks(facts, self._admit)
        self._pulling = asyncio.Lock()
        self._keys: set[bytes] | None = set() if dedupe else None
        self._rules = Rules()
        self._on_unknown = on_unknown
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    # What a user sees

    @property
    def report(self) -> ImportReport:
        """The account so far; complete once the import has ended."""
        return self._account.report

    def stop(self) -> None:
        """Begin no new call; those on the wire may land within `drain_timeout`. To be called in the loop."""
        self._signal.stop()

    async def run(self) -> ImportReport:
        """Import everything and return the report.

        Raises:
            ImportStoppedError: the import could not go on.
            asyncio.CancelledError: it was cancelled; calls on the wire had `drain_timeout` to land.
        """
        self._start(streaming=False)
        await self._join()
        self._raise_failure()
        return self.report

    async def __aenter__(self) -> Self:
        self._start(streaming=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await self._join()

    def __aiter__(self) -> AsyncIterator[FactOutcome]:
        return self

    async def __anext__(self) -> FactOutcome:
        main = self._main
        if main is None:
            raise ConfigurationError("iterate over an importer inside `async with`")
        outcome = await self._account.next_outcome(main.done)
        if outcome is not None:
            return outcome
        main.result()
        self._raise_failure()
        raise StopAsyncIteration

    # The run

    def _start(self, *, streaming: bool) -> None:
        if self._main is not None:
            raise ConfigurationError("an importer runs once; make another for another import")
        self._account.streaming = streaming
        self._main = asyncio.create_task(self._import(), name="omi_async import")
        self._main.add_done_callback(lambda _task: self._account.wake())

    async def _join(self) -> None:
        """Wait for the end; when cancelled, stop first, and when cancelled again, at once."""
        assert self._main is not None  # noqa: S101  # both callers started it
        try:
            await asyncio.wait({self._main})
        except asyncio.CancelledError:
            self.stop()
            try:
                await asyncio.wait({self._main})
            except asyncio.CancelledError:
                self._main.cancel()
                await asyncio.wait({self._main})
            raise
        self._main.result()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise ImportStoppedError(
                f"the import was stopped: {self._failure}", self.report
            ) from self._failure

    async def _import(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        report = self.report
        self._wire_up()
        try:
            for _ in range(self._concurrency):
                self._spawn(self._work())
            await self._until_done()
        finally:
            await self._end_tasks()
            report.complete = self._chunks.exhausted
            report.elapsed = loop.time() - started
            await self._account.close(self._why_not_sent())
            await self._account.progress()
            self._failure = self._failure or self._account.callback_error

    def _wire_up(self) -> None:
        calls = Calls(self._sender, self._concurrency, Retry(), self._signal, self.report)
        start = ImportStart(time.time())
        self._delivery = Delivery(
            calls=calls,
            account=self._account,
            start=start,
            rules=self._rules,
            on_unknown=self._on_unknown,
            set_aside=self._set_aside,
            fatal=self._fail,
        )
        self._reconciler = Reconciler(
            calls=calls,
            account=self._account,
            start=start,
            signal=self._signal,
            delivery=self._delivery,
            spawn=self._spawn,
        )

    def _set_aside(self, items: list[Item]) -> None:
        self._reconciler.set_aside(items)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _until_done(self) -> None:
        """Wait for all tasks; once stopped, at most for `drain_timeout`."""
        stopped = asyncio.create_task(self._signal.stopped.wait())
        try:
            while self._tasks and not stopped.done():
                done, _ = await asyncio.wait({*self._tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
                self._collect(done)
            deadline = asyncio.get_running_loop().time() + self._drain_timeout
            while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
                done, _ = await asyncio.wait(self._tasks, timeout=left)
                self._collect(done)
        finally:
            stopped.cancel()

    def _collect(self, done: Iterable[asyncio.Task[Any]]) -> None:
        for task in done:
            if task in self._tasks:
                self._tasks.discard(task)
                error = None if task.cancelled() else task.exception()
                if isinstance(error, Exception) and not isinstance(error, Halt):
                    self._fail(error)

    async def _end_tasks(self) -> None:
        """Cancel what did not land in time; a cancelled call gives its connection back."""
        self._signal.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            done, _ = await asyncio.wait(self._tasks)
            self._collect(done)
        await self._chunks.close()

    def _fail(self, error: Exception) -> None:
        """End the import because of an error: the first one is the cause."""
        self._failure = self._failure or error
        self._signal.stop()

    def _why_not_sent(self) -> OmiError:
        if self._failure is None:
            return OmiError("not sent: the import was stopped first")
        return OmiError(f"not sent: the import was stopped ({self._failure})")

    # The workers

    async def _work(self) -> None:
        while True:
            chunk = await self._signal.wait_for(self._next_chunk())
            if not chunk:
                return
            await self._delivery.deliver(chunk)
            if self._account.callback_error is not None:
                self._fail(self._account.callback_error)

    async def _next_chunk(self) -> list[Item]:
        async with self._pulling:
            if self._chunks.exhausted:
                return []
            return await self._chunks.next()

    async def _admit(self, element: FactLike) -> Item | None:
        """Give a pulled element its index; settle at once what need not be sent."""
        account = self._account
        index = account.next_index()
        if account.full:
            await account.wait_for_room()
        elif index % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        if isinstance(element, FactOutcome):
            await account.deliver(attrs.evolve(element, index=index))
            return None
        try:
            fact = fact_from(element)
        except InvalidFactError as error:
            await account.deliver(FactOutcome(index, None, "invalid", error=error))
            return None
        item = account.enter(index, fact)
        if self._is_duplicate(fact):
            await account.settle(item, "duplicate")
        elif (refused := self._rules.refuse(fact)) is not None:
            field, words = refused
            await account.settle(item, "invalid", error=InvalidFactError(words, field=field))
        else:
            return item
        return None

    def _is_duplicate(self, fact: Fact) -> bool:
        if self._keys is None:
            return False
        key = content_key(fact.content)
        if key in self._keys:
            return True
        self._keys.add(key)
        return False
