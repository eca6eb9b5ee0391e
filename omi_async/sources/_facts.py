"""`open_facts`: the facts of a file for an event loop that is never blocked by reading them."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Generator, Mapping
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import Any, Final, Self, get_args

from omi_async.importing.chunks import AtHand
from omi_async.sources._bridge import Bridge
from omi_async.sources._detect import Format
from omi_async.sources._fields import Fields, fields_from
from omi_async.sources._reading import read_batches
from omi_async.sources._records import Batch, Item
from omi_async.sources._stop import Stop
from omi_async.sources._streams import Place, chunks_of, name_of, opened

__all__ = ["Facts", "open_facts"]

MOST: Final = 500
"""Items handed to the loop at once, before others get their turn."""


def open_facts(
    path_or_stdin: Place,
    format: Format = "auto",  # noqa: A002 - what the command line calls it
    mapping: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Facts:
    """Read facts from a file of another system.

    Args:
        path_or_stdin: a path, ``"-"`` for standard input, or a file object opened in binary mode, which is
            borrowed and left open. Any of them may be gzipped.
        format: ``"jsonl"``, ``"json"``, ``"csv"``, ``"tsv"``, ``"text"`` or ``"markdown"``; ``"auto"`` looks
            at the content first and at the name second.
        mapping: field of the fact to key or column of the file, such as ``{"content": "data.memory"}``; a
            dotted path reaches into nested JSON. What is not mapped goes by its usual names.
        defaults: ``category``, ``visibility`` and ``tags`` of the records that have none.

    Nothing is opened before the first fact is asked for. Raises `ValueError` for an unknown format and for an
    unusable mapping or default, `TypeError` for what can be no source; iterating raises `SourceError`.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, not {format!r}")
    return Facts(path_or_stdin, name_of(path_or_stdin), format, fields_from(mapping, defaults))


class Facts(AtHand):
    """The facts of a file, to be iterated once: `Fact`, or an invalid `FactOutcome` where a record is none.

    `anext` waits for one; `at_hand` takes those that were read with it, cheaper than by waiting for each.

    ``async with`` ends the reading on leaving; without it the reading ends at the end of the file, by
    `aclose`, or when the object is dropped.
    """

    def __init__(self, place: Place, name: str, wanted: Format, fields: Fields) -> None:
        self.name = name
        self._read = partial(_batches, place, name, wanted, fields)
        self._bridge: Bridge[Item] | None = None
        self._pending: deque[Item] = deque()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """Give the next fact or outcome. Raises `SourceError` where the file cannot be read any further."""
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            await self._refill()
        return self._pending.popleft()

    def at_hand(self, most: int) -> list[Item]:
        """Return facts and outcomes that are read already, in their order, without waiting; perhaps none.

        They are those that `anext` would give next, at most so many, and it goes on behind them. None does
        not mean the end, which only `anext` tells.
        """
        pending = self._pending
        return [*map(deque.popleft, repeat(pending, min(most, len(pending))))]

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
            await asyncio.sleep(0)  # a fast reader and a busy consumer must not starve everybody else

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
    place: Place, name: str, wanted: Format, fields: Fields, stop: Stop
) -> Generator[Batch, None, None]:
    """Open and read, all of it in the thread: to open a pipe may take as long as to read it."""
    with opened(place, name, stop) as stream:
        for batch in read_batches(chunks_of(stream, stop), name, wanted, fields):
            for at in range(0, len(batch), MOST):
                yield batch[at : at + MOST]
