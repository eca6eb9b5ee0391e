"""Which format a file has: its content says so first, its name second."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import PurePath
from typing import Any, BinaryIO, Final, Literal

from omi_async._api.json import loads
from omi_async.sources._csv import dialect_of, read_csv, reads_as_table
from omi_async.sources._encoding import peek, unpacked, utf8
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Fields
from omi_async.sources._json_document import CONTAINERS, read_json
from omi_async.sources._jsonl import read_jsonl
from omi_async.sources._records import Batch, Entry, Lines, Records, line_end_of
from omi_async.sources._streams import Stop, chunks_of
from omi_async.sources._text import BULLET, is_furniture, read_markdown, read_text

__all__ = ["Format", "detect", "hint_of", "is_settled", "read_batches", "read_records"]

Format = Literal["auto", "jsonl", "json", "csv", "tsv", "text", "markdown"]

_HEAD: Final = 64 * 1024
"""Bytes that are looked at."""

_SAMPLE: Final = 100
"""Lines of them that are tried."""

_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
}

_FOREIGN: Final = (
    (b"PK\x03\x04", "a ZIP archive, or a document of an office program; unpack it, or save it as CSV"),
    (b"SQLite format 3\0", "an SQLite database; export its table as CSV"),
    (b"%PDF-", "a PDF; save its text as a text file"),
    (b"BZh", "packed by bzip2; unpack it"),
    (b"\xfd7zXZ\0", "packed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd; unpack it"),
    (b"PAR1", "a Parquet file; export it as CSV or JSON lines"),
)

_DOCUMENT: Final = re.compile(r'\[\s*(?:["{\[]|\]?\s*\Z)|\{\s*(?:"|\}?\s*\Z)')
"""How a JSON document begins, and ``[x] a task`` or ``{name} likes tea`` does not."""

_LAID_OUT: Final = re.compile(
    r'\[\s*(?:["{\[]|\]?\s*\Z)|\{[ \t\r]*\n|\{\s*"(?:' + "|".join(CONTAINERS) + r')"\s*:\s*\['
)
"""How a JSON document begins, and a line of a JSONL file, whole or torn, does not."""


def hint_of(name: str) -> Format:
    """Return the format that a name promises, `auto` if it promises none."""
    suffixes = [
        suffix.lower() for suffix in PurePath(name).suffixes if suffix.lower() not in {".gz", ".gzip"}
    ]
    return _SUFFIXES.get(suffixes[-1], "auto") if suffixes else "auto"


def is_settled(head: bytes, wanted: Format, fields: Fields) -> bool:
    """Whether the head is long enough to decide on.

    A first line that is a record of JSON lines is: so a live stream of them is not kept waiting.
    """
    if len(head) >= _HEAD:
        return True
    line, end, _ = head.lstrip().partition(b"\n")
    return bool(end) and (wanted != "auto" or _is_json_line(line, fields, dict))


def detect(head: bytes, hint: Format, name: str, fields: Fields) -> Format:
    """Return the format by the head (UTF-8, unpacked). Raises `SourceError` for what holds no text."""
    for magic, words in _FOREIGN:
        if head.startswith(magic):
            raise SourceError.at(name, None, f"is {words}")
    text = head.decode("utf-8", "replace")
    lines = _sample(text, cut=len(head) >= _HEAD)
    return _json_kind(text.strip(), lines, hint, fields) or _other_kind(lines, hint, fields)


def _sample(text: str, *, cut: bool) -> list[str]:
    """Take the first lines that are not blank; not the last one of a head that ends inside it."""
    lines = re.split(r"\r\n?|\n", text)
    if cut and len(lines) > 1:
        lines.pop()
    return [line for line in lines if line.strip()][:_SAMPLE]


def _json_kind(text: str, lines: Sequence[str], hint: Format, fields: Fields) -> Format | None:
    if text[:1] not in {"{", "[", '"'}:
        # A torn first line must not hide the JSON lines below it.
        return "jsonl" if lines and _mostly_json(lines, fields) else None
    if text.startswith('"') and _is_table(lines, hint, fields):
        return None
    if _is_json_line(lines[0], fields, dict) or _mostly_json(lines, fields):
        return "jsonl"
    if (_LAID_OUT if hint == "jsonl" else _DOCUMENT).match(text):
        return "json"
    if hint in {"jsonl", "json"}:
        return hint
    return None


def _other_kind(lines: Sequence[str], hint: Format, fields: Fields) -> Format:
    if _is_table(lines, hint, fields):
        return "tsv" if hint == "tsv" else "csv"
    if hint in {"json", "jsonl", "markdown"}:  # if it is none, its reader says so best
        return hint
    spoken = [line for line in lines if not is_furniture(line)]
    bullets = sum(BULLET.match(line) is not None for line in spoken)
    return "markdown" if bullets * 2 > len(spoken) else "text"


def _is_table(lines: Sequence[str], hint: Format, fields: Fields) -> bool:
    if hint in {"csv", "tsv"}:
        return True
    if not lines or hint == "markdown":
        return False
    dialect = dialect_of(lines[0], fields)
    return dialect is not None and reads_as_table(lines, dialect, single=hint != "text")


def _is_json_line(line: bytes | str, fields: Fields, *kinds: type) -> bool:
    """Whether a line is a whole record of one of the kinds, and not a whole document in one line."""
    value: Any
    try:
        value = loads(line)
    except ValueError:
        return False
    if isinstance(value, dict) and not fields.has_text(value):
        return not any(isinstance(value.get(key), list) for key in CONTAINERS)
    return isinstance(value, kinds)


def _mostly_json(lines: Sequence[str], fields: Fields) -> bool:
    return sum(_is_json_line(line, fields, dict, str) for line in lines) * 2 >= len(lines)


_NO_COLUMNS: Final = (
    "is read as {}, in which a mapping finds no keys or columns; check the names in the mapping,"
    " or say which format it is"
)


def read_records(
    stream: BinaryIO,
    name: str,
    wanted: Format = "auto",
    fields: Fields | None = None,
) -> Iterator[Entry]:
    """Yield the facts of a binary stream, and an invalid outcome for each record that is none.

    Raises `SourceError`, after everything that stands before the place where reading ends.
    """
    return chain.from_iterable(read_batches(chunks_of(stream, Stop()), name, wanted, fields or Fields()))


def read_batches(chunks: Iterable[bytes], name: str, wanted: Format, fields: Fields) -> Iterator[Batch]:
    """Yield facts and invalid outcomes as the chunks come in. Raises `SourceError` as `read_records` does."""
    head, chunks = peek(utf8(unpacked(chunks)), lambda head: is_settled(head, wanted, fields))
    found = detect(head, hint_of(name), name, fields) if wanted == "auto" else wanted
    records = Records(name, fields)
    if found == "json":
        yield from read_json(chunks, records)
        return
    lines = Lines(chunks, name, line_end_of(head))
    if found == "jsonl":
        yield from read_jsonl(lines, records)
    elif found in {"csv", "tsv"}:
        yield from read_csv(lines, records)
    else:
        if fields.mapping:
            raise SourceError.at(name, None, _NO_COLUMNS.format(found))
        yield from (read_markdown if found == "markdown" else read_text)(lines, records)
