"""Lazy chunks, and the keys by which equal texts are known.

The chunker knows no network and no event loop: it takes what it is given, no more than it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

from omi_async.constants import BATCH_SIZE

__all__ = ["AtHand", "Chunks"]

T = TypeVar("T")


def _never() -> bool:
    return False


async def _no_pause() -> None:
    pass


def _one() -> int:
    return 1


def _nothing(_most: int) -> list[Any]:
    return []


class AtHand(ABC):
    """An async iterator that may have elements which need not be waited for."""

    @abstractmethod
    def at_hand(self, most: int) -> list[Any]:
        """Return the elements that `anext` would give next, at most so many, without waiting."""


def _at_hand_of(source: AsyncIterator[Any]) -> Callable[[int], list[Any]]:
    """Return the source's `at_hand`, unless its `__anext__` is of a class that knows nothing of it."""
    if not isinstance(source, AtHand):
        return _nothing
    kind = next(kind for kind in type(source).__mro__ if "__anext__" in vars(kind))
    return source.at_hand if "at_hand" in vars(kind) else _nothing


class Chunks(Generic[T]):
    """The chunks of a source, each pulled when it is asked for.

    Args:
        source: any iterable or async iterable; a TypeError is raised for anything else. One that is an
            `AtHand` is asked for what need not be waited for.
        admit: pulls elements, makes a T of each that needs a place in a chunk, and tells how many it pulled.
        room: how many elements may be pulled before `due` is asked; at least 1.
        due: tells whether there is to be a pause after some elements, before the next ones are pulled.
        pause: makes it.

    Attributes:
        exhausted: whether the source has ended; one that raised has not, but nothing more is pulled from it.
    """

    def __init__(
        self,
        source: object,
        admit: Callable[[Iterator[Any]], tuple[list[T], int]],
        *,
        room: Callable[[], int] = _one,
        due: Callable[[], bool] = _never,
        pause: Callable[[], Awaitable[None]] = _no_pause,
    ) -> None:
        self.exhausted = False
        self._admit = admit
        self._room = room
        self._due = due
        self._pause = pause
        self._part = list[T]()  # of the next chunk
        self._rested = True  # since the last element
        self._broken = False
        self._waiting: AsyncIterator[Any] | None = None
        self._ready: Iterator[Any] = iter(())
        if isinstance(source, AsyncIterable):
            self._waiting = aiter(source)
            self._at_hand = _at_hand_of(self._waiting)
        elif isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
            self._ready = iter(source)
        else:
            raise TypeError(f"facts must be an iterable of facts, not {type(source).__name__}")

    @property
    def drained(self) -> bool:
        """Whether the source has ended, and all of it was given out."""
        return self.exhausted and not self._part

    def at_once(self, size: int = BATCH_SIZE) -> list[T] | None:
        """Return the next chunk, of which only the last is smaller; an empty one comes at the end.

        None where something has to be waited for, which `next` does. What the source raises comes out here.
        """
        while self._rested or not self._due():
            if len(self._part) >= size or self.exhausted or self._broken:
                chunk, self._part = self._part[:size], self._part[size:]
                return chunk
            if not self._pull(min(size - len(self._part), self._room())):
                break
        return None

    async def next(self, size: int = BATCH_SIZE) -> list[T]:
        """Return the next chunk, as `at_once` does, but wait for it."""
        while (chunk := self.at_once(size)) is None:
            try:
                await self._wait()
            except BaseException:
                self._break()
                raise
        return chunk

    def _pull(self, most: int) -> bool:
        """Pull some elements that need not be waited for; return whether anything came of it."""
        try:
            if self._waiting is not None:
                return self._take(iter(self._at_hand(most))) > 0
            self.exhausted = self._take(islice(self._ready, most)) < most
        except BaseException:
            self._break()
            raise
        return True

    async def _wait(self) -> None:
        """Make the pause that is due, or wait for one element."""
        if not self._rested and self._due():
            await self._pause()
            self._rested = True
        elif self._waiting is not None:
            try:
                self._take(iter([await anext(self._waiting)]))
            except StopAsyncIteration:
                self.exhausted = True

    def _take(self, elements: Iterator[Any]) -> int:
        """Admit elements, and return how many there were."""
        admitted, pulled = self._admit(elements)
        self._part += admitted
        self._rested = self._rested and not pulled
        return pulled

    def _break(self) -> None:
        self._broken = True
        self._part.clear()

    async def close(self) -> None:
        """Close an async source that was not read to its end, so that it can let go of its files now."""
        close = getattr(self._waiting, "aclose", None)
        if close is not None and not self.exhausted:
            await close()
