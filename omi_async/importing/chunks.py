"""Lazy chunks, and the keys by which equal texts are known.

The chunker knows no network and no event loop: it takes what it is given, no more than it needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeVar

from omi_async.config import BATCH_SIZE

__all__ = ["Chunks", "content_key", "folding_keys"]

T = TypeVar("T")

KEY_BYTES = 16
_BLANK: Final = blake2b(digest_size=KEY_BYTES)  # a copy is made in half the time that a new one takes


def content_key(content: str) -> bytes:
    """Return the 16 bytes that stand for a stripped text: equal texts, and only they, have equal keys.

    Case-sensitive and without Unicode normalisation, as the server compares.
    """
    hashed = _BLANK.copy()
    hashed.update(content.encode())
    return hashed.digest()


def folding_keys(contents: Iterable[str]) -> list[int]:
    """Return the 128 bits that stand for each stripped text within this process, at a third of the cost.

    They are two of Python's own keyed hashes (SipHash, PEP 456).
    """
    return [(hash(content) << 64) + hash(content + "\0") for content in contents]


def _no_pause() -> None:
    pass


def _one() -> int:
    return 1


def _nothing(_most: int) -> list[Any]:
    return []


class AtHand(Protocol):
    """An async source that may have more than one element ready."""

    def at_hand(self, most: int) -> list[Any]:
        """Return the next elements, at most so many, that need not be waited for; perhaps none."""
        ...


class Chunks(Generic[T]):
    """The chunks of a source, each pulled when it is asked for.

    Args:
        source: any iterable or async iterable; a TypeError is raised for anything else.
        admit: makes Ts of elements, fewer where some need no place in a chunk.
        size: elements in a chunk; only the last may hold fewer.
        pause: gives what is to be awaited after some elements, before the next ones are pulled; mostly None.
        at_once: how many elements may be pulled before `pause` is asked; at least 1.

    Attributes:
        exhausted: whether the source has ended; one that raised has not, but nothing more is pulled from it.
    """

    def __init__(
        self,
        source: object,
        admit: Callable[[list[Any]], list[T]],
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
            self._at_hand = getattr(self._waiting, "at_hand", _nothing)
        elif isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
            self._ready = iter(source)
        else:
            raise TypeError(f"facts must be an iterable of facts, not {type(source).__name__}")

    async def next(self, most: int | None = None) -> list[T]:
        """Return the next chunk; an empty one at the end. What the source raises comes out here."""
        chunk: list[T] = []
        size = self._size if most is None else most
        try:
            while len(chunk) < size and not self.exhausted and not self._broken:
                chunk += await self._some(min(size - len(chunk), self._at_once()))
                pause = self._pause()
                if pause is not None:
                    await pause
        except BaseException:
            self._broken = True
            raise
        return chunk

    async def _some(self, most: int) -> list[T]:
        """Pull some elements and admit them: also those that came before the source raised."""
        elements: list[Any] = []
        try:
            if self._waiting is None:
                elements.extend(islice(self._ready, most))
                self.exhausted = len(elements) < most
            else:
                elements.append(await anext(self._waiting))
                elements += self._at_hand(most - 1)
        except StopAsyncIteration:
            self.exhausted = True
        finally:
            admitted = self._admit(elements)
        return admitted

    async def close(self) -> None:
        """Close an async source that was not read to its end, so that it can let go of its files now."""
        close = getattr(self._waiting, "aclose", None)
        if close is not None and not self.exhausted:
            await close()
