"""`open_facts`: the facts of a file for an event loop that is never blocked by reading them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from omi_async._formats import FORMATS, Format
from omi_async.sources._options import Long, ReadOptions, options_from
from omi_async.sources._records import Batch, Entry, Reading, Recognised
from omi_async.sources._source import read_source
from omi_async.sources._streams import Place, Stop, name_of

__all__ = ["Bridge", "Facts", "open_facts"]

MOST: Final = 500
"""Entries handed to the loop at once: with more of them, other tasks would wait for milliseconds."""


def open_facts(
    path_or_stdin: Place,
    format: Format = "auto",  # noqa: A002 - what the command line calls it
    mapping: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    *,
    template: str | None = None,
    where: Mapping[str, str | Iterable[str]] | Iterable[str] | None = None,
    under: str | Iterable[str] = (),
    only_tag: str | Iterable[str] = (),
    include: str | Iterable[str] = (),
    long: Long = "reject",
    encoding: str | None = None,
    name: str | None = None,
) -> Facts:
    """Read facts from a file, a ZIP archive or a folder of another system.

    Args:
        path_or_stdin: a path, ``"-"`` for standard input, or a file object opened in binary mode, which is
            borrowed and left open. Any of them may be gzipped, or a ZIP archive.
        format: the format, such as ``"csv"``, ``"markdown"`` or ``"claude"``; ``"auto"`` looks at the content
            first and at the name second, and refuses what is no list of facts.
        mapping: field of the fact to key or column of the file, such as ``{"content": "data.memory"}``; a
            dotted path reaches into nested JSON. What is not mapped goes by its usual names; a field that is
            mapped to ``""`` is left out.
        defaults: ``category``, ``visibility`` and ``tags`` of the records that have none.
        template: makes the text of a row or object: ``"User reads {Title}[ by {Author}]"``. An empty cell
            makes the record invalid, but inside of ``[...]`` it leaves that part out.
        where: takes only records with these values: ``{"Shelf": "read"}``, or ``["Shelf=read"]``.
        under: takes only what stands below these headings of Markdown.
        only_tag: takes only facts with one of these tags.
        include: what is left out unless it is named: ``projects``, ``instructions``, ``pending``,
            ``relations``, ``archived``, ``journals``.
        long: what becomes of a text of more than 500 characters: ``"reject"`` makes it invalid, ``"split"``
            makes several facts of it, at paragraphs, lines and sentences.
        encoding: what the bytes are, such as ``"cp1252"``, if they are neither UTF-8 nor UTF-16.
        name: what origins and errors call the source; None for its own name.

    Nothing is opened before the first fact is asked for. Raises `ValueError` for an unknown format and for an
    unusable choice, `TypeError` for what can be no source; iterating raises `SourceError`.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    options = options_from(
        mapping,
        defaults,
        template=template,
        where=where,
        under=under,
        only_tag=only_tag,
        include=include,
        long=long,
        encoding=encoding,
    )
    own_name = name_of(path_or_stdin)
    return Facts(path_or_stdin, name or own_name, format, options)


class Facts:
    """The facts of a file, to be iterated once: each a `Fact`, or an invalid `FactOutcome`.

    ``async with`` ends the reading on leaving; without it the reading ends at the end of the file, by
    `aclose`, or when the object is dropped.

    Attributes:
        name: the file, as the caller named it.
        skipped: what was left out on purpose, by reason: ``Counter({"deleted": 2, "task": 1})``. It is
            complete at the end; before that it may count what was read ahead.
        recognised: what each file was taken for, with the columns of a table.
    """

    def __init__(self, place: Place, name: str, wanted: Format, options: ReadOptions) -> None:
        reading = Reading(options)
        self.name = name
        self.skipped: Counter[str] = reading.skipped
        self.recognised: Sequence[Recognised] = reading.recognised
        self._read = partial(_batches, place, name, wanted, reading)
        self._bridge: Bridge[Entry] | None = None
        self._pending: deque[Entry] = deque()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        """Return the next fact or outcome. Raises `SourceError` if the file cannot be read any further."""
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            await self._refill()
        return self._pending.popleft()

    async def _refill(self) -> None:
        if self._bridge is None:
            self._bridge = Bridge(self._read)
            weakref.finalize(self, self._bridge.stop)
        try:
            batch = await self._bridge.get()
        except Exception:
            await self._end()
            raise
        if batch is None:
            await self._end()
        elif not self._closed:  # else the thread had it ready just too late
            self._pending.extend(batch)
            await asyncio.sleep(0)  # a fast reader and a busy consumer must not starve the other tasks

    async def aclose(self) -> None:
        """Stop reading and wait for the thread; what was not asked for yet is dropped. May be repeated."""
        self._pending.clear()
        await self._end()

    async def _end(self) -> None:
        self._closed = True
        if self._bridge is not None:
            await self._bridge.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _batches(
    place: Place, name: str, wanted: Format, reading: Reading, stop: Stop
) -> Generator[Batch, None, None]:
    """Open and read, all of it in the thread: to open a pipe may take as long as to read it."""
    for batch in read_source(place, name, wanted, reading, stop):
        for at in range(0, len(batch), MOST):
            yield batch[at : at + MOST]


AHEAD: Final = 3
"""Batches that wait for the loop, at most: with one, reader and consumer would take turns."""

PATIENCE: Final = 1.0
"""Seconds to wait for the thread at the end; only a read that nothing can interrupt takes longer.

Without a bound, a file on a network drive that hangs would hang the program at its end.
"""

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
            # Bytes that end because the caller wants no more look like a file that is cut short.
            self._error = None if self._stop.requested else error
        finally:
            batches.close()
            self._stop.close()
            self._tell(self._end)

    def _let_loop_run(self) -> None:
        """Wait for a turn of the loop, after each chunk.

        A thread that only lets go of the interpreter takes it back before the loop wakes up, chunk after
        chunk: the loop would be late for all other tasks, and stand still over a long stretch of blank lines.
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
        except RuntimeError:  # the loop is closed: no caller reads on
            self._stop.request()
