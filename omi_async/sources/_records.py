"""Facts, and outcomes for what is none, with their places and their count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from omi_async.errors import InvalidFactError
from omi_async.fact import Fact
from omi_async.importing.report import FactOutcome
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Parts
from omi_async.sources._options import ReadOptions
from omi_async.sources._sentences import split
from omi_async.sources._statements import Found, LeftOut, Statement, Unreadable

__all__ = [
    "BATCH",
    "LONGEST",
    "Batch",
    "Entry",
    "Reading",
    "Recognised",
    "Records",
    "batched",
    "decoded",
    "hint_at_encoding",
    "shown",
]

BATCH: Final = 200
"""Entries handed over at once: fewer would wake the event loop for little, more would make others wait."""

LONGEST: Final = 2**20
"""Bytes of one record, at most: a fact has 500 characters, the rest is what else its record says."""

_SHOWN: Final = 8192
"""Bytes of a broken line that its error keeps: failures by the thousand are kept until the report."""

Entry = Fact | FactOutcome
Batch = list[Entry]


@attrs.frozen
class Recognised:
    """What a file was taken for.

    Attributes:
        name: the file.
        format: its format.
        columns: of a table, field of a fact to the name of its column.
        ignored: of a table, the columns that are none.
    """

    name: str
    format: str
    columns: Mapping[str, str] = attrs.field(factory=dict)
    ignored: tuple[str, ...] = ()


class Reading:
    """What all files of one source share.

    Attributes:
        options: what the caller chose.
        skipped: what was left out on purpose, by reason.
        recognised: what the files were taken for.
        held: what may be handed out only if all records belong to one owner.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.skipped: Counter[str] = Counter()
        self.recognised: list[Recognised] = []
        self.held: Batch = []
        self._owners: dict[str, set[str]] = {}

    def note_owner(self, field: str, owner: str) -> None:
        """Remember whose record was read."""
        self._owners.setdefault(field, set()).add(owner)

    def release(self, name: str) -> Batch:
        """Return what was held back. Raises `SourceError` if it is of several owners, and none was chosen."""
        for field, owners in self._owners.items():
            if len(owners) > 1:
                some = ", ".join(sorted(owners)[:5])
                raise SourceError.at(
                    name,
                    None,
                    f"holds memories of {len(owners)} owners, by the field {field!r} ({some}); choose one:"
                    f" --where {field}=NAME",
                )
        return self.held


class Records:
    """Counts the records of one file, and makes each a fact, several, or an invalid outcome.

    Attributes:
        name: the file, as the caller named it.
        reading: what it shares with the other files of its source.
        options: what the caller chose.
        find: what the reader of a known format makes of a record; None for records like ours.
        account: the key under which a record of that format names its owner, or "".
        count: records so far, without those that were left out.
    """

    def __init__(
        self,
        name: str,
        reading: Reading,
        find: Callable[[Any], Iterable[Found]] | None = None,
        account: str = "",
    ) -> None:
        self.name = name
        self.reading = reading
        self.options = reading.options
        self.find = find
        self.account = account
        self.count = 0

    def take(self, record: object, line: int) -> Batch:
        """Make of a JSON value what it is: a fact, several, an invalid outcome, or nothing."""
        if not self.options.where.wants_record(record):
            self.leave_out("not chosen by where")
            return []
        if self.find is not None:
            self._note_owner(record)
            return self.found(self.find(record), line, record)
        try:
            parts = self.options.fields.parts_of(record)
        except InvalidFactError as error:
            return [self._invalid(error, line, record)]
        return self.entries(parts, line, record)

    def found(self, found: Iterable[Found], line: int, record: object = None) -> Batch:
        """Make entries of what the reader of a known format found; it may raise `InvalidFactError`."""
        batch: Batch = []
        try:
            for finding in found:
                if isinstance(finding, LeftOut):
                    self.leave_out(finding.reason)
                elif isinstance(finding, Unreadable):
                    batch.append(
                        self.refuse(InvalidFactError(finding.why, record=finding.text), finding.line)
                    )
                else:
                    place = line if finding.line is None else finding.line
                    batch += self._statement(finding, place, record)
        except InvalidFactError as error:
            batch.append(self._invalid(error, line, record))
        return batch

    def _statement(self, finding: Statement, line: int, record: object) -> Batch:
        parts = Parts(finding.text, tags=list(finding.tags))
        if record is not None:
            # What failed is this statement alone: the record may hold a hundred others, which were read.
            return self.entries(parts, line, {"content": finding.text, "tags": parts.tags}, finding.date)
        if not finding.text.isascii() or "\0" in finding.text:
            try:
                decoded(finding.text.encode("utf-8", "surrogateescape"))
            except InvalidFactError as error:
                return [self._invalid(error, line, finding.text)]
        return self.entries(parts, line, finding.text, finding.date)

    def entries(
        self,
        parts: Parts,
        line: int,
        record: object,
        date: str | None = None,
        category_from: str = "",
    ) -> Batch:
        """Make the facts of one text: several only if it is too long and may be split."""
        origin = f"{self.name}:{line}" if date is None else f"{self.name}:{line} ({date})"
        pieces = [parts]
        if self.options.split and isinstance(parts.content, str):
            pieces = [parts._replace(content=text) for text in split(parts.content)] or pieces
        batch: Batch = []
        for piece in pieces:
            try:
                fact = self.options.fields.of_parts(piece, origin)
            except InvalidFactError as error:
                if error.field == "category":
                    error = self.bad_category(error, category_from)
                batch.append(self._invalid(error, line, record))
                continue
            if not self.options.only_tag or self._has_wanted_tag(fact):
                self.count += 1
                batch.append(fact)
            else:
                self.leave_out("without the tag")
        return batch

    def fact(self, parts: Parts, line: int) -> Fact:
        """Make the one fact of a record of which nothing else is to be asked. Raises `InvalidFactError`."""
        fact = self.options.fields.of_parts(parts, f"{self.name}:{line}")
        self.count += 1
        return fact

    def bad_category(self, error: InvalidFactError, place: str) -> InvalidFactError:
        """Return which part of the file is to blame for a category, and how to do without."""
        place = place or repr(self.options.fields.mapping.get("category", "category"))
        words = f"{error}; it comes from {place}: --map category= (mapping={{'category': ''}}) leaves it out"
        return InvalidFactError(words, field="category")

    def refuse(self, error: InvalidFactError, line: int) -> FactOutcome:
        """Count a record that cannot be read."""
        return self._invalid(error, line, None)

    def leave_out(self, reason: str, number: int = 1) -> None:
        """Count what is left out on purpose."""
        self.reading.skipped[reason] += number

    def _note_owner(self, record: object) -> None:
        if self.account and isinstance(record, dict) and isinstance(owner := record.get(self.account), str):
            self.reading.note_owner(self.account, owner)

    def _has_wanted_tag(self, fact: Fact) -> bool:
        """Whether a fact has one of the tags, or one below it: ``me/food`` is below ``me``."""
        wanted = self.options.only_tag
        tags = [tag.removeprefix("#").casefold() for tag in fact.tags]
        return any(tag in wanted or any(tag.startswith(f"{name}/") for name in wanted) for tag in tags)

    def _invalid(self, error: InvalidFactError, line: int, record: object) -> FactOutcome:
        if error.record is None:
            error.record = record
        # Failures are kept by the thousand: not with the frames that raised them, and all that those hold.
        error.__traceback__ = error.__context__ = None
        self.count += 1
        origin = f"{self.name}:{line}"
        return FactOutcome(index=self.count - 1, fact=None, state="invalid", error=error, origin=origin)


def batched(entries: Iterable[Entry], size: int = BATCH) -> Iterator[Batch]:
    """Collect entries into lists, and hand out what was collected before a `SourceError` goes on."""
    batch: Batch = []
    failure: SourceError | None = None
    try:
        for entry in entries:
            batch.append(entry)
            if len(batch) == size:
                yield batch
                batch = []
    except SourceError as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure


def decoded(line: bytes) -> str:
    """Decode a line. Raises `InvalidFactError` for bytes, lengths and characters that no text has."""
    if len(line) > LONGEST:
        raise InvalidFactError(f"is longer than {LONGEST:,} bytes", record=shown(line))
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise InvalidFactError(
            f"is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1} of the line;"
            f" {hint_at_encoding(line)}",
            record=shown(line),
        ) from None
    if "\0" in text:
        raise InvalidFactError(
            f"holds a NUL character at position {text.index(chr(0)) + 1} of the line", record=shown(line)
        )
    return text


def hint_at_encoding(raw: bytes) -> str:
    """Return what to do about bytes that are no UTF-8.

    There is a guess for Western Windows alone: the encodings of other scripts look alike, and a wrong guess
    would make wrong facts.
    """
    if raw.count(0) * 3 > len(raw):
        return "if the file is UTF-16, name that (--encoding utf-16-le or utf-16-be)"
    try:
        added = [letter for letter in raw.decode("cp1252") if not letter.isascii()]
    except UnicodeDecodeError:
        added = []
    # A Western word has a letter with an accent here and there; a Russian one would be nothing else.
    if (
        added
        and len(added) * 3 <= len(raw)
        and all(letter.isalpha() or letter in _TYPOGRAPHY for letter in added)
    ):
        return "if the file comes from Windows, name its encoding (--encoding cp1252), or convert it to UTF-8"
    return "name the file's encoding (--encoding NAME), or convert it to UTF-8"


_TYPOGRAPHY: Final = "\xa0€\u201a„…\u2018\u2019“”\u2013—«»°·§©®™£¥½¼¾²³±\u00d7÷¿¡•\u00b4"


def shown(raw: bytes) -> str:
    r"""Keep a broken record readable and bounded, with ``\xe9`` for bytes that are no text."""
    return raw[:_SHOWN].decode("utf-8", "backslashreplace").rstrip("\r\n")
