"""A ZIP archive or a folder: which of its files are read, and how, without trusting either.

Files are chosen by their names before any is opened, because exports also hold what an import has no business
with: addresses, phone numbers, payment data. Nothing is unpacked to disk but nested archives, and those to
nameless files.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol

import attrs

from omi_async.sources._errors import DamagedStreamError, SourceError
from omi_async.sources._options import ReadOptions
from omi_async.sources._streams import CHUNK, Stop, chunks_of

__all__ = ["Archive", "Choice", "Folder", "Member", "Walk", "Zip", "choose", "is_zip", "spooled", "tells_zip"]

DEPTH: Final = 2
"""How deep archives may be nested: Notion packs a ZIP into a ZIP; deeper ones are made to do harm."""

_SMALL: Final = 16 * 2**20
_RATIO: Final = 200
"""A file beyond 16 MiB may unpack to 200 times its size: texts reach 30, archives made for harm thousands."""

_MOST_BYTES: Final = 16 * 2**30
"""Bytes unpacked of one archive, in all; the largest exports of conversations have about 2 GiB."""

_MOST_NAMES: Final = 200_000

_NEVER: Final = re.compile(
    r"(?:users?|user_settings|accounts?|light_metadata.*|export_manifest|manifest|message_feedback|feedback.*|"
    r"shared_conversations|model_comparisons|group_chats|shopping|sora|design_chats.*|projects.*|login.*|"
    r"package|package-lock|tsconfig)\.(?:json|jsonl|zip|csv)|(?:readme|license|changelog|contributing)(?:\..*)?|"
    r".*\.failures(?:\.\d+)?\.jsonl",
    re.IGNORECASE,
)
_NEVER_BELOW: Final = frozenset(
    {"__macosx", "templates", "template", "_templates", "logseq", "projects", "design_chats", "node_modules"}
)
_MEMORIES: Final = re.compile(
    r"(?:.*/)?(?:memories/[^/]+\.json|memories(?:-\d+)?\.(?:json|zip))", re.IGNORECASE
)
_OPENMEMORY: Final = re.compile(r"(?:.*/)?memories\.jsonl(?:\.gz)?", re.IGNORECASE)
_CONVERSATIONS: Final = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json", re.IGNORECASE)
_MEMORY: Final = re.compile(r"(?:.*/)?memory\.json", re.IGNORECASE)
_KEEP: Final = re.compile(r"(?:.*/)?Keep/[^/]+\.json", re.IGNORECASE)
_BEE: Final = re.compile(r"(?:.*/)?bee-sync/facts\.md", re.IGNORECASE)
_ZIP_MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06")  # of one with files, and of an empty one
_OFFICE: Final = frozenset({"[Content_Types].xml", "mimetype", "META-INF/MANIFEST.MF", "AndroidManifest.xml"})

_DATA: Final = re.compile(r".*\.(?:jsonl|ndjson|json|csv|tsv|tab|af)(?:\.gz)?", re.IGNORECASE)
_MARKDOWN: Final = re.compile(r".*\.(?:md|markdown)", re.IGNORECASE)
_TEXT: Final = re.compile(r".*\.(?:txt|text)(?:\.gz)?", re.IGNORECASE)
_ZIP: Final = re.compile(r".*\.zip", re.IGNORECASE)
_MAY_HOLD_MEMORIES: Final = re.compile(r"(?!conversations).*", re.IGNORECASE)


@attrs.frozen
class Choice:
    """The files to read.

    Attributes:
        files: their names; those in one tuple are one document in several files.
        format: what they are, if their names say so, else "auto".
        others: how many files are not read.
    """

    files: tuple[tuple[str, ...], ...]
    format: str = "auto"
    others: int = 0


def choose(names: Sequence[str], options: ReadOptions) -> Choice:
    """Choose the files of an export by their names, with ``/`` between the folders."""
    allowed = [name for name in names if _is_allowed(name, options)]
    zips = [name for name in allowed if _ZIP.fullmatch(name) and _MAY_HOLD_MEMORIES.fullmatch(_last(name))]
    chosen, format_ = _chosen(names, allowed, zips)
    count = sum(map(len, chosen))
    return Choice(tuple(chosen), format_, len(names) - count)


def _chosen(
    names: Sequence[str], allowed: Sequence[str], zips: Sequence[str]
) -> tuple[list[tuple[str, ...]], str]:
    """Return the files of the first system whose names are there."""

    def those(pattern: re.Pattern[str]) -> list[str]:
        return [name for name in allowed if pattern.fullmatch(name)]

    chosen: list[tuple[str, ...]]
    chosen, format_ = _each(those(_OPENMEMORY) or those(_MEMORIES)), "auto"
    if not chosen and (conversations := those(_CONVERSATIONS)):
        chosen = [tuple(conversations), *_each(those(_MEMORY))]
    if not chosen and (notes := those(_KEEP)):
        chosen, format_ = _each([*notes, *zips]), "keep"
    if not chosen and (facts := those(_BEE)):
        chosen = _each(facts)
    if not chosen and not _is_vault(names):
        chosen = _each([*_whole_tables(those(_DATA)), *zips])
    if not chosen and (pages := those(_MARKDOWN)):
        chosen, format_ = _each(pages), "vault"
    return chosen or _each(those(_TEXT)), format_


def _each(names: Iterable[str]) -> list[tuple[str, ...]]:
    return [(name,) for name in names]


def _is_allowed(name: str, options: ReadOptions) -> bool:
    *folders, last = [part.casefold() for part in name.split("/")]
    if last.startswith((".", "~")) or _NEVER.fullmatch(last):
        return False
    if any(folder.startswith(".") or folder in _NEVER_BELOW for folder in folders):
        return False
    return "journals" not in folders or "journals" in options.include


def _is_vault(names: Sequence[str]) -> bool:
    return any({".obsidian", "logseq"} & set(name.split("/")[:-1]) for name in names)


def _whole_tables(names: Sequence[str]) -> list[str]:
    """Drop what Notion writes twice: ``X.csv`` is a view of ``X_all.csv``, which has all rows."""
    there = set(names)
    return [name for name in names if f"{name.removesuffix('.csv')}_all.csv" not in there]


def _last(name: str) -> str:
    return PurePosixPath(name).name


class Archive(Protocol):
    """Named files, of which some are read."""

    def names(self) -> list[str]:
        """Return the names of all files, in a stable order."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file. Raises `DamagedStreamError`."""


