"""JSON documents: a list of records, or an object around one, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._errors import SourceError
from omi_async.sources._json_scanner import Broken, Scanner
from omi_async.sources._records import LONGEST, Batch, Records, batched

__all__ = ["CONTAINERS", "read_json"]

CONTAINERS: Final = ("memories", "results", "facts", "items", "data")
"""Keys under which an object may hold its list of records."""


def read_json(chunks: Iterable[bytes], records: Records, lists: Iterable[str] = ()) -> Iterator[Batch]:
    """Read the records of a document, or of several, one after the other.

    A record is the element of a list, or of the list under one of the `CONTAINERS` or of the keys in `lists`,
    or an object for itself. A broken element whose brackets and quotes are in order is one invalid outcome;
    beyond any other damage nothing can be told apart, and `SourceError` is raised with its line.
    """
    document = _Document(Scanner(chunks, records.name), records, frozenset(lists))
    return batched(chain.from_iterable(document.batches()))


class _Document:
    def __init__(self, scanner: Scanner, records: Records, lists: frozenset[str]) -> None:
        self._scanner = scanner
        self._records = records
        self._lists = lists

    def batches(self) -> Iterator[Batch]:
        """Yield what comes of each record, to the end of the file."""
        while mark := self._scanner.peek():
            if mark == "[":
                yield from self._elements()
            elif mark == "{":
                yield from self._object()
            elif mark in ",]}":
                self._scanner.fail(f"{mark!r} closes or follows nothing; fix the document")
            else:
                yield self._record()

    def _elements(self) -> Iterator[Batch]:
        for _ in self._scanner.elements():
            yield self._record()

    def _record(self) -> Batch:
        value, line = self._scanner.value()
        if isinstance(value, Broken):
            return [self._records.refuse(InvalidFactError(value.reason, record=value.text), line)]
        return self._records.take(value, line)

    def _object(self) -> Iterator[Batch]:
        """Read an object for the lists in it; without any the object is a record itself."""
        scanner, line = self._scanner, self._scanner.line
        own: dict[str, Any] = {}
        found = False
        start = scanner.offset
        for key in scanner.members():
            if scanner.peek() == "[" and self._is_list_of_records(key, own):
                found = True
                yield from self._elements()
            elif self._lists:
                # What stands beside the lists of a known format is no record, and may be large.
                scanner.skip()
            else:
                value, _ = scanner.value()
                if found or scanner.offset - start > LONGEST:  # no record; it may go on like this forever
                    own.clear()
                    if not isinstance(value, Broken):
                        continue
                own[key] = value
        if not found:
            yield self._own_record(own, line)

    def _is_list_of_records(self, key: str, own: dict[str, Any]) -> bool:
        if self._lists:
            return key in self._lists
        # The `items` of an object that has a text belong to it.
        return (
            key in CONTAINERS
            and self._records.find is None
            and not self._records.options.fields.has_text(own)
        )

    def _own_record(self, own: dict[str, Any], line: int) -> Batch:
        records = self._records
        broken = bool(own) and all(isinstance(value, Broken) for value in own.values())
        if (
            not broken
            and records.find is None
            and not records.count
            and not records.options.fields.has_text(own)
        ):
            keys = ", ".join(repr(key[:40]) for key in [*own][:10]) or "nothing"
            raise SourceError.at(
                records.name,
                line,
                f"neither a record nor an object with a list under {', '.join(CONTAINERS)}; it holds {keys}."
                " Write the list alone, or map the field 'content' to its key",
            )
        for value in own.values():
            if isinstance(value, Broken):
                return [records.refuse(InvalidFactError(value.reason, record=value.text), line)]
        return records.take(own, line)
