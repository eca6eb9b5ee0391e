"""The input of an import: several files, read one after the other as one, and how far the reading is."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os.path import samestat
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from omi_async.cli.output import print_message
from omi_async.fact import Fact
from omi_async.importing.report import FactOutcome
from omi_async.sources import SourceError, open_facts
from omi_async.sources._detect import Format

__all__ = ["Inputs", "is_plain_file"]

_GZIP: Final = b"\x1f\x8b"

_FEW_LINES: Final = 3
"""Lines of a file, up to which lines say nothing of how far it is read: a document may be all on one line."""

_NO_FOLDERS: Final = ("/dev/", "/proc/")
"""Names of open files: what stands beside ``/dev/stdin`` or ``/dev/fd/63`` is no place to write to."""


def is_plain_file(name: str) -> bool:
    """Return whether a path is a file in a folder, beside which others can be written."""
    return name != "-" and not name.startswith(_NO_FOLDERS) and Path(name).is_file()


class _Counted(io.FileIO):
    """A file that knows how much of it was read. It is read in a thread and looked at in the loop."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.bytes = 0
        self.lines = 0
        self.packed = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count."""
        data = super().read(size)
        self.packed = self.packed or (self.bytes == 0 and data.startswith(_GZIP))
        self.bytes += len(data)
        self.lines += data.count(b"\n")
        return data


class Inputs:
    """What is imported.

    Args:
        paths: files, ``"-"`` among them for standard input.
        wanted: the format, or ``"auto"``.
        mapping: from fields to keys, of all files.
        defaults: values for fields that a fact has not.

    Attributes:
        broken: why files could not be read to their end.

    Raises:
        ValueError: for a mapping or a default that cannot be.
    """

    def __init__(
        self, paths: Sequence[str], wanted: Format, mapping: Mapping[str, str], defaults: Mapping[str, Any]
    ) -> None:
        open_facts(paths[0], wanted, mapping, defaults)  # checks all but the path, and opens nothing yet
        self.paths = list(paths)
        self.mapping = mapping
        self.defaults = defaults
        self.broken: list[SourceError] = []
        self._format = wanted
        self._sizes = _sizes_of(paths)
        self._done = 0
        self._current: _Counted | None = None
        self._origin = ""

    async def facts(self) -> AsyncGenerator[Fact | FactOutcome]:
        """Yield the facts of all files, and an invalid outcome for each record that is none.

        A file that cannot be read to its end does not keep the others from being read.
        """
        for path in self.paths:
            try:
                with self._opened(path) as place:
                    async with open_facts(place, self._format, self.mapping, self.defaults) as source:
                        async for fact in source:
                            self._origin = fact.origin or ""
                            yield fact
            except SourceError as error:
                self.broken.append(error)
            self._done += 1
            self._current = None

    def complain(self) -> None:
        """Say which files could not be read to their end."""
        for error in self.broken:
            print_message(f"Error: {error}")

    def reads(self, path: Path) -> bool:
        """Return whether a path is one of the inputs, by whatever name."""
        try:
            itself = path.stat()
            inputs = [os.fstat(0) if name == "-" else Path(name).stat() for name in self.paths]
            return any(samestat(itself, each) for each in inputs)
        except OSError:  # it is not there yet
            return False

    def _opened(self, path: str) -> AbstractContextManager[str | BinaryIO]:
        if path == "-" or not Path(path).is_file():
            return nullcontext(path)
        try:
            self._current = _Counted(path)
        except OSError:
            return nullcontext(path)  # the source says it in its own words
        return cast("AbstractContextManager[BinaryIO]", self._current)

    def fraction(self) -> float | None:
        """Return how much of the input was handed out, from 0 to 1; None if its size is not known."""
        if not self._sizes:
            return None
        done: float = sum(self._sizes[: self._done])
        if self._current is not None:
            done += self._part(self._current) * self._sizes[self._done]
        return min(1.0, done / max(1, sum(self._sizes)))

    def _part(self, file: _Counted) -> float:
        """Measure by the line of the last fact: by bytes, what was read ahead would count too."""
        read = min(1.0, file.bytes / max(1, self._sizes[self._done]))
        line = self._origin.rpartition(":")[2]
        if file.packed or file.lines < _FEW_LINES or not line.isdecimal():
            return read
        return min(1.0, int(line) * read / file.lines)


def _sizes_of(paths: Sequence[str]) -> list[int]:
    """Return the bytes of each file; nothing if one of them has no size, and what is left cannot be known."""
    try:
        return [Path(path).stat().st_size for path in paths] if all(map(is_plain_file, paths)) else []
    except OSError:
        return []