class Folder:
    """The files below a folder; links to other folders are not followed."""

    def __init__(self, path: str, stop: Stop) -> None:
        self._root = Path(path)
        self._stop = stop

    def names(self) -> list[str]:
        """Return the names, relative to the folder."""
        found = []
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            place = Path(folder).relative_to(self._root)
            found += [(place / file).as_posix() for file in sorted(files)]
            if len(found) > _MOST_NAMES:
                raise DamagedStreamError(
                    f"holds more than {_MOST_NAMES:,} files; name the one with the facts"
                )
        return found

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file."""
        try:
            stream = (self._root / name).open("rb")
        except OSError as error:
            raise DamagedStreamError(f"cannot be opened: {error.strerror}") from error
        with closing(stream):
            yield from chunks_of(stream, self._stop)


class Zip:
    """A ZIP archive, read in place.

    Raises `DamagedStreamError` for one that cannot be read, or that is made to fill the memory.
    """

    def __init__(self, stream: BinaryIO, stop: Stop) -> None:
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DamagedStreamError(f"is a ZIP archive that cannot be read: {error}") from error
        self._stop = stop
        self._left = _MOST_BYTES
        if len(self._zip.namelist()) > _MOST_NAMES:
            raise DamagedStreamError(f"holds more than {_MOST_NAMES:,} files")
        if not _OFFICE.isdisjoint(self._zip.namelist()):
            raise DamagedStreamError(
                "is a document of an office program, or a package; save it as CSV or as plain text"
            )

    def names(self) -> list[str]:
        """Return the names of all files in it."""
        return [info.filename for info in self._zip.infolist() if not info.is_dir()]

    def chunks(self, name: str) -> Iterator[bytes]:
        """Unpack a file piece by piece, as far as its size is believable."""
        info = self._zip.getinfo(name)
        if info.flag_bits & 1:
            raise DamagedStreamError("is encrypted; unpack the archive, and import the folder")
        self._check(info, info.file_size)
        size = 0
        try:
            with self._zip.open(info) as member:
                while chunk := member.read(CHUNK):
                    size += len(chunk)
                    self._left -= len(chunk)
                    self._check(info, size)
                    if self._stop.requested:
                        return
                    yield chunk
                    self._stop.between_chunks()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise DamagedStreamError(f"the ZIP archive is damaged here ({error}); fetch it again") from error

    def _check(self, info: zipfile.ZipInfo, size: int) -> None:
        if self._left < 0 or size > _MOST_BYTES:
            raise DamagedStreamError(f"unpacks to more than {_MOST_BYTES // 2**30} GiB; unpack it yourself")
        if size > _SMALL and size > _RATIO * max(1, info.compress_size):
            raise DamagedStreamError(
                f"unpacks to more than {_RATIO} times its size, as no text does; unpack it yourself"
            )


@attrs.frozen
class Member:
    """A file to read.

    Attributes:
        name: with that of the archive in front of it.
        format: what it is, or "auto".
        chunks: reads it.
    """

    name: str
    format: str
    chunks: Callable[[], Iterator[bytes]]


@attrs.frozen
class Walk:
    """Goes through an archive, and the archives in it.

    Attributes:
        options: what the caller chose.
        leave_out: counts the files that are not read.
        stop: asks for an early end.
    """

    options: ReadOptions
    leave_out: Callable[[str, int], object]
    stop: Stop

    def members(self, archive: Archive, name: str, depth: int) -> Iterator[Member]:
        """Yield the files that are to be read; `depth` is 0 for a folder, 1 for an archive, 2 for one in it.

        Raises `SourceError` if there are none, or the archive cannot be read.
        """
        try:
            choice = choose(archive.names(), self.options)
        except DamagedStreamError as error:
            raise SourceError.at(name, None, str(error)) from error
        if choice.others:
            self.leave_out("other file", choice.others)
        if not choice.files:
            raise SourceError.at(name, None, _NOTHING)
        for files in choice.files:
            if not _ZIP.fullmatch(files[0]):
                yield Member(f"{name}/{files[0]}", choice.format, _together(archive, files))
            elif depth == DEPTH:
                self.leave_out("archive nested too deeply", 1)
            else:
                yield from self._nested(archive, files[0], name, depth)

    def _nested(self, archive: Archive, inner: str, name: str, depth: int) -> Iterator[Member]:
        """Yield the files of an archive in an archive; a broken one spoils none of the others."""
        place = f"{name}/{inner}"
        try:
            with spooled(archive.chunks(inner)) as file:
                yield from self.members(Zip(file, self.stop), place, depth + 1)
        except DamagedStreamError as error:
            yield Member(place, "auto", partial(_broken, str(error)))
        except SourceError as error:
            words = str(error).removeprefix(f"{place}: ")
            yield Member(place, "auto", partial(_broken, words))


_NOTHING: Final = (
    "holds no file that could be a list of facts: none with memories by its name, and no JSON, CSV, Markdown"
    " or text"
)


def _together(archive: Archive, names: Sequence[str]) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        for name in names:
            yield from archive.chunks(name)
            yield b"\n"

    return chunks if len(names) > 1 else lambda: archive.chunks(names[0])


def _broken(message: str) -> Iterator[bytes]:
    yield from ()
    raise DamagedStreamError(message)


def spooled(chunks: Iterable[bytes]) -> BinaryIO:
    """Write chunks to a file without a name, because a ZIP archive is read from its end."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    for chunk in chunks:
        file.write(chunk)
    file.seek(0)
    return file


def tells_zip(head: bytes) -> bool:
    """Whether a head is long enough for `is_zip`: a live pipe may begin with two bytes, and wait."""
    return len(head) >= len(_ZIP_MAGICS[0]) or not any(magic.startswith(head) for magic in _ZIP_MAGICS)


def is_zip(head: bytes) -> bool:
    """Whether a file is a ZIP archive, be it an empty one."""
    return head.startswith(_ZIP_MAGICS)
