"""Which texts came before, for imports of any length, in about 100 bytes a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["Folding"]

TOGETHER: Final = 2**18
"""Keys in one set, at most: an event loop would stand still while a larger one grows, or is looked through by
the garbage collector."""

SHARDS: Final = 2**10


class Folding:
    """Remembers stripped texts by 128 bits each, which are worth something within this process.

    They are two of Python's own keyed hashes (SipHash, PEP 456): a cryptographic one costs three times that.
    """

    def __init__(self) -> None:
        self._first: set[int] = set()
        # Dicts, since those that hold nothing but numbers are of no interest to the garbage collector.
        self._further: list[dict[int, None]] = []

    def came_again(self, contents: Sequence[str]) -> list[bool] | None:
        """Remember texts, and say of each whether it came before; None where none of them did."""
        keys = [(hash(content) << 64) + hash(content + "\0") for content in contents]
        known = self._known(keys)
        if not known and len({*keys}) == len(keys):
            return None
        again = []
        for key in keys:
            again.append(key in known)
            known.add(key)
        return again

    def _known(self, keys: Iterable[int]) -> set[int]:
        """Return the keys that were there before, and keep all."""
        known = self._first.intersection(keys)
        if len(self._first) < TOGETHER:
            self._first.update(keys)
            return known
        if not self._further:
            self._further = [{} for _ in range(SHARDS)]
        for key in {*keys} - known:
            shard = self._further[key % SHARDS]
            if key in shard:
                known.add(key)
            else:
                shard[key] = None
        return known
