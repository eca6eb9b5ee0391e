"""Lazy chunks, and the keys by which equal texts are known.

The chunker knows no network and no event loop: it takes what it is given, no more than it needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar

from omi_async.config import BATCH_SIZE

__all__ = ["Chunks", "content_key", "folding_key"]

T = TypeVar("T")

KEY_BYTES = 16
_LOW_64_BITS: Final = 2**64 - 1
_BLANK: Final = blake2b(digest_size=KEY_BYTES)  # a copy is made in half the time that a new one takes


def content_key(content: str) -> bytes:
    """Return the 16 bytes that stand for a stripped text: equal texts, and only they, have equal keys.

    Case-sensitive and without Unicode normalisation, as the server compares.
    """
    hashed = _BLANK.copy()
    hashed.update(content.encode())
    return hashed.digest()


def folding_key(content: str) -> int:
    """Return the 128 bits that stand for a stripped text within this process, at a third of the cost.

    They are two of Python's own keyed hashes (SipHash, PEP 456), the first of which the string keeps for the
    look-ups to come.
    """
    return hash(content) << 64 | hash(content + "\0") & _LOW_64_BITS


def _no_pause() -> None:
    pass


def _one() -> int:
    return 1


class Chunks(Generic[T]):
    """The chunks of a source, each pulled when it is asked for.

    Args:
        source: any iterable or async iterable; a TypeError is raised for anything else.
        admit: makes a T of an element, or None where the element needs no place in a chunk.
        size: elements in a chunk; only the last may hold fewer.
        pause: gives what is to be awaited after an element, before the next one is pulled; mostly None.
        at_once: how many elements in a row may be given places before `pause` is asked; it is asked in any
            case after one that needs none.

    Attributes:
        exhausted: whether the source has ended; one that raised has not, but nothing more is pulled from it.
    """

    def __init__(
        self,
        source: object,
        admit: Callable[[Any], T | None],
        size: int = BATCH_SIZE,
        *,
        pause: Callable[[], Awaitable[None] | None] = _no_pause,
        at_once: Callable[[], int] = _one,
    ) -> None:
        self.exhausted = False
        self._broken = False
        self._admit = admit
        self._pause = pause
        self._at_once = at_once
        self._size = size
        self._waiting: AsyncIterator[Any] | None = None
        self._ready: Iterator[Any] = iter(())
        if isinstance(source, AsyncIterable):
            self._waiting = aiter(source)
        elif isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
            self._ready = iter(source)
        else:
            raise TypeError(f"facts must be an iterable of facts, not {type(source).__name__}")

    async def next(self, most: int | None = None) -> list[T]:
        """Return the next chunk; an empty one at the end. What the source raises comes out here."""
        chunk: list[T] = []
        size = self._size if most is None else most
        if self.exhausted or self._broken:
            return chunk
        try:
            at_once = self._at_once()
            while len(chunk) < size:
                element = next(self._ready) if self._waiting is None else await anext(self._waiting)
                admitted = self._admit(element)
                if admitted is not None:
                    chunk.append(admitted)
                    at_once -= 1
                    if at_once > 0:
                        continue
                pause = self._pause()
                if pause is not None:
                    await pause
                at_once = self._at_once()
        except (StopIteration, StopAsyncIteration):
            self.exhausted = True
        except BaseException:
            self._broken = True
            raise
        return chunk

    async def close(self) -> None:
        """Close an async source that was not read to its end, so that it can let go of its files now."""
        close = getattr(self._waiting, "aclose", None)
        if close is not None and not self.exhausted:
            await close()
