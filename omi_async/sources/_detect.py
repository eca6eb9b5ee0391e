"""Which format a file has: its content says so first, its name second; and the reader of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import PurePath
from typing import Any, BinaryIO, Final, Literal, cast, get_args

from omi_async._api.json import loads
from omi_async.sources._csv import Dialect, dialect_of, read_csv
from omi_async.sources._encoding import peek, unpacked, utf8
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Fields
from omi_async.sources._front_matter import front_matter
from omi_async.sources._json_document import CONTAINERS, read_json
from omi_async.sources._json_scanner import Scanner
from omi_async.sources._jsonl import read_jsonl
from omi_async.sources._lines import LineReader, Lines, clean, line_end_of, read_lines
from omi_async.sources._markdown import BULLET, MarkdownReader, is_furniture
from omi_async.sources._options import ReadOptions
from omi_async.sources._records import BATCH, Batch, Entry, Reading, Recognised, Records
from omi_async.sources._refusals import (
    binary_in_words,
    json_in_words,
    magic_in_words,
    name_in_words,
    text_in_words,
)
from omi_async.sources._samples import Sample, sample_of_document, sample_of_lines
from omi_async.sources._streams import Stop, chunks_of
from omi_async.sources._text import TextReader
from omi_async.sources.known import DOCUMENTS, RECORDS, TEXTS

__all__ = ["FORMATS", "Format", "detect", "hint_of", "is_settled", "read_batches", "read_records"]

Format = Literal[
    "auto",
    "jsonl",
    "json",
    "csv",
    "tsv",
    "text",
    "markdown",
    "list",
    "claude",
    "chatgpt",
    "mem0",
    "mcp-memory",
    "graphiti",
    "letta",
    "langgraph",
    "supermemory",
    "keep",
    "bee",
    "vault",
]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

_HEAD: Final = 64 * 1024
"""Bytes that are looked at: enough for the first record of every system that we know."""

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

_DOCUMENT: Final = re.compile(r'\[\s*(?:["{\[]|\]?\s*\Z)|\{\s*(?:"|\}?\s*\Z)')
"""How a JSON document begins, and ``[x] a task`` or ``{name} likes tea`` does not."""

_LAID_OUT: Final = re.compile(
    r'\[\s*(?:["{\[]|\]?\s*\Z)|\{[ \t\r]*\n|\{\s*"(?:' + "|".join(CONTAINERS) + r')"\s*:\s*\['
)
"""How a JSON document begins, and a line of a JSONL file, whole or torn, does not."""

_WORDS: Final = 2
"""Words in the name of a column, at most, if nothing but the header says that a file is a table."""

_TIDY: Final = re.compile(r"\w[\w .-]*(?:[,;\t|][\w .-]+)*")


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
    if not end:
        return False
    if wanted != "auto":
        return True
    return _is_json_line(line, fields, dict) and fields.has_text(loads(line))


class _Head:
    """What is known of a file before it is read.

    Attributes:
        text: the head, without white space around it.
        lines: the lines of it that are not blank, a hundred at most.
        all_lines: all of its lines, whole.
    """

    def __init__(self, raw: bytes, name: str, options: ReadOptions) -> None:
        self.raw = raw
        self.name = name
        self.options = options
        self.fields = options.fields
        self.hint = hint_of(name)
        pieces = [clean(line).decode("utf-8", "replace") for line in re.split(rb"\r\n?|\n", raw)]
        self.text = "\n".join(pieces).strip()
        if len(raw) >= _HEAD and len(pieces) > 1:
            pieces.pop()  # it may end in the middle of a line
        self.all_lines = pieces
        self.lines = [line for line in pieces if line.strip()][:_SAMPLE]


def detect(head: bytes, name: str, options: ReadOptions) -> Format:
    """Return the format by the head (UTF-8, unpacked). Raises `SourceError` for what is no list of facts."""
    if words := magic_in_words(head):
        raise SourceError.at(name, None, f"is {words}")
    seen = _Head(head, name, options)
    if kind := _json_kind(seen):
        return _known_json(seen, kind) or kind
    if kind := _table_kind(seen):
        return kind
    if words := binary_in_words(head):
        raise SourceError.at(name, None, f"is {words}")
    for system in ("bee", "list"):
        if TEXTS[system].matches(seen.all_lines) and seen.hint not in {"json", "jsonl"}:
            return system
    # A note may be about anything, and hold a piece of it; only a page that calls itself Markdown is none.
    if words := (_foreign(seen) if seen.hint != "markdown" or seen.text[:1] == "<" else ""):
        raise SourceError.at(name, None, f"looks like {words}")
    return _text_kind(seen)


def _foreign(seen: _Head) -> str:
    spoken = [line for line in seen.all_lines if line.strip()]
    return text_in_words(seen.text, spoken) or name_in_words(seen.name)


def _json_kind(seen: _Head) -> Format | None:
    text, lines, hint, fields = seen.text, seen.lines, seen.hint, seen.fields
    # A name that promises text or a table decides about quoted lines: they are quotes there, and no JSON.
    kinds = (dict,) if hint in {"csv", "tsv", "text", "markdown"} else (dict, str)
    if text[:1] not in {"{", "[", '"'}:
        # A torn first line must not hide the JSON lines below it.
        return "jsonl" if lines and _mostly_json(lines, fields, *kinds) else None
    if text.startswith('"') and (hint in {"csv", "tsv"} or _is_sure_table(seen)):
        return None
    if _is_one_object(seen):
        return "json"
    if _is_json_line(lines[0], fields, dict) or _mostly_json(lines, fields, *kinds):
        return "jsonl"
    if (_LAID_OUT if hint == "jsonl" else _DOCUMENT).match(text):
        return "json"
    return None


def _is_one_object(seen: _Head) -> bool:
    """Whether the file is one line with an object that is no record like ours: an envelope, or an export."""
    if len(seen.lines) != 1 or seen.hint == "jsonl" or seen.text[:1] != "{":
        return False
    try:
        return not seen.fields.has_text(loads(seen.text))
    except ValueError:
        return False


def _known_json(seen: _Head, kind: Format) -> Format | None:
    """Ask the systems that we know, unless the caller said what stands where."""
    if kind == "json":
        sample = sample_of_document(seen.text)
        if words := json_in_words(sample, seen.text, seen.lines):
            raise SourceError.at(seen.name, None, f"looks like {words}")
    else:
        sample = sample_of_lines(seen.lines)
    if seen.fields.reshapes:
        return None
    for name, document in DOCUMENTS.items():
        if document.matches(sample):
            return cast("Format", name)
    for name, known in RECORDS.items():
        if known.matches(sample):
            return cast("Format", name)
    return None


def _is_sure_table(seen: _Head) -> bool:
    dialect = dialect_of(seen.lines, seen.options) if seen.lines else None
    return dialect is not None and _reads_as_table(seen, dialect) is not None


def _table_kind(seen: _Head) -> Format | None:
    if not seen.lines or seen.hint == "markdown":
        return None
    dialect = dialect_of(seen.lines, seen.options)
    if seen.hint in {"csv", "tsv"}:
        # Without a column for the text it may still be something else by a wrong name.
        looks_foreign = dialect is None and (
            binary_in_words(seen.raw) or _foreign(seen) or seen.text[:1] in {"<", "{"}
        )
        return None if looks_foreign else seen.hint
    return None if dialect is None else _reads_as_table(seen, dialect)


def _reads_as_table(seen: _Head, dialect: Dialect) -> Format | None:
    """Whether the lines below a likely header are rows of it, and not sentences with commas.

    The names of two fields make a header whatever stands below. A single column looks like any text. Between
    them is what may be either: if half of a sentence would be taken for a cell, the caller must say.
    """
    header, width = dialect.columns.header, dialect.width
    if any(len(name.split()) > _WORDS for name in header) and not seen.fields.reshapes:
        return None
    if width == 1:
        return "csv" if seen.hint != "text" else None
    if dialect.columns.known > 1 or seen.fields.reshapes:
        return "csv"
    fits = _share_of_rows(seen.lines, dialect)
    if fits == 1.0 and _is_tidy(seen.lines[0], dialect):
        return "csv"
    if fits >= 0.5:  # noqa: PLR2004 - a half
        raise SourceError.at(
            seen.name,
            1,
            "may be a table or a text: its first line could be a header with a column for the text, and the"
            " lines below have as many commas. Say which: --format csv or --format text",
        )
    return None


def _is_tidy(line: str, dialect: Dialect) -> bool:
    """Whether names stand between delimiters as programs write them, without the space of a sentence."""
    return f"{dialect.delimiter} " not in line and bool(_TIDY.fullmatch(line.strip().replace('"', "")))


def _share_of_rows(lines: Sequence[str], dialect: Dialect) -> float:
    fits = rows = 0
    below = (f"{line}\n" for line in lines[dialect.lines :])
    try:
        for row in dialect.lenient_rows(below):
            rows += 1
            fits += len(row) == dialect.width
    except ValueError:  # a cell beyond all bounds: no table that a program made
        return 0.0
    return fits / rows if rows else 1.0


def _text_kind(seen: _Head) -> Format:
    if seen.hint in {"json", "jsonl"}:  # if it is none, its reader says so best
        return seen.hint
    body = seen.all_lines[front_matter(seen.all_lines).lines :]
    spoken = [line for line in body if line.strip() and not is_furniture(line)][:_SAMPLE]
    bullets = sum(BULLET.match(line) is not None for line in spoken)
    if TEXTS["vault"].matches(seen.all_lines) and (bullets or seen.all_lines[0].startswith(("---", "+++"))):
        return "vault" if bullets else "markdown"
    return "markdown" if seen.hint == "markdown" or bullets * 2 > len(spoken) else "text"


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


def _mostly_json(lines: Sequence[str], fields: Fields, *kinds: type) -> bool:
    return sum(_is_json_line(line, fields, *kinds) for line in lines) * 2 >= len(lines)


_NO_COLUMNS: Final = (
    "is read as {}, in which a mapping, a template or a filter finds no keys or columns; check the names,"
    " or say which format it is"
)


def read_records(
    stream: BinaryIO, name: str, wanted: Format = "auto", options: ReadOptions | None = None
) -> Iterator[Entry]:
    """Yield the facts of a binary stream, and an invalid outcome for each record that is none.

    Raises `SourceError`, after everything that stands before the place at which reading ends.
    """
    chunks = chunks_of(stream, Stop())
    reading = Reading(options or ReadOptions())
    yield from chain.from_iterable(read_batches(chunks, name, wanted, reading))
    yield from reading.release(name)


def read_batches(chunks: Iterable[bytes], name: str, wanted: Format, reading: Reading) -> Iterator[Batch]:
    """Yield facts and invalid outcomes as the chunks come in. Raises `SourceError` as `read_records` does.

    Args:
        chunks: the bytes of the file, packed or not.
        name: the file, for origins and errors.
        wanted: its format, or `auto`.
        reading: what the file shares with others of its source.
    """
    options = reading.options
    head, chunks = peek(
        utf8(unpacked(chunks), options.encoding), lambda head: is_settled(head, wanted, options.fields)
    )
    found = detect(head, name, options) if wanted == "auto" else wanted
    return _reader_of(found, _Head(head, name, options), chunks, Records(name, reading))


def _reader_of(found: Format, seen: _Head, chunks: Iterator[bytes], records: Records) -> Iterator[Batch]:
    lines = Lines(chunks, records.name, line_end_of(seen.raw))
    if found in {"csv", "tsv"}:
        records.reading.recognised.append(_table_in_words(seen, found))
        return read_csv(lines, records)
    records.reading.recognised.append(Recognised(records.name, found))
    if found == "json":
        return read_json(chunks, records)
    if found == "jsonl":
        return read_jsonl(lines, records)
    is_json = seen.text[:1] in {"{", "["}
    if found in DOCUMENTS and not _is_record_list(found, seen):
        return _read_document(found, chunks, records)
    if found in RECORDS and (is_json or found not in TEXTS):
        return _read_known(found, seen, chunks, lines, records)
    if records.options.fields.reshapes or records.options.where:
        raise SourceError.at(records.name, None, _NO_COLUMNS.format(found))
    return read_lines(lines, _line_reader(found, seen, records.options), records)


def _table_in_words(seen: _Head, found: Format) -> Recognised:
    dialect = dialect_of(seen.lines, seen.options) if seen.lines else None
    if dialect is None:
        return Recognised(seen.name, found)
    columns = dialect.columns
    used = {*columns.places.values(), *columns.named.values()}
    ignored = tuple(name for place, name in enumerate(columns.header) if place not in used)
    return Recognised(seen.name, found, columns.in_words, ignored)


def _is_record_list(found: str, seen: _Head) -> bool:
    """Whether a file of a system that has two kinds of them is the one with records."""
    return found in RECORDS and RECORDS[found].matches(_sample(seen))


def _sample(seen: _Head) -> Sample:
    return sample_of_lines(seen.lines) if _json_kind(seen) == "jsonl" else sample_of_document(seen.text)


def _read_document(found: str, chunks: Iterable[bytes], records: Records) -> Iterator[Batch]:
    scanner = Scanner(chunks, records.name, _LONGEST_MESSAGE)
    batch: Batch = []
    for finding in DOCUMENTS[found].read(scanner, records.options):
        batch += records.found([finding], 1)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    yield batch


_LONGEST_MESSAGE: Final = 32 * 2**20
"""Characters of one message in a conversation: people paste whole books, and models answer with pictures."""


def _read_known(
    found: str, seen: _Head, chunks: Iterable[bytes], lines: Lines, records: Records
) -> Iterator[Batch]:
    known = RECORDS[found]
    records.find = partial(known.read, options=records.options)
    records.account = "" if known.ACCOUNT in records.options.where.values else known.ACCOUNT
    if _json_kind(seen) == "jsonl":
        batches = read_jsonl(lines, records)
    else:
        has_list = any(isinstance(_sample(seen).around.get(key), list) for key in known.LISTS)
        batches = read_json(chunks, records, known.LISTS if has_list else ())
    if not records.account:
        yield from batches
        return
    # Whose memories they are is known at the end only, and nothing may be stored of a source that mixes them.
    for batch in batches:
        records.reading.held += batch


def _line_reader(found: Format, seen: _Head, options: ReadOptions) -> LineReader:
    if found == "markdown":
        return MarkdownReader(seen.all_lines, options.under)
    if found in TEXTS:
        return TEXTS[found].read(seen.all_lines, options)
    return TextReader()
