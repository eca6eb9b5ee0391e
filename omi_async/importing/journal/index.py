"""The places of content keys in a journal, in few bytes.

A set of a million keys takes some 100 MB of Python objects; this takes about 20 MB. It may name a place
too many, never one too few: the keys themselves are on the disk, and the journal compares there.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

__all__ = ["KeyIndex"]

PLACES: Final = 1 << 32
"""Places that can be told apart, in four bytes: those of 134 million calls."""

_BUCKETS: Final = 1 << 16
"""At ten million keys a bucket has 150 entries, which `bytes.find` passes in less than a microsecond."""

_SPLIT: Final = Struct("<H4s10x")
"""A key's bucket and its tag, with which an entry of the bucket begins; the four bytes of a place follow.

Six of a key's sixteen bytes: beside a million keys, one in 280 million texts is looked up in vain."""


class KeyIndex:
    """Maps content keys to places.

    Nothing is ever moved: a dict that grows stops the event loop for as long as it takes to move all.
    """

    def __init__(self) -> None:
        # A bucket is searched as the string that it is: no entry costs a step of Python.
        self._buckets = [b""] * _BUCKETS

    def __len__(self) -> int:
        return sum(map(len, self._buckets)) // 8

    def add(self, keys: bytes, first: int) -> None:
        """Note that `keys`, one after the other, have the places `first`, `first + 1`, ..., below `PLACES`.

        Adding a key again adds another place.
        """
        if not 0 <= first <= PLACES - len(keys) // _SPLIT.size:
            raise OverflowError(f"the place {first} is not between 0 and {PLACES - 1:,}")
        buckets = self._buckets
        for place, (bucket, tag) in enumerate(_SPLIT.iter_unpack(keys), first):
            buckets[bucket] += tag + place.to_bytes(4, "little")

    def remove(self, keys: bytes, first: int) -> None:
        """Forget that `keys` have these places."""
        buckets = self._buckets
        for place, (bucket, tag) in enumerate(_SPLIT.iter_unpack(keys), first):
            entries, entry = buckets[bucket], tag + place.to_bytes(4, "little")
            at = entries.find(entry)
            while at > 0 and at % 8:  # found across two entries, by chance
                at = entries.find(entry, at + 1)
            if at >= 0:
                buckets[bucket] = entries[:at] + entries[at + 8 :]

    def places(self, keys: bytes) -> list[Sequence[int]]:
        """Return for each of `keys`, one after the other, the places that it may have."""
        buckets = self._buckets
        return [
            _places(entries, tag, at) if (at := entries.find(tag)) >= 0 else ()
            for bucket, tag in _SPLIT.iter_unpack(keys)
            for entries in (buckets[bucket],)
        ]


def _places(entries: bytes, tag: bytes, at: int) -> list[int]:
    places = []
    while at >= 0:
        if at % 8 == 0:  # else the tag's bytes are found across two entries, by chance
            places.append(int.from_bytes(entries[at + 4 : at + 8], "little"))
        at = entries.find(tag, at + 1)
    return places
