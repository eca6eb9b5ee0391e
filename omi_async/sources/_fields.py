"""Which part of a record is the text, the category, the visibility, the tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from omi_async.constants import VISIBILITIES
from omi_async.errors import InvalidFactError
from omi_async.fact import Fact
from omi_async.sources._template import Template, is_absent

__all__ = ["FIELD_NAMES", "TEXT_KEYS", "Fields", "Parts", "Record", "fields_from", "value_at"]

TEXT_KEYS: Final = ("content", "text", "memory", "fact", "body", "note", "value")
"""Names of the text in the exports of other systems (`memory`: mem0); the first one present counts."""

FIELD_NAMES: Final = {
    "content": TEXT_KEYS,
    # Not `type` or `kind`: in the exports of other systems these say what a record is, not what it is about.
    "category": ("category",),
    "visibility": ("visibility",),
    "tags": ("tags", "labels", "keywords"),
}
_DEFAULTED: Final = ("category", "visibility", "tags")

Record = Mapping[str, Any]


class Parts(NamedTuple):
    """What a record says of a fact, unchecked; None and empty values are for the defaults."""

    content: Any
    category: Any = None
    visibility: Any = None
    tags: Any = None


@attrs.frozen
class Fields:
    """Makes facts of records.

    Attributes:
        mapping: field of the fact to key (or dotted path) or column of the record; to "" for a field that is
            to be taken from nowhere.
        category: for records that have none; so are visibility and tags.
        template: makes the text of several keys or columns.
    """

    mapping: Mapping[str, str] = attrs.field(factory=dict)
    category: str | None = None
    visibility: str = "private"
    tags: tuple[str, ...] = ()
    template: Template | None = None

    @property
    def reshapes(self) -> bool:
        """Whether the caller said what stands where, so that no format need be recognised."""
        return self.template is not None or any(self.mapping.values())

    def of_text(self, text: str, origin: str) -> Fact:
        """Make a fact of a bare text. Raises `InvalidFactError`."""
        return Fact(text, category=self.category, visibility=self.visibility, tags=self.tags, origin=origin)

    def of_json(self, value: object, origin: str) -> Fact:
        """Make a fact of a JSON object or string. Raises `InvalidFactError`."""
        if type(value) is dict and not self.mapping and self.template is None:
            # As nearly all are: what `parts_of` would find, without its steps.
            get = value.get
            content = get("content")
            if content is not None:
                return self._fact(content, get("category"), get("visibility"), get("tags"), origin)
        return self.of_parts(self.parts_of(value), origin)

    def parts_of(self, value: object) -> Parts:
        """Find the parts of a fact in a JSON object or string. Raises `InvalidFactError`."""
        if not isinstance(value, dict):
            if isinstance(value, str):
                return Parts(value)
            raise InvalidFactError(f"a fact must be an object or a string, not {_json_name(value)}")
        get = self._getter(value) if self.mapping else value.get
        if self.template is not None:
            content: Any = self.template.render(lambda name: value_at(value, name))
        else:
            content = get("content")
            if content is None and "content" not in self.mapping:
                content = _first(value, TEXT_KEYS)
            if content is None:
                raise self._no_content(value)
        return Parts(content, get("category"), get("visibility"), get("tags"))

    def of_parts(self, parts: Parts, origin: str) -> Fact:
        """Make a fact, with the defaults for what is None or empty. Raises `InvalidFactError`.

        Nothing but the exact word makes a fact public.
        """
        return self._fact(*parts, origin)

    def _fact(self, content: Any, category: Any, visibility: Any, tags: Any, origin: str) -> Fact:
        # None first: it is what most of them are, and to ask a function of it costs as much as its check.
        if visibility is None or is_absent(visibility):
            visibility = self.visibility
        elif not isinstance(visibility, str) or visibility not in VISIBILITIES:
            raise InvalidFactError(
                "visibility: must be exactly 'private' or 'public', in lower case; empty means the default",
                field="visibility",
            )
        if category is None or is_absent(category):
            category = self.category
        if tags is None or tags == [] or is_absent(tags):
            tags = self.tags
        return Fact(content, category=category, visibility=visibility, tags=tags, origin=origin)

    def has_text(self, record: Record) -> bool:
        """Whether the record says a text, good or bad."""
        if self.template is not None:
            return any(value_at(record, name) is not None for name in self.template.names)
        if "content" in self.mapping:
            return value_at(record, self.mapping["content"]) is not None
        return _first(record, TEXT_KEYS) is not None

    def _getter(self, record: Record) -> Callable[[str], Any]:
        return lambda field: value_at(record, key) if (key := self.mapping.get(field, field)) else None

    def _no_content(self, record: Record) -> InvalidFactError:
        if "unreadable" in record:  # our own failures file, with a line that was not fixed yet
            return InvalidFactError(
                "could not be read by an earlier import either; write its text as 'content'",
                field="content",
                record=record["unreadable"],
            )
        key = self.mapping.get("content")
        missing = f"no {key!r} in the record" if key else "is missing"
        return InvalidFactError(f"content: {missing}", field="content")


def fields_from(
    mapping: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None, template: Template | None = None
) -> Fields:
    """Check a caller's mapping and defaults. Raises `ValueError` that names the entry at fault."""
    mapping = dict(mapping or {})
    for field, key in mapping.items():
        if field not in FIELD_NAMES:
            raise ValueError(f"mapping: {field!r} is no field of a fact; there are {', '.join(FIELD_NAMES)}")
        if not isinstance(key, str) or (field == "content" and not key):
            raise ValueError(f"mapping: {field!r} must map to the name of a key or column, not {key!r}")
    if template is not None and "content" in mapping:
        raise ValueError("a template makes the content; leave 'content' out of the mapping")
    given = {field: value for field, value in (defaults or {}).items() if value is not None}
    for field in given:
        if field not in _DEFAULTED:
            raise ValueError(f"defaults: {field!r} has no default; only {', '.join(_DEFAULTED)} have one")
    try:
        model = Fact("a text", **given)
    except InvalidFactError as error:
        raise ValueError(f"defaults: {error}") from error
    return Fields(mapping, model.category, model.visibility, model.tags, template)


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


def _json_name(value: object) -> str:
    names = {list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
