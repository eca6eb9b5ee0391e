"""The wire's JSON to models and back: one strict cattrs converter.

Strict about types, open about values: an unknown category, visibility or field is data; a number where a
string belongs is an error that says where. A page is read column by column; what cannot be read so, the
converter reads one by one, and its word is the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final

import attrs
from cattrs import BaseValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from omi_async.errors import ResponseFormatError
from omi_async.memory import Memory, memories_of

__all__ = ["memories_from", "memory_from", "memory_payload"]

PROBLEMS_NAMED: Final = 10


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _target: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(_unlike(_NAMES[kind], value))
        return value

    return check


_NAMES: Final[dict[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _unlike(expected: str, value: Any) -> str:
    return f"expected {expected}, got {_NAMES.get(type(value), type(value).__name__)}"


_exact_str = _exactly(str)
_exact_bool = _exactly(bool)


def _or_null(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def read(value: Any, target: Any) -> Any:
        return None if value is None else structure(value, target)

    return read


_str_or_null = _or_null(_exact_str)
_bool_or_null = _or_null(_exact_bool)


def _id(value: Any, target: Any) -> Any:
    if not _exact_str(value, target):
        raise ValueError("expected an id, got an empty string")
    return value


def _visibility(value: Any, target: Any) -> Any:
    # The official document allows null here; it means the default.
    return "private" if value is None else _exact_str(value, target)


def _datetime(value: Any, target: Any) -> datetime | None:
    if value is None:
        return None
    try:
        return _aware(datetime.fromisoformat(_exact_str(value, target)))
    except ValueError:
        raise ValueError("expected an ISO 8601 date and time") from None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _tags(value: Any, _target: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise TypeError(_unlike("an array", value))
    for tag in value:
        if type(tag) is not str:
            raise TypeError(_unlike("a string", tag))
    return tuple(value)


def _zulu(moment: datetime) -> str:
    moment = _aware(moment)
    with contextlib.suppress(OverflowError):  # at either end of time, the offset stays as it is
        moment = moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


Column = tuple[Any, ...]
"""What one field holds in each memory of a page."""


def _all(*kinds: type) -> Callable[[Column], Column | None]:
    allowed = frozenset(kinds)
    return lambda column: column if allowed.issuperset(map(type, column)) else None


_all_str = _all(str)
_all_bool = _all(bool)
_all_str_or_null = _all(str, type(None))
_all_bool_or_null = _all(bool, type(None))


def _all_ids(column: Column) -> Column | None:
    return column if _all_str(column) and all(column) else None


def _all_tags(column: Column) -> Iterable[tuple[str, ...]] | None:
    if {*map(type, column)} == {list} and {*map(type, chain.from_iterable(column))} <= {str}:
        return map(tuple, column)
    return None


def _all_aware(column: Column) -> list[datetime] | None:
    if not _all_str(column):
        return None
    moments = list(map(datetime.fromisoformat, column))
    return moments if None not in map(_zone, moments) else None


_zone = attrgetter("tzinfo")

ValueReader = Callable[[Any, Any], Any]
ColumnReader = Callable[[Column], Iterable[Any] | None]

_READERS: Final[dict[str, tuple[ValueReader, ColumnReader]]] = {
    "id": (_id, _all_ids),
    "content": (_exact_str, _all_str),
    "category": (_exact_str, _all_str),
    "visibility": (_visibility, _all_str),
    "tags": (_tags, _all_tags),
    "created_at": (_datetime, _all_aware),
    "updated_at": (_datetime, _all_aware),
    "manually_added": (_exact_bool, _all_bool),
    "scoring": (_str_or_null, _all_str_or_null),
    "reviewed": (_exact_bool, _all_bool),
    "user_review": (_bool_or_null, _all_bool_or_null),
    "edited": (_exact_bool, _all_bool),
}
"""How each field of a memory is read: one value, which settles what is valid, and a whole column.

