"""Copies the input of a job into its folder: an upload ends with its request, a generator with its process.

The event loop is never blocked: files are read and written in threads, an asynchronous source is awaited in
the loop and written in portions.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final

from omi_async.fact import FIELDS, Fact, refuse_table
from omi_async.jobs.files import open_private

__all__ = ["InputTooLargeError", "as_path", "name_for", "spool"]

_PORTION: Final = 2**18
"""Bytes that are read or written at once. Each portion is a turn of a thread: a tenth would take longer."""

_FACTS_AT_ONCE: Final = 500

_LONGEST_NAME: Final = 100

_BYTES: Final = bytes | bytearray | memoryview


class InputTooLargeError(ValueError):
    """The input of a job has more bytes than `ImportJobs(max_bytes=...)` allows. Nothing of it was kept."""


def as_path(source: object) -> object:
    """Return a path in place of its name, and anything else as it is."""
    return Path(source) if isinstance(source, str | os.PathLike) else source


def name_for(source: object, name: str | None) -> str:
    """Return a harmless file name for the input, close to its own: the suffix helps to tell the format."""
    wishes = (name, getattr(source, "filename", None), getattr(source, "name", None), "input")
    wish = next(wish for wish in wishes if isinstance(wish, str) and wish)
    # A browser on Windows sends whole paths; and a name must not lead out of the folder, nor hide its file.
    last = PurePath(wish.replace("\\", "/")).name
    return re.sub(r"[^\w.\- ]", "_", last).lstrip(".")[-_LONGEST_NAME:] or "input"


async def spool(
    source: object, target: Callable[[str], Path], name: str, limit: int
) -> tuple[str, int | None]:
    """Copy a source; return the name of the file, and the number of facts if it is known.

    A source is a path, bytes, a binary file or upload (with a `read`, plain or async), or an iterable or
    async iterable of bytes or of facts. Facts are written as JSON lines. Raises `InputTooLargeError`,
    TypeError for what is none of these, and what the source raises.
    """
    sink = _Sink(target, name, limit)
    try:
        if isinstance(items := _items_of(source), AsyncIterable):
            async for portion in _in_portions(items):
                await asyncio.to_thread(sink.take, portion)
        else:
            await asyncio.to_thread(sink.take, items)
    finally:
        await asyncio.to_thread(sink.close)
    return sink.name, sink.facts


def _items_of(source: Any) -> Iterable[object] | AsyncIterable[object]:
    """Return the bytes or the facts of a source, to be iterated in a thread or in the loop."""
    if isinstance(source, Path):
        return _contents_of(source)
    if isinstance(source, _BYTES):
        return [source]
    # Asked for before iteration: a file iterates over lines, of which one may be as long as the file. The
    # first is of a part of a form in aiohttp, whose `read` takes no size.
    read = getattr(source, "read_chunk", getattr(source, "read", None))
    if inspect.iscoroutinefunction(read):
        return _portions_awaited(read)
    if callable(read):
        return _portions_of(read)
    refuse_table(source)
    if isinstance(source, AsyncIterable | Iterable):
        return source
    raise TypeError(f"no facts can be read from {type(source).__name__}")


def _contents_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _portions_of(file.read)


def _portions_of(read: Callable[[int], object]) -> Iterator[bytes]:
    while portion := read(_PORTION):
        yield _checked(portion)


async def _portions_awaited(read: Callable[[int], Awaitable[object]]) -> AsyncIterator[bytes]:
    while portion := await read(_PORTION):
        yield _checked(portion)


def _checked(portion: object) -> bytes:
    if not isinstance(portion, bytes):
        raise TypeError(f"a file is to be opened in binary mode; this one gives {type(portion).__name__}")
    return portion


async def _in_portions(items: AsyncIterable[object]) -> AsyncIterator[list[object]]:
    """Gather small items, so that not every fact of a stream costs a turn of a thread."""
    portion: list[object] = []
    async for item in items:
        portion.append(item)
        if isinstance(item, _BYTES) or len(portion) >= _FACTS_AT_ONCE:
            yield portion
            portion = []
    yield portion


class _Sink:
    """Writes what comes, bytes as they are and facts as JSON lines, to a file of bounded size.

    Attributes:
        name: of the file.
        facts: how many were written; None for bytes.
    """

    def __init__(self, target: Callable[[str], Path], name: str, limit: int) -> None:
        self.name = name
        self.facts: int | None = None
        self._target = target
        self._file: BinaryIO | None = None
        self._left = self._limit = limit

    def take(self, items: Iterable[object]) -> None:
        """Write some of the source. The first item of all decides whether it is one of bytes or of facts."""
        for item in items:
            are_bytes = isinstance(item, _BYTES)
            file = self._file or self._open(are_bytes=are_bytes)
            if are_bytes == (self.facts is not None):
                raise TypeError("a source gives bytes or facts, and not both")
            data = item if isinstance(item, _BYTES) else _line_of(item)
            self._left -= len(data)
            if self._left < 0:
                raise InputTooLargeError(f"the input has more than {self._limit:,} bytes")
            file.write(data)
            if self.facts is not None:
                self.facts += 1

    def _open(self, *, are_bytes: bool) -> BinaryIO:
        if not are_bytes:
            self.name, self.facts = "facts.jsonl", 0
        self._file = os.fdopen(open_private(self._target(self.name)), "wb")
        return self._file

    def close(self) -> None:
        """Write it to the disk: once a job is said to be started, its upload cannot be asked for again."""
        file = self._file or self._open(are_bytes=False)
        with file:
            file.flush()
            os.fsync(file.fileno())


def _line_of(item: object) -> bytes:
    """Write a fact as a line of JSON; also what cannot become one, so that the import says why."""
    if isinstance(item, Fact):
        item = item.to_dict()
    if hasattr(item, "keys"):  # a mapping, or the row of a database, which iterates over its values
        item = {name: _writable(name, item[name]) for name in item.keys()}  # type: ignore[index]  # noqa: SIM118
    try:
        # Escaped: so also a text that is no Unicode is kept, to become an invalid fact of the import.
        return json.dumps(item).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise TypeError(f"a {type(item).__name__} cannot be kept as a fact: {error}") from error


def _writable(name: object, value: object) -> object:
    """Return a value of a record as JSON carries it, so that the fact is what an import would make of it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None  # an empty cell of a table
    if isinstance(value, set | frozenset):
        return list(value)  # of tags
    if isinstance(value, str | int | float | list | tuple | dict | None):
        return value
    # Dates and the like stand in columns that are no fields of a fact, and may be wanted by a template. In
    # place of a text, they are no fact; and so is an empty object.
    return {} if name in FIELDS else str(value)
