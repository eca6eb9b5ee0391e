"""Reads bytes to facts without an event loop, and keeps the error that ended it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import attrs

from omi_async import Fact, InvalidFactError
from omi_async._formats import Format
from omi_async.importing.report import FactOutcome
from omi_async.sources import SourceError
from omi_async.sources._options import options_from
from omi_async.sources._readers import read_batches
from omi_async.sources._records import Reading, Recognised
from omi_async.sources._source import read_source
from omi_async.sources._streams import Stop


@attrs.frozen
class Read:
    """What came of a file."""

    items: list[Fact | FactOutcome]
    error: SourceError | None
    skipped: dict[str, int]
    recognised: list[Recognised]

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
    **options: Any,
) -> Read:
    raw = data.encode() if isinstance(data, str) else data
    reading = Reading(options_from(mapping, defaults, **options))
    return _collect(read_source(io.BytesIO(raw), name, wanted, reading, Stop()), reading)


def read_pieces(pieces: Iterable[bytes], name: str = "facts", wanted: Format = "auto") -> Read:
    reading = Reading(options_from())
    return _collect(read_batches(pieces, name, wanted, reading), reading)


def _collect(batches: Iterable[Iterable[Fact | FactOutcome]], reading: Reading) -> Read:
    items: list[Fact | FactOutcome] = []
    error = None
    try:
        for batch in batches:
            items.extend(batch)
    except SourceError as failure:
        error = failure
    return Read(items, error, dict(reading.skipped), [*reading.recognised])
