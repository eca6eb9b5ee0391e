"""Templates: ``"User worked as {Title} at {Company Name}[ since {Started On}]"``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from omi_async.errors import InvalidFactError

__all__ = ["Template", "is_absent"]

_TOKEN: Final = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{[^{}\[\]]*\}|[{}\[\]]|[^{}\[\]]+")
"""A doubled bracket stands for itself; a field; a bracket; text."""


@attrs.frozen
class _Field:
    name: str


Piece = str | _Field


@attrs.frozen
class Template:
    """A text with the names of columns or keys in it.

    There is no format language: what stands between braces is a name, whatever it looks like, so that a file
    from a stranger can reach nothing but its own cells.

    Attributes:
        text: the template as it was given.
        parts: what it is made of; a tuple is a part that is left out if one of its fields is empty.
    """

    text: str
    parts: tuple[Piece | tuple[Piece, ...], ...] = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template. Raises `ValueError` that says what is wrong with it."""
        parts: list[Piece | tuple[Piece, ...]] = []
        optional: list[Piece] | None = None
        for mark in _TOKEN.findall(text):
            if mark == "[" and optional is None:
                optional = []
            elif mark == "]" and optional is not None:
                if not any(isinstance(piece, _Field) for piece in optional):
                    raise _unusable(text, "an optional part [...] needs a {name} in it")
                parts.append(tuple(optional))
                optional = None
            elif mark in "{}[]":
                raise _unusable(text, f"{mark!r} is one too many; write it twice to mean the character")
            else:
                (parts if optional is None else optional).append(_piece(mark, text))
        if optional is not None:
            raise _unusable(text, "'[' is never closed; write it twice to mean the character")
        template = cls(text, tuple(parts))
        if not template.names:
            raise _unusable(text, "it has no {name} of a column or key")
        return template

    @property
    def names(self) -> list[str]:
        """The columns or keys that it takes, each once."""
        pieces = [piece for part in self.parts for piece in (part if isinstance(part, tuple) else (part,))]
        return list(dict.fromkeys(piece.name for piece in pieces if isinstance(piece, _Field)))

    def render(self, get: Callable[[str], object]) -> str:
        """Fill in the values. Raises `InvalidFactError` for one that is empty outside of an optional part."""
        text = ""
        for part in self.parts:
            if isinstance(part, tuple):
                values = [
                    piece if isinstance(piece, str) else _value(get(piece.name), piece) for piece in part
                ]
                text += "".join(values) if all(values) else ""
                continue
            value = part if isinstance(part, str) else _value(get(part.name), part)
            if not value and isinstance(part, _Field):
                raise InvalidFactError(
                    f"content: {part.name!r} is empty, and the template needs it; [...] makes it optional",
                    field="content",
                )
            text += value
        return text


def _piece(token: str, text: str) -> Piece:
    if token in {"{{", "}}", "[[", "]]"}:
        return token[0]
    if not token.startswith("{"):
        return token
    name = token[1:-1].strip()
    if not name:
        raise _unusable(text, "{} has no name in it")
    return _Field(name)


def _unusable(text: str, why: str) -> ValueError:
    return ValueError(f"template {text!r}: {why}")


def is_absent(value: object) -> bool:
    """Whether a cell or value says nothing: null, NaN, or white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _value(value: Any, field: _Field) -> str:
    """Write a value as a person would: no quotes around a text, no brackets around a list."""
    if is_absent(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(filter(None, (_value(item, field) for item in value)))
    if isinstance(value, list | Mapping):
        raise InvalidFactError(
            f"content: {field.name!r} is no text but {'a list' if isinstance(value, list) else 'an object'};"
            " name what stands inside with a dotted path",
            field="content",
        )
    return json.dumps(value)
