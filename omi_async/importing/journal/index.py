"""Where in a journal a content key stands, in few bytes.

A set of a million keys takes some 100 MB of Python objects; this takes about 20 MB. It may name a place
too many, never one too few: the keys themselves are on the disk, and whoever asks compares there.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

__all__ = ["KeyIndex"]

PLACES: Final = 1 << 28
"""Places that can be told apart."""

_BUCKETS: Final = 1 << 16
_SPLIT: Final = Struct("<H4s10x")
"""A key's bucket and its tag, which an entry of the bucket begins with; the four bytes of a place follow."""


class KeyIndex:
    """Maps content keys to places. Nothing is ever moved, so that no single `add` takes long."""

    def __init__(self) -> None:
        # A bucket is searched as the string that it is: no entry costs a step of Python.
        self._buckets = [b""] * _BUCKETS

    def __len__(self) -> int:
        return sum(map(len, self._buckets)) // 8

    def add(self, keys: bytes, first: int) -> None:
        """Note that `keys`, one after the other, stand at the places from `first` on, all below `PLACES`.

        Adding a key again adds another place.
        """
        if not 0 <= first <= PLACES - len(keys) // _SPLIT.size:
            raise OverflowError(f"the place {first} is not between 0 and {PLACES - 1:,}")
        buckets = self._buckets
        for place, (bucket, tag) in enumerate(_SPLIT.iter_unpack(keys), first):
            buckets[bucket] += tag + place.to_bytes(4, "little")

    def places(self, keys: bytes) -> list[Sequence[int]]:
        """Return for each of `keys`, one after the other, the places where it may stand."""
        buckets = self._buckets
        return [
            _places(entries, tag, at) if (at := entries.find(tag)) >= 0 else ()
            for bucket, tag in _SPLIT.iter_unpack(keys)
            for entries in (buckets[bucket],)
        ]


def _places(entries: bytes, tag: bytes, at: int) -> list[int]:
    places = []
    while at >= 0:
        if at % 8 == 0:
            places.append(int.from_bytes(entries[at + 4 : at + 8], "little"))
        at = entries.find(tag, at + 1)
    return places
