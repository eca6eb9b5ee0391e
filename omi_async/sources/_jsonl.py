"""JSON lines: an object or a string a line."""

from __future__ import annotations

from collections.abc import Iterator

from omi_async._json import loads
from omi_async.errors import InvalidFactError
from omi_async.sources._lines import LONGEST, Lines
from omi_async.sources._records import Batch, Item, Records, decoded, shown

__all__ = ["read_jsonl"]


def read_jsonl(lines: Lines, records: Records) -> Iterator[Batch]:
    """Read a record of each line that is not blank; a broken one spoils no other."""
    for first, block in lines.blocks():
        yield [
            _item(line, number, records)
            for number, line in enumerate(block, first)
            if line and not line.isspace()
        ]


def _item(line: bytes, number: int, records: Records) -> Item:
    try:
        if len(line) > LONGEST:
            return records.refuse(_why(line, ""), number)
        value = loads(line)
    except ValueError as error:
        return records.refuse(_why(line, str(error)), number)
    return records.add(records.fields.of_json, value, number)


def _why(line: bytes, reason: str) -> InvalidFactError:
    """Say what is wrong in terms of the file, before what the JSON parser made of it."""
    try:
        decoded(line)
    except InvalidFactError as error:
        return error
    # The parser saw one line, and calls it the first.
    return InvalidFactError(reason.replace("line 1, ", ""), record=shown(line))
