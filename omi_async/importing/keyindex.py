"""A hash table in few bytes: where in a journal a content key stands.

A set of a million keys takes some 100 MB of Python objects; this takes about 13 bytes a key. It may name a
place too many, never one too few: the keys themselves are on the disk, and whoever asks compares there.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

__all__ = ["KeyIndex"]

PLACE_BITS: Final = 28
PLACES: Final = 1 << PLACE_BITS
"""Places that can be told apart."""

_TAG_BITS: Final = 64 - PLACE_BITS
_SHARDS: Final = 256
_SMALLEST: Final = 16


class KeyIndex:
    """Maps content keys to places. Grows in small steps, so that no single `add` takes long."""

    def __init__(self) -> None:
        # A slot holds a tag of the key and a place + 1; 0 is free. Open addressing, linear probing.
        self._shards = [array("Q", bytes(8 * _SMALLEST)) for _ in range(_SHARDS)]
        self._used = [0] * _SHARDS

    def __len__(self) -> int:
        return sum(self._used)

    def add(self, key: bytes, place: int) -> None:
        """Note that `key` stands at `place` (0 to `PLACES` - 2). Adding a key again adds another place."""
        if not 0 <= place < PLACES - 1:
            raise OverflowError(f"the place {place} is not between 0 and {PLACES - 2:,}")
        shard = key[0]
        slots = self._shards[shard]
        if self._used[shard] * 3 >= len(slots) * 2:
            slots = self._grow(shard)
        self._used[shard] += 1
        _insert(slots, _tag(key) << PLACE_BITS | (place + 1))

    def places(self, key: bytes) -> Iterator[int]:
        """Yield the places where `key` may stand."""
        slots = self._shards[key[0]]
        mask = len(slots) - 1
        tag = _tag(key)
        at = tag & mask
        while (slot := slots[at]) != 0:
            if slot >> PLACE_BITS == tag:
                yield (slot & (PLACES - 1)) - 1
            at = (at + 1) & mask

    def _grow(self, shard: int) -> array[int]:
        old = self._shards[shard]
        slots = array("Q", bytes(16 * len(old)))
        for slot in old:
            if slot:
                _insert(slots, slot)
        self._shards[shard] = slots
        return slots


def _tag(key: bytes) -> int:
    return int.from_bytes(key[1:8], "little") & ((1 << _TAG_BITS) - 1)


def _insert(slots: array[int], slot: int) -> None:
    mask = len(slots) - 1
    at = (slot >> PLACE_BITS) & mask
    while slots[at]:
        at = (at + 1) & mask
    slots[at] = slot
