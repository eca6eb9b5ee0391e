"""The input of an import: several files, read one after the other as one, and how far the reading is."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os.path import samestat
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from omi_async._formats import Format
from omi_async.cli.output import print_message
from omi_async.fact import Fact
from omi_async.importing.report import FactOutcome
from omi_async.sources import SourceError, open_facts
from omi_async.sources._records import Recognised

__all__ = ["Inputs", "base_of"]

_PACKED: Final = (b"\x1f\x8b", b"PK\x03\x04")
"""How gzip and ZIP begin: the lines of such a file say nothing of how far it is read."""

_FEW_LINES: Final = 3
"""Lines of a file, up to which lines say nothing of how far it is read: a document may be all on one line."""

_NO_FOLDERS: Final = ("/dev/", "/proc/")
"""Names of open files: what stands beside ``/dev/stdin`` or ``/dev/fd/63`` is no place to write to."""


def base_of(name: str) -> Path | None:
    """Return the path beside which files can be written: the input's own, if it is a file or a folder."""
    if name == "-" or name.startswith(_NO_FOLDERS):
        return None
    path = Path(name)
    if path.is_dir():
        return path if path.name not in {"", ".."} else path.resolve()  # "." has no name to add to
    return path if path.is_file() else None


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
        self.packed = self.packed or (self.bytes == 0 and data.startswith(_PACKED))
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
        choices: whatever else `open_facts` takes.

    Attributes:
        broken: why files could not be read to their end.
        skipped: what was left out on purpose, by reason; complete at the end.
        recognised: what the files were taken for.

    Raises:
        ValueError: for a mapping or a default that cannot be.
    """

    def __init__(
        self,
        paths: Sequence[str],
        wanted: Format,
        mapping: Mapping[str, str],
        defaults: Mapping[str, Any],
        **choices: Any,
    ) -> None:
        # This checks all but the path, and opens nothing yet.
        open_facts(paths[0], wanted, mapping, defaults, **choices)
        self.paths = list(paths)
        self.mapping = mapping
        self.defaults = defaults
        self.broken: list[SourceError] = []
        self.skipped: Counter[str] = Counter()
        self.recognised: list[Recognised] = []
        self._choices = choices
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
                    source = open_facts(place, self._format, self.mapping, self.defaults, **self._choices)
                    async with source:
                        try:
                            async for fact in source:
                                self._origin = fact.origin or ""
                                yield fact
                        finally:
                            self.skipped += source.skipped
                            self.recognised += source.recognised
            except SourceError as error:
                self.broken.append(error)
            self._done += 1
            self._current = None

    def left_out(self) -> str:
        """Return what was left out on purpose, in words; "" if nothing was."""
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.skipped.most_common())
        return f"Left out on purpose: {reasons}." if reasons else ""

    def complain(self) -> None:
        """Print which files could not be read to their end."""
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
        line = self._origin.partition(" (")[0].rpartition(":")[2]  # a date may stand behind it
        if file.packed or file.lines < _FEW_LINES or not line.isdecimal():
            return read
        return min(1.0, int(line) * read / file.lines)


def _has_a_size(path: str) -> bool:
    base = base_of(path)
    return base is not None and base.is_file()


def _sizes_of(paths: Sequence[str]) -> list[int]:
    """Return the bytes of each file; nothing if one of them has no size, and what is left cannot be known."""
    try:
        return [Path(path).stat().st_size for path in paths] if all(map(_has_a_size, paths)) else []
    except OSError:
        return []
