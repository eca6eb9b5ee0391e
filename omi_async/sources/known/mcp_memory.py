"""The memory server of the Model Context Protocol: entities with observations, and relations between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut, Statement
from omi_async.sources.known._values import text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("entities", "relations")
ACCOUNT: Final = ""

_THE_USER: Final = frozenset({"default_user", "user", "me"})
"""Names of an entity that is the person whose memories these are: the observation says it all."""


def matches(sample: Sample) -> bool:
    """Whether a record is an entity or a relation."""
    return any(_is_entity(record) or _is_relation(record) for record in sample.under(*LISTS))


def _is_entity(record: dict[str, Any]) -> bool:
    return "name" in record and isinstance(record.get("observations"), list)


def _is_relation(record: dict[str, Any]) -> bool:
    return {"from", "to", "relationType"} <= record.keys()


def read(record: Any, options: ReadOptions) -> Iterator[Found]:
    """Yield the observations of an entity, or a relation if those are wanted."""
    if isinstance(record, dict) and _is_relation(record):
        if "relations" not in options.include:
            yield LeftOut("relation")
            return
        kind = text_of(record, "relationType").replace("_", " ")
        yield Statement(f"{text_of(record, 'from')} {kind} {text_of(record, 'to')}")
    elif isinstance(record, dict) and _is_entity(record):
        yield from _observations(record)
    else:
        raise InvalidFactError("is neither an entity with observations nor a relation")


def _observations(entity: dict[str, Any]) -> Iterator[Found]:
    name = text_of(entity, "name").strip()
    for observation in entity["observations"]:
        if not isinstance(observation, str):
            raise InvalidFactError("content: an observation must be a text", field="content")
        if not observation.strip():
            yield LeftOut("empty")
        elif name.casefold() in _THE_USER or _is_named(name.casefold(), observation.casefold()):
            yield Statement(observation)
        else:
            yield Statement(f"{name}: {observation}")


def _is_named(name: str, text: str) -> bool:
    """Whether a text names an entity: as a word, since ``Al`` is not meant by "also likes tea"."""
    if not name.isascii():  # there may be no spaces between words
        return name in text
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None
