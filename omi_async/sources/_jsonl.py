"""JSON lines: an object or a string a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from omi_async._api.json import loads
from omi_async.errors import InvalidFactError
from omi_async.sources._depth import DEEPEST, TOO_DEEP, is_too_deep
from omi_async.sources._lines import Lines, clean
from omi_async.sources._records import LONGEST, Batch, Records, decoded, shown

__all__ = ["read_jsonl"]

_ODD: Final = (b"\xef", b"\x1a")
"""First bytes of the marks that `clean` takes away."""


def read_jsonl(lines: Lines, records: Records) -> Iterator[Batch]:
    """Read a record of each line that is not blank; a broken one spoils no other."""
    for first, block in lines.blocks():
        yield _batch(block, first, records)


def _batch(block: list[bytes], first: int, records: Records) -> Batch:
    """Read the lines of a block: what is a fact and nothing else in few steps, the rest by `_taken`."""
    batch: Batch = []
    before, place, make = records.count, f"{records.name}:", records.options.fields.of_json
    plain = records.find is None and records.options.plain
    for number, line in enumerate(block, first):
        if line[:1] in _ODD:
            line = clean(line)  # noqa: PLW2901 - what only files have is no part of a line
        if not line or line.isspace():
            continue
        if plain and (len(line) < DEEPEST or _is_sound(line)):
            try:
                batch.append(make(loads(line), f"{place}{number}"))
                continue
            except ValueError:
                pass  # `_taken` says why
        records.count = before + len(batch)
        batch += _taken(line, number, records)
    records.count = before + len(batch)
    return batch


def _is_sound(line: bytes) -> bool:
    return len(line) <= LONGEST and not is_too_deep(line)


def _taken(line: bytes, number: int, records: Records) -> Batch:
    try:
        if len(line) > LONGEST:
            return [records.refuse(_why(line, ""), number)]
        if is_too_deep(line):
            return [records.refuse(_why(line, TOO_DEEP), number)]
        value = loads(line)
    except ValueError as error:
        return [records.refuse(_why(line, str(error)), number)]
    return records.take(value, number)


def _why(line: bytes, reason: str) -> InvalidFactError:
    """Return what is wrong in terms of the file, before what the JSON parser made of it."""
    try:
        decoded(line)
    except InvalidFactError as error:
        return error
    # The parser saw one line, and calls it the first.
    return InvalidFactError(reason.replace("line 1, ", ""), record=shown(line))
