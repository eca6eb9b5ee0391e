"""A file's bytes to batches of facts, with nothing asynchronous about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Final

from omi_async.sources._csv import read_csv
from omi_async.sources._detect import Format, detect, hint_of, is_settled
from omi_async.sources._encoding import peek, unpacked, utf8
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Fields
from omi_async.sources._json_document import read_json
from omi_async.sources._jsonl import read_jsonl
from omi_async.sources._lines import Lines, line_end_of
from omi_async.sources._records import Batch, Item, Records
from omi_async.sources._stop import Stop
from omi_async.sources._streams import chunks_of
from omi_async.sources._text import read_markdown, read_text

__all__ = ["read_batches", "read_records"]

_NO_COLUMNS: Final = (
    "is read as {}, where a mapping finds no keys or columns; check the names in the mapping,"
    " or say which format it is"
)


def read_records(
    stream: BinaryIO,
    name: str,
    wanted: Format = "auto",
    fields: Fields | None = None,
) -> Iterator[Item]:
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
