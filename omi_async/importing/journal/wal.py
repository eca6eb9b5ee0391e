"""Telling a write-ahead log that a crash cut off from one that was damaged.

A process that is killed leaves a journal's last commits in its `-wal`, and SQLite takes them from there:
frame by frame, up to the first one whose checksum is wrong, without a word about those after it. That is
right for a log that was cut off while it was written. But one flipped bit in an early frame drops all commits
after it in the same way, and an import that goes on from there sends again what is long stored. So the frames
are read here too, before anything is written. SQLite documents their format::

    header   magic, version, page size, sequence number, two salts, checksum                    32 bytes
    frame    page number, the database's size in pages if it commits, the salts, checksum, the page
    frame    ...

The checksums run on from frame to frame. Once all of a log is in the database, the next commit begins it
again at its first byte, with the sequence number and the first salt one higher and another second salt. What
lies behind the new frames then is *stale*, and no loss. Nor is a frame with the right salts that commits
nothing: it is left of a write that failed and was taken back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from operator import mul
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple

__all__ = ["damage", "is_live"]

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")

_MAGIC: Final = 0x377F0682
"""Its last bit is the byte order of the words that are summed: 0 for little-endian, 1 for big-endian."""

_SMALLEST: Final = _HEADER.size + _FRAME.size + 1024
"""Bytes of a log that holds one frame of a journal; with fewer, nothing was ever committed to it."""

_MASK: Final = 2**32 - 1


class _Header(NamedTuple):
    page_size: int
    sequence: int
    salts: tuple[int, int]

    def is_stale(self, salts: tuple[int, int]) -> bool:
        """Return whether a frame with these salts is left of an earlier round of this log."""
        return 0 < (self.salts[0] - salts[0]) & _MASK <= self.sequence and salts[1] != self.salts[1]


class _Frame(NamedTuple):
    number: int
    commits: bool
    salts: tuple[int, int]
    sums: tuple[int, int]
    summed: bytes  # what the checksum is of


def is_live(log: Path) -> bool:
    """Return whether a log holds a frame, so that the database without it may be an older one."""
    try:
        return log.stat().st_size >= _SMALLEST
    except FileNotFoundError:
        return False


def damage(log: Path) -> str | None:
    """Return what is wrong with a log that SQLite would cut short in silence; None if nothing is.

    It takes some 35 us a frame, and a log begins again after about 1,000 frames. Raises `OSError`.
    """
    if not is_live(log):
        return None
    with log.open("rb") as file:
        head = file.read(_HEADER.size)
        magic, _, page_size, sequence, salt, another, *sums = _HEADER.unpack(head)
        checksum = _Checksum("big" if magic & 1 else "little")
        # No crash cuts a header off: it is written at one go.
        if magic | 1 != _MAGIC | 1 or checksum.add(head[:24]) != tuple(sums):
            return "its header is damaged"
        header = _Header(page_size, sequence, (salt, another))
        frames = _whole_frames(file, page_size)
        first = next((frame for frame in frames if not _is_next(frame, header, checksum)), None)
        return None if first is None else _why_not_cut_off(first, frames, header)


def _is_next(frame: _Frame, header: _Header, checksum: _Checksum) -> bool:
    return frame.salts == header.salts and checksum.add(frame.summed) == frame.sums


def _why_not_cut_off(first: _Frame, others: Iterator[_Frame], header: _Header) -> str | None:
    """Return why the first frame that SQLite does not take is a damaged one, or None if it need not be."""
    lost = foreign = 0
    last = first
    for last in chain([first], others):
        if last.salts == header.salts:
            lost += last.commits and last is not first
        else:
            foreign += not header.is_stale(last.salts)
    if lost:
        return f"its frame {first.number} is damaged, and {lost} commits follow it"
    # A write that a crash cut off left a part of a frame at the end of the log, or went over stale frames.
    if foreign or (last is first and first.commits):
        return f"its frame {first.number}, one of the last, is damaged"
    return None


def _whole_frames(file: BinaryIO, page_size: int) -> Iterator[_Frame]:
    """Yield the frames but for one that the end of the file cuts off."""
    size = _FRAME.size + page_size
    number = 0
    while len(data := file.read(size)) == size:
        number += 1
        _, pages, salt, another, *sums = _FRAME.unpack(data[: _FRAME.size])
        summed = data[:8] + data[_FRAME.size :]
        yield _Frame(number, pages > 0, (salt, another), (sums[0], sums[1]), summed)


class _Checksum:
    """SQLite's running checksum: each word is added to the sum of the last two results.

    So the n-th last word of a block counts as often as the n-th Fibonacci number says, and two products of
    vectors do what would be a loop of 258 steps for a page of 1 KiB.
    """

    def __init__(self, byte_order: Literal["big", "little"]) -> None:
        self._word = ">" if byte_order == "big" else "<"
        self._sums = (0, 0)
        self._fibonacci = [0, 1]

    def add(self, data: bytes) -> tuple[int, int]:
        """Go on over some data; return the two sums."""
        count = len(data) // 4
        words = list(struct.unpack(f"{self._word}{count}I", data))
        words[0] += sum(self._sums)
        words[1] += self._sums[1]
        while len(self._fibonacci) <= count:
            self._fibonacci.append((self._fibonacci[-1] + self._fibonacci[-2]) & _MASK)
        last_but_one = sum(map(mul, words, self._fibonacci[count - 1 :: -1]))
        last = sum(map(mul, words, self._fibonacci[count:0:-1]))
        self._sums = (last_but_one & _MASK, last & _MASK)
        return self._sums
