"""What the caller of `open_facts` chose, checked before anything is opened."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal, get_args

import attrs

from omi_async._formats import INCLUDES
from omi_async.sources._fields import Fields, fields_from, value_at
from omi_async.sources._template import Template, is_absent

__all__ = ["Long", "ReadOptions", "Where", "options_from"]

Long = Literal["reject", "split"]
Names = str | Iterable[str]


@attrs.frozen
class Where:
    """Which records are wanted.

    Attributes:
        values: field to the values that will do; a record must have one of them in each field.
    """

    values: Mapping[str, frozenset[str]] = attrs.field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def wants(self, get: Callable[[str], object]) -> bool:
        """Whether a record is wanted; `get` returns the value of a field."""
        return all(not wanted.isdisjoint(_spellings(get(field))) for field, wanted in self.values.items())

    def wants_record(self, record: object) -> bool:
        """Whether a value of JSON is wanted; what is no object has no fields."""
        return not self.values or (
            isinstance(record, dict) and self.wants(lambda field: value_at(record, field))
        )


def _spellings(value: object) -> list[str]:
    """Return how a caller may write a value of JSON; any element of a list will do."""
    if isinstance(value, list):
        return [spelling for item in value for spelling in _spellings(item)]
    if isinstance(value, bool):
        return [str(value).lower()]
    return [""] if is_absent(value) else [str(value).strip()]


@attrs.frozen
class ReadOptions:
    """Everything that a reader has to know of its caller.

    Attributes:
        fields: how a record becomes a fact.
        where: which records are wanted.
        under: headings of Markdown, in lower case; none means all of them.
        only_tag: tags in lower case, one of which a fact must have; none means any fact.
        include: what is left out unless it is named here.
        split: whether a text that is too long is split, and not refused.
        encoding: what the bytes are written in, or None to find out.
        today: what an expiry date is measured against.
        plain: whether each record becomes one fact, without a look at what it says.
    """

    fields: Fields = attrs.field(factory=Fields)
    where: Where = attrs.field(factory=Where)
    under: tuple[str, ...] = ()
    only_tag: frozenset[str] = frozenset()
    include: frozenset[str] = frozenset()
    split: bool = False
    encoding: str | None = None
    today: date = attrs.field(factory=lambda: datetime.now(UTC).date())

    plain: bool = attrs.field(init=False)  # asked for each record

    @plain.default
    def _is_plain(self) -> bool:
        return not (self.where or self.only_tag or self.split or self.fields.template)


def options_from(
    mapping: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    *,
    template: str | None = None,
    where: Mapping[str, Names] | Iterable[str] | None = None,
    under: Names = (),
    only_tag: Names = (),
    include: Names = (),
    long: Long = "reject",
    encoding: str | None = None,
) -> ReadOptions:
    """Check a caller's choices. Raises `ValueError` that names the one at fault."""
    unknown = [name for name in _names(include) if name not in INCLUDES]
    if unknown:
        raise ValueError(f"include: there is no {unknown[0]!r}; there are {', '.join(INCLUDES)}")
    if long not in get_args(Long):
        raise ValueError(f"long must be reject or split, not {long!r}")
    return ReadOptions(
        fields=fields_from(mapping, defaults, None if template is None else Template.parse(template)),
        where=_where(where),
        under=tuple(heading.strip().lstrip("#").strip().casefold() for heading in _names(under)),
        only_tag=frozenset(tag.strip().removeprefix("#").casefold() for tag in _names(only_tag)),
        include=frozenset(_names(include)),
        split=long == "split",
        encoding=None if encoding is None else _encoding(encoding),
    )


def _names(given: Names) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _where(given: Mapping[str, Names] | Iterable[str] | None) -> Where:
    """Read ``{"Shelf": "read"}`` or ``["Shelf=read", ...]``; a field that comes twice takes either value."""
    pairs: list[tuple[str, str]] = []
    if isinstance(given, Mapping):
        pairs = [(field, value) for field, values in given.items() for value in _names(values)]
    else:
        for pair in _names(given or ()):
            field, equals, value = pair.partition("=")
            if not (equals and field.strip()):
                raise ValueError(f"where: {pair!r} is not FIELD=VALUE")
            pairs.append((field, value))
    values: dict[str, frozenset[str]] = {}
    for field, value in pairs:
        values[field.strip()] = values.get(field.strip(), frozenset()) | {value.strip()}
    return Where(values)


def _encoding(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        # Codecs such as base64 make bytes of bytes; this is the one way to ask (bytes.decode asks likewise).
        is_text = codec._is_text_encoding  # noqa: SLF001
    except LookupError:
        is_text = False
    if not is_text:
        raise ValueError(
            f"encoding: Python knows no text encoding {name!r}; utf-8, utf-16 and cp1252 are usual"
        )
    return codec.name
