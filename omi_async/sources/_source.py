"""A whole source: one file, or the files of an archive or folder, read one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO, cast

from omi_async._formats import Format
from omi_async.sources._encoding import peek
from omi_async.sources._errors import DamagedStreamError, SourceError
from omi_async.sources._members import Archive, Folder, Walk, Zip, is_zip, spooled, tells_zip
from omi_async.sources._readers import read_batches
from omi_async.sources._records import Batch, Reading
from omi_async.sources._streams import Place, Stop, chunks_of, opened

__all__ = ["read_source"]


def read_source(place: Place, name: str, wanted: Format, reading: Reading, stop: Stop) -> Iterator[Batch]:
    """Yield facts and invalid outcomes of all files of a source.

    Raises `SourceError` for a file that cannot be read; in an archive, after all others were.
    """
    if isinstance(place, str | os.PathLike) and os.path.isdir(place):  # noqa: PTH112 - a path may be bytes
        yield from _read_archive(Folder(os.fspath(place), stop), name, wanted, reading, stop, depth=0)
        return
    with opened(place, name, stop) as stream:
        head, chunks = peek(chunks_of(stream, stop), tells_zip)
        if not is_zip(head):
            yield from read_batches(chunks, name, wanted, reading)
            yield reading.release(name)
            return
        with _seekable(stream, chunks) as file:
            try:
                archive = Zip(file, stop)
            except DamagedStreamError as error:
                raise SourceError.at(name, None, str(error)) from error
            yield from _read_archive(archive, name, wanted, reading, stop, depth=1)


def _seekable(stream: BinaryIO, chunks: Iterator[bytes]) -> AbstractContextManager[BinaryIO]:
    """Return what a ZIP archive can be read from: its directory stands at its end."""
    can_seek = getattr(stream, "seekable", None)
    return nullcontext(stream) if can_seek is not None and can_seek() else spooled(chunks)


def _read_archive(
    archive: Archive, name: str, wanted: Format, reading: Reading, stop: Stop, *, depth: int
) -> Iterator[Batch]:
    failures: list[SourceError] = []

    def leave_out(reason: str, number: int) -> None:
        reading.skipped[reason] += number

    walk = Walk(reading.options, leave_out, stop)
    for member in walk.members(archive, name, depth):
        format_ = wanted if wanted != "auto" else cast("Format", member.format)
        try:
            yield from read_batches(member.chunks(), member.name, format_, reading)
        except SourceError as failure:
            failures.append(failure)
    yield reading.release(name)
    if failures:
        raise _together(failures)


def _together(failures: list[SourceError]) -> SourceError:
    first = failures[0]
    if len(failures) == 1:
        return first
    return SourceError(f"{first}; and so it is with {len(failures) - 1:,} more files of it", name=first.name)
