"""Facts, and outcomes for what is none, with their places and their count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from omi_async.errors import InvalidFactError
from omi_async.importing.outcomes import FactOutcome
from omi_async.models import Fact
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Fields
from omi_async.sources._lines import LONGEST

__all__ = ["Batch", "Item", "Records", "batched", "decoded", "shown"]

BATCH: Final = 200
"""Items handed over at once."""

_SHOWN: Final = 8192
"""Bytes of a broken line that its error keeps: failures by the thousand are kept until the report."""

Item = Fact | FactOutcome
Batch = list[Item]
Given = TypeVar("Given")


class Records:
    """Counts the records of one file, and makes each a fact or an invalid outcome.

    Attributes:
        name: the file, as the caller named it.
        fields: where the parts of a fact stand.
        count: records so far.
    """

    def __init__(self, name: str, fields: Fields) -> None:
        self.name = name
        self.fields = fields
        self.count = 0

    def add(self, make: Callable[[Given, str], Fact], given: Given, line: int) -> Item:
        """Count a record, and make a fact of it with `make(given, origin)`."""
        origin = f"{self.name}:{line}"
        self.count += 1
        try:
            return make(given, origin)
        except InvalidFactError as error:
            if error.record is None:
                error.record = given
            return self._invalid(error, origin)

    def refuse(self, error: InvalidFactError, line: int) -> FactOutcome:
        """Count a record that cannot be read."""
        self.count += 1
        return self._invalid(error, f"{self.name}:{line}")

    def _invalid(self, error: InvalidFactError, origin: str) -> FactOutcome:
        # Failures are kept by the thousand: not with the frames that raised them, and all that those hold.
        error.__traceback__ = error.__context__ = None
        return FactOutcome(index=self.count - 1, fact=None, state="invalid", error=error, origin=origin)


def decoded(line: bytes) -> str:
    """Decode a line. Raises `InvalidFactError` for bytes, lengths and characters that no text has."""
    if len(line) > LONGEST:
        raise InvalidFactError(f"is longer than {LONGEST:,} bytes", record=shown(line))
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise InvalidFactError(
            f"is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1} of the line;"
            " convert the file to UTF-8",
            record=shown(line),
        ) from None
    if "\0" in text:
        raise InvalidFactError(
            f"holds a NUL character at position {text.index(chr(0)) + 1} of the line", record=shown(line)
        )
    return text


def shown(raw: bytes) -> str:
    r"""Keep a broken record readable and bounded, with ``\xe9`` for bytes that are no text."""
    return raw[:_SHOWN].decode("utf-8", "backslashreplace").rstrip("\r\n")


def batched(items: Iterable[Item], size: int = BATCH) -> Iterator[Batch]:
    """Collect items into lists, and hand out what was collected before a `SourceError` goes on."""
    batch: Batch = []
    failure: SourceError | None = None
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except SourceError as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure
