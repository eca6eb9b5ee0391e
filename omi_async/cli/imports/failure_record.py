"""A line of the failures file: what `import` reads back as the same fact, and beside it why it failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from omi_async.cli.format import printable
from omi_async.cli.imports.inputs import Inputs
from omi_async.errors import InvalidFactError
from omi_async.fact import Fact
from omi_async.importing.report import FactOutcome
from omi_async.sources._fields import value_at

__all__ = ["failure_record"]


def failure_record(outcome: FactOutcome, inputs: Inputs) -> dict[str, Any]:
    """Return what `import` reads back as the same fact, and beside it why it failed."""
    record = _fact(outcome.fact) if outcome.fact is not None else _raw(outcome, inputs)
    return record | {
        "state": outcome.state,
        "error": str(outcome.error) if outcome.error is not None else outcome.state,
        "origin": None if outcome.origin is None else printable(outcome.origin),
    }


def _fact(fact: Fact) -> dict[str, Any]:
    """Name the visibility always: a private fact must not meet a default of public next time."""
    record: dict[str, Any] = {"content": fact.content}
    if fact.category is not None:
        record["category"] = fact.category
    record["visibility"] = fact.visibility
    if fact.tags:
        record["tags"] = list(fact.tags)
    return record


def _raw(outcome: FactOutcome, inputs: Inputs) -> dict[str, Any]:
    """Return the record that could not become a fact, under the names that `import` knows without --map."""
    source_value = getattr(outcome.error, "record", None)
    if isinstance(source_value, str) and _is_text(source_value, outcome.error):
        source_value = {"content": source_value}
    if not isinstance(source_value, Mapping):
        text = source_value if isinstance(source_value, str) else json.dumps(source_value, default=str)
        return {"unreadable": text}
    record = {str(key): value for key, value in source_value.items()}
    for field, key in inputs.mapping.items():
        if not key:  # taken from nowhere, also the next time
            record.pop(field, None)
        elif field not in record and (value := value_at(record, key)) is not None:
            record[field] = value
            record.pop(key, None)
    defaults = {field: value for field, value in inputs.defaults.items() if value}
    return record | {field: value for field, value in defaults.items() if not record.get(field)}


def _is_text(source_value: str, error: object) -> bool:
    """Return whether a string failed as the text of a fact, and is not a line that could not be read."""
    if not isinstance(error, InvalidFactError) or error.field != "content":
        return False
    try:
        Fact(source_value)
    except InvalidFactError:
        return True
    return False
