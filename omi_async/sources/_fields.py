"""Which part of a record is the text, the category, the visibility, the tags."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from omi_async._api.json import loads
from omi_async.constants import VISIBILITIES
from omi_async.errors import InvalidFactError
from omi_async.fact import Fact

__all__ = ["Columns", "Fields", "fields_from"]

TEXT_KEYS: Final = ("content", "text", "memory", "fact", "body", "note", "value")
"""Names of the text in the exports of other systems (`memory`: mem0); the first one present counts."""

_COLUMNS: Final = {
    "content": TEXT_KEYS,
    "category": ("category", "type"),
    "visibility": ("visibility",),
    "tags": ("tags", "labels", "keywords"),
}
_DEFAULTED: Final = ("category", "visibility", "tags")

Record = Mapping[str, Any]


@attrs.frozen
class Fields:
    """Makes facts of records.

    Attributes:
        mapping: field of the fact to key (or dotted path) or column of the record.
        defaults: for records that have no category, visibility or tags; an empty one is none.
    """

    mapping: Mapping[str, str] = attrs.field(factory=dict)
    category: str | None = None
    visibility: str = "private"
    tags: tuple[str, ...] = ()

    def of_text(self, text: str, origin: str) -> Fact:
        """Make a fact of a bare text. Raises `InvalidFactError`."""
        return Fact(text, category=self.category, visibility=self.visibility, tags=self.tags, origin=origin)

    def of_json(self, value: object, origin: str) -> Fact:
        """Make a fact of a JSON object or string. Raises `InvalidFactError`."""
        if not isinstance(value, dict):
            if isinstance(value, str):
                return self.of_text(value, origin)
            raise InvalidFactError(f"a fact must be an object or a string, not {_json_name(value)}")
        get = self._getter(value) if self.mapping else value.get
        content = get("content")
        if content is None and "content" not in self.mapping:
            content = _first(value, TEXT_KEYS)
        if content is None:
            raise self._no_content(value)
        return self.of_parts(content, get("category"), get("visibility"), get("tags"), origin)

    def of_parts(self, content: Any, category: Any, visibility: Any, tags: Any, origin: str) -> Fact:
        """Make a fact, with the defaults for what is None or empty. Raises `InvalidFactError`.

        Nothing but the exact word makes a fact public.
        """
        if visibility is None or visibility == "":
            visibility = self.visibility
        elif not isinstance(visibility, str) or visibility not in VISIBILITIES:
            raise InvalidFactError(
                "visibility: must be exactly 'private' or 'public', in lower case; empty means the default",
                field="visibility",
            )
        return Fact(
            content,
            category=self.category if category is None or category == "" else category,
            visibility=visibility,
            tags=self.tags if tags is None or tags == [] else tags,
            origin=origin,
        )

    @property
    def keys(self) -> frozenset[str]:
        """The keys of a record whose values, if not empty, `of_json` makes a fact of or else raises."""
        return frozenset(self.mapping.get(field, field) for field in _COLUMNS)

    def has_text(self, record: Record) -> bool:
        """Whether the record says a text, good or bad."""
        if "content" in self.mapping:
            return value_at(record, self.mapping["content"]) is not None
        return _first(record, TEXT_KEYS) is not None

    def columns(self, header: Sequence[str]) -> Columns | None:
        """Find the columns by their names, in any case; None if one is missing that is needed."""
        names = [name.strip().casefold() for name in header]
        found: dict[str, int] = {}
        for field, synonyms in _COLUMNS.items():
            mapped = self.mapping.get(field)
            wanted = synonyms if mapped is None else (mapped.strip().casefold(),)
            place = next((names.index(name) for name in wanted if name in names), None)
            if place is not None:
                found[field] = place
            elif mapped is not None or field == "content":
                return None
        return Columns(fields=self, width=len(header), **found)

    def _getter(self, record: Record) -> Callable[[str], Any]:
        return lambda field: value_at(record, self.mapping.get(field, field))

    def _no_content(self, record: Record) -> InvalidFactError:
        if "unreadable" in record:  # a failures file of ours, with a line that was not fixed yet
            return InvalidFactError(
                "could not be read by an earlier import either; write its text as 'content'",
                field="content",
                record=record["unreadable"],
            )
        key = self.mapping.get("content")
        missing = f"no {key!r} in the record" if key else "is missing"
        return InvalidFactError(f"content: {missing}", field="content")


@attrs.frozen
class Columns:
    """Makes facts of the rows below a header; the numbers are places in the row."""

    fields: Fields
    width: int
    content: int
    category: int | None = None
    visibility: int | None = None
    tags: int | None = None

    @property
    def known(self) -> int:
        """How many columns hold a part of a fact."""
        return sum(place is not None for place in self._places)

    def of_row(self, row: Sequence[str], origin: str) -> Fact:
        """Make a fact of a row, whose missing cells are empty. Raises `InvalidFactError`."""
        content, category, visibility, tags = self._cells(row)
        try:
            return self.fields.of_parts(content, category.strip(), visibility, _tags(tags), origin)
        except InvalidFactError as error:
            error.record = self._record(row)
            raise

    def _record(self, row: Sequence[str]) -> dict[str, Any]:
        """Return what the row says, as JSON would say it: a failures file is JSON."""
        record: dict[str, Any] = dict(zip(_COLUMNS, self._cells(row), strict=True))
        with contextlib.suppress(InvalidFactError):
            record["tags"] = _tags(record["tags"])
        return record

    def _cells(self, row: Sequence[str]) -> list[str]:
        width = len(row)
        return [row[place] if place is not None and place < width else "" for place in self._places]

    @property
    def _places(self) -> tuple[int | None, ...]:
        return self.content, self.category, self.visibility, self.tags


def fields_from(mapping: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None) -> Fields:
    """Check a caller's mapping and defaults. Raises `ValueError` that names the entry at fault."""
    mapping = dict(mapping or {})
    for field, key in mapping.items():
        if field not in _COLUMNS:
            raise ValueError(f"mapping: {field!r} is no field of a fact; there are {', '.join(_COLUMNS)}")
        if not (isinstance(key, str) and key):
            raise ValueError(f"mapping: {field!r} must map to the name of a key or column, not {key!r}")
    given = {field: value for field, value in (defaults or {}).items() if value is not None}
    for field in given:
        if field not in _DEFAULTED:
            raise ValueError(f"defaults: {field!r} has no default; only {', '.join(_DEFAULTED)} have one")
    try:
        model = Fact("a text", **given)
    except InvalidFactError as error:
        raise ValueError(f"defaults: {error}") from error
    return Fields(mapping, model.category, model.visibility, model.tags)


def _first(record: Record, keys: Sequence[str]) -> Any:
    for key in keys:
        value = record.get(key)
        if value is not None:
            return value
    return None


def value_at(record: Record, path: str) -> Any:
    """Follow a dotted path; a key that has the dot in its name goes first."""
    value: Any = record.get(path)
    if value is not None or "." not in path:
        return value
    value = record
    for key in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _tags(cell: str) -> Any:
    """Read the tags of a cell: a JSON list, or words between ``;`` or ``|`` or ``,``."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return loads(cell)
        except ValueError:
            raise InvalidFactError(
                'tags: must be a JSON list such as ["tea", "work"], or words between ; or | or ,',
                field="tags",
            ) from None
    separator = next((mark for mark in ";|," if mark in cell), ";")
    return [tag for part in cell.split(separator) if (tag := part.strip())]


def _json_name(value: object) -> str:
    names = {list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
