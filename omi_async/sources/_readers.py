"""The reader of each format, and the way of a file's bytes to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import BinaryIO, Final

from omi_async._api.json import loads
from omi_async._formats import Format
from omi_async.sources._csv import dialect_of, read_csv
from omi_async.sources._detect import HEAD, Head, detect, is_json_line, json_kind
from omi_async.sources._encoding import peek, unpacked, utf8
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Fields
from omi_async.sources._json_document import read_json
from omi_async.sources._json_scanner import Scanner
from omi_async.sources._jsonl import read_jsonl
from omi_async.sources._lines import LineReader, Lines, line_end_of, read_lines
from omi_async.sources._markdown import MarkdownReader
from omi_async.sources._options import ReadOptions
from omi_async.sources._records import BATCH, Batch, Entry, Reading, Recognised, Records
from omi_async.sources._samples import Sample, sample_of_document, sample_of_lines
from omi_async.sources._streams import Stop, chunks_of
from omi_async.sources._text import TextReader
from omi_async.sources.known import DOCUMENTS, RECORDS, TEXTS

__all__ = ["is_settled", "read_batches", "read_records"]


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
    return _reader_of(found, Head(head, name, options), chunks, Records(name, reading))


def _reader_of(found: Format, seen: Head, chunks: Iterator[bytes], records: Records) -> Iterator[Batch]:
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


def _table_in_words(seen: Head, found: Format) -> Recognised:
    dialect = dialect_of(seen.lines, seen.options) if seen.lines else None
    if dialect is None:
        return Recognised(seen.name, found)
    columns = dialect.columns
    used = {*columns.places.values(), *columns.named.values()}
    ignored = tuple(name for place, name in enumerate(columns.header) if place not in used)
    return Recognised(seen.name, found, columns.in_words, ignored)


def _is_record_list(found: str, seen: Head) -> bool:
    """Whether a file of a system that has two kinds of them is the one with records."""
    return found in RECORDS and RECORDS[found].matches(_sample(seen))


def _sample(seen: Head) -> Sample:
    return sample_of_lines(seen.lines) if json_kind(seen) == "jsonl" else sample_of_document(seen.text)


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
    found: str, seen: Head, chunks: Iterable[bytes], lines: Lines, records: Records
) -> Iterator[Batch]:
    known = RECORDS[found]
    records.find = partial(known.read, options=records.options)
    records.account = "" if known.ACCOUNT in records.options.where.values else known.ACCOUNT
    if json_kind(seen) == "jsonl":
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


def _line_reader(found: Format, seen: Head, options: ReadOptions) -> LineReader:
    if found == "markdown":
        return MarkdownReader(seen.all_lines, options.under)
    if found in TEXTS:
        return TEXTS[found].read(seen.all_lines, options)
    return TextReader()


def is_settled(head: bytes, wanted: Format, fields: Fields) -> bool:
    """Whether the head is long enough to decide on.

    A first line that is a record of JSON lines is: so a live stream of them is not kept waiting.
    """
    if len(head) >= HEAD:
        return True
    line, end, _ = head.lstrip().partition(b"\n")
    if not end:
        return False
    if wanted != "auto":
        return True
    return is_json_line(line, fields, dict) and fields.has_text(loads(line))