A column with anything unusual in it gives None, or an error: then it has to be read value by value."""

_FIELDS: Final = [field.name for field in attrs.fields(Memory)]
_DEFAULTS: Final[dict[str, Any]] = {
    field.name: field.default for field in attrs.fields(Memory) if field.default is not attrs.NOTHING
} | {"tags": []}
"""What a missing field would hold, as JSON has it; the id has no default."""


def _make_converter() -> Converter:
    converter = Converter()
    converter.register_unstructure_hook(datetime, _zulu)
    fields: Any = {name: override(struct_hook=hook) for name, (hook, _column) in _READERS.items()}
    converter.register_structure_hook(Memory, make_dict_structure_fn(Memory, converter, **fields))
    return converter


_converter: Final = _make_converter()
_row: Final[Callable[[dict[str, Any]], Column]] = itemgetter(*_FIELDS)


def _by_columns(values: list[Any]) -> list[Memory]:
    """Read memories to the same result as `_one_by_one`, faster: the loops over the values run in C.

    Raises any error where it cannot read all of them.
    """
    if {*map(type, values)} != {dict}:
        raise TypeError("not only objects")
    try:
        rows = list(map(_row, values))
    except KeyError:
        rows = [_row(_DEFAULTS | value) for value in values]
    return memories_of(map(_read_column, _FIELDS, zip(*rows, strict=True)), len(rows))


def _read_column(name: str, column: Column) -> Iterable[Any]:
    read_value, read_column = _READERS[name]
    read = read_column(column)
    return read if read is not None else [read_value(value, None) for value in column]


def _one_by_one(values: list[Any], place_of: Callable[[int], str]) -> tuple[list[Memory], list[str]]:
    """Read what can be read, and name all that is wrong with the rest."""
    memories: list[Memory] = []
    problems: list[str] = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            problems.append(f"{place_of(index)}: {_unlike('an object', value)}")
            continue
        try:
            memories.append(_converter.structure(value, Memory))
        except BaseValidationError as error:
            lines = transform_error(error, path=place_of(index), format_exception=_describe)
            problems += map(_place_first, lines)
    return memories, problems


def _describe(error: BaseException, _kind: type | None) -> str:
    return "is missing" if isinstance(error, KeyError) else str(error)


def _place_first(line: str) -> str:
    """Turn cattrs' "what @ where" around."""
    what, _, where = line.rpartition(" @ ")
    return f"{where}: {what}"


def memory_from(value: Any) -> Memory:
    """Read one memory. Raises `ResponseFormatError` that names each field at fault."""
    memories, problems = _one_by_one([value], lambda _index: "memory")
    if problems:
        raise format_error("the memory that the server returned", problems)
    return memories[0]


def memories_from(value: Any, place: str = "") -> list[Memory]:
    """Read an array of memories, all of them or none.

    Raises `ResponseFormatError` with every problem, and the good ones of them as its `memories`.
    """
    if type(value) is not list:
        raise format_error("the server's answer", [f"{place or 'body'}: {_unlike('an array', value)}"])
    try:
        return _by_columns(value)
    except Exception:  # noqa: BLE001  # whatever it was, it is found again one by one, with its words
        memories, problems = _one_by_one(value, lambda index: f"{place}[{index}]")
    if problems:
        what = f"{len(value) - len(memories)} of {len(value)} memories that the server returned"
        raise format_error(what, problems, memories)
    return memories


def format_error(what: str, problems: list[str], memories: list[Memory] | None = None) -> ResponseFormatError:
    """Make the error for a success that does not decode."""
    named = "; ".join(problems[:PROBLEMS_NAMED])
    more = f"; and {len(problems) - PROBLEMS_NAMED} more" if len(problems) > PROBLEMS_NAMED else ""
    return ResponseFormatError(
        f"{what} cannot be read: {named}{more}", problems=problems, memories=memories or ()
    )


def memory_payload(memory: Memory) -> dict[str, Any]:
    """Return a memory as the service itself would show it: dates in ISO 8601 with Z."""
    payload: dict[str, Any] = _converter.unstructure(memory)
    payload["tags"] = list(memory.tags)
    return payload
