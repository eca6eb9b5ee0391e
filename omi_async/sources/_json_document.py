"""JSON documents: a list of records, or an object around one, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from omi_async.errors import InvalidFactError
from omi_async.sources._errors import SourceError
from omi_async.sources._json_scanner import Broken, Scanner
from omi_async.sources._lines import LONGEST
from omi_async.sources._records import Batch, Item, Records, batched

__all__ = ["CONTAINERS", "read_json"]

CONTAINERS: Final = ("memories", "results", "facts", "items", "data")
"""Keys under which an object may hold its list of records."""


def read_json(chunks: Iterable[bytes], records: Records) -> Iterator[Batch]:
    """Read the records of a document, or of several, one after the other.

    A record is the element of a list, or of the list under one of the `CONTAINERS`, or an object for itself.
    A broken element whose brackets and quotes are in order is one invalid outcome; beyond any other damage
    nothing can be told apart, and `SourceError` is raised with its line.
    """
    return batched(_Document(Scanner(chunks, records.name), records).items())


class _Document:
    def __init__(self, scanner: Scanner, records: Records) -> None:
        self._scanner = scanner
        self._records = records

    def items(self) -> Iterator[Item]:
        while mark := self._scanner.peek():
            if mark == "[":
                yield from self._elements()
            elif mark == "{":
                yield from self._object()
            elif mark in ",]}":
                self._scanner.fail(f"{mark!r} closes or follows nothing; mend the document")
            else:
                yield self._record()

    def _record(self) -> Item:
        value, line = self._scanner.value()
        if isinstance(value, Broken):
            return self._records.refuse(InvalidFactError(value.reason, record=value.text), line)
        return self._records.add(self._records.fields.of_json, value, line)

    def _elements(self) -> Iterator[Item]:
        scanner = self._scanner
        scanner.expect("[")
        while scanner.peek() != "]":
            yield self._record()
            if scanner.peek() != "]":
                scanner.expect(",")
        scanner.expect("]")

    def _object(self) -> Iterator[Item]:
        """Read an object for the list in it; without one the object is a record itself."""
        scanner, line = self._scanner, self._scanner.line
        own: dict[str, object] = {}
        found = False
        start = scanner.offset
        for key in self._keys():
            if key in CONTAINERS and scanner.peek() == "[" and not self._records.fields.has_text(own):
                found = True
                yield from self._elements()
                continue
            own[key], _ = scanner.value()
            if found or scanner.offset - start > LONGEST:  # no record; and it may go on like this for ever
                own.clear()
        if not found:
            yield self._own_record(own, line)

    def _keys(self) -> Iterator[str]:
        """Yield each key of an object, and stand before its value."""
        scanner = self._scanner
        scanner.expect("{")
        while scanner.peek() != "}":
            key, line = scanner.value()
            if not isinstance(key, str):
                raise SourceError.at(
                    self._records.name, line, "a key in quotes must stand here; mend the file"
                )
            scanner.expect(":")
            yield key
            if scanner.peek() != "}":
                scanner.expect(",")
        scanner.expect("}")

    def _own_record(self, own: dict[str, object], line: int) -> Item:
        records = self._records
        if not records.count and not records.fields.has_text(own):
            keys = ", ".join(repr(key[:40]) for key in [*own][:10]) or "nothing"
            raise SourceError.at(
                records.name,
                line,
                f"neither a record nor an object with a list under {', '.join(CONTAINERS)}; it holds {keys}."
                " Write the list alone, or map the field 'content' to its key",
            )
        for value in own.values():
            if isinstance(value, Broken):
                return records.refuse(InvalidFactError(value.reason, record=value.text), line)
        return records.add(records.fields.of_json, own, line)
