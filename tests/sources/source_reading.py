"""Reads bytes to facts without an event loop, and keeps the error that ended it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import attrs

from omi_async import Fact, InvalidFactError
from omi_async.importing.report import FactOutcome
from omi_async.sources import SourceError
from omi_async.sources._detect import Format, read_batches, read_records
from omi_async.sources._fields import fields_from


@attrs.frozen
class Read:
    """What came of a file."""

    items: list[Fact | FactOutcome]
    error: SourceError | None

    @property
    def told(self) -> tuple[str, str]:
        """Everything, in a form in which two readings can be compared: no error equals another."""
        return repr(self.items), repr(self.error)

    @property
    def facts(self) -> list[Fact]:
        return [item for item in self.items if isinstance(item, Fact)]

    @property
    def texts(self) -> list[str]:
        return [fact.content for fact in self.facts]

    @property
    def places(self) -> list[str | None]:
        return [item.origin for item in self.items]

    @property
    def invalid(self) -> list[FactOutcome]:
        return [item for item in self.items if isinstance(item, FactOutcome)]

    @property
    def reasons(self) -> list[str]:
        return [f"{outcome.origin}: {outcome.error}" for outcome in self.invalid]

    @property
    def records(self) -> list[object]:
        return [
            outcome.error.record for outcome in self.invalid if isinstance(outcome.error, InvalidFactError)
        ]


def read(
    data: bytes | str,
    name: str = "facts",
    wanted: Format = "auto",
    mapping: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> Read:
    raw = data.encode() if isinstance(data, str) else data
    fields = fields_from(mapping, defaults)
    return _collect(read_records(io.BytesIO(raw), name, wanted, fields))


def read_pieces(pieces: Iterable[bytes], name: str = "facts", wanted: Format = "auto") -> Read:
    batches = read_batches(pieces, name, wanted, fields_from(None, None))
    return _collect(item for batch in batches for item in batch)


def _collect(records: Iterable[Fact | FactOutcome]) -> Read:
    items: list[Fact | FactOutcome] = []
    error = None
    try:
        items.extend(records)
    except SourceError as failure:
        error = failure
    return Read(items, error)
