"""The wire's JSON to models, by cattrs.

Strict about types, open about values: an unknown category, visibility or field is data; a number in place of
a string is an error that names the field. A list is read more leniently than the answer to a write: one odd
memory must not hide the others, so it is given with what can be read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from cattrs import ClassValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from omi_async.constants import LONGEST_ID, PAGE_LIMIT
from omi_async.errors import ResponseFormatError
from omi_async.key import KeyInfo
from omi_async.memory import FoundMemory, Memory

__all__ = [
    "ReadItems",
    "array_from",
    "format_error",
    "item_from",
    "memories_from",
    "memory_from",
    "read_items",
]

T = TypeVar("T")

PROBLEMS_NAMED: Final = 10

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
    # Without the value itself, which may be private.
    return f"expected {expected}, got {_NAMES.get(type(value), type(value).__name__)}"


# How each field is read. cattrs' own hooks would coerce: null to 'None', "false" to True, 7 to '7'.


def _str(value: Any, _target: Any) -> str:
    if type(value) is not str:
        raise TypeError(_unlike("a string", value))
    return value


def _bool(value: Any, _target: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(_unlike("true or false", value))
    return value


def _str_or_null(value: Any, target: Any) -> str | None:
    return None if value is None else _str(value, target)


def _bool_or_null(value: Any, target: Any) -> bool | None:
    return None if value is None else _bool(value, target)


def _id(value: Any, target: Any) -> str:
    if not _str(value, target):
        raise ValueError("expected an id, got an empty string")
    if len(value) > LONGEST_ID:
        raise ValueError(f"expected an id, got {len(value):,} characters")
    return value  # type: ignore[no-any-return]  # a string, as _str has found


def _visibility(value: Any, target: Any) -> str:
    # The official document allows null here; it means the default.
    return "private" if value is None else _str(value, target)


def _datetime(value: Any, target: Any) -> datetime | None:
    if value is None:
        return None
    try:
        return _aware(datetime.fromisoformat(_str(value, target)))
    except ValueError:
        raise ValueError("expected an ISO 8601 date and time") from None


def _aware(moment: datetime) -> datetime:
    # The service writes UTC; a server that leaves the Z out means the same.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _tags(value: Any, target: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise TypeError(_unlike("an array", value))
    return tuple([_str(tag, target) for tag in value])


def _number(value: Any, _target: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise TypeError(_unlike("a number", value))
    return float(value)


Readers = dict[str, Callable[[Any, Any], Any]]

_MEMORY: Final[Readers] = {
    "id": _id,
    "content": _str,
    "category": _str,
    "visibility": _visibility,
    "tags": _tags,
    "created_at": _datetime,
    "updated_at": _datetime,
    "manually_added": _bool,
    "scoring": _str_or_null,
    "reviewed": _bool,
    "user_review": _bool_or_null,
    "edited": _bool,
}
_FOUND: Final[Readers] = {"id": _id, "content": _str, "category": _str, "relevance_score": _number}
_KEY: Final[Readers] = {
    "id": _id,
    "name": _str,
    "key_prefix": _str,
    # A key of which the service stored none has those of a read-only key: it does not say which.
    "scopes": lambda value, target: () if value is None else _tags(value, target),
    "created_at": _datetime,
    "last_used_at": _datetime,
}


def _make_converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed)
    for kind, readers in ((Memory, _MEMORY), (FoundMemory, _FOUND), (KeyInfo, _KEY)):
        fields: Any = {name: override(struct_hook=hook) for name, hook in readers.items()}
        converter.register_structure_hook(kind, make_dict_structure_fn(kind, converter, **fields))
    return converter


_plain: Final = _make_converter(detailed=False)
"""Says only that something is wrong, and costs half as much: nearly all that a server sends is right."""

_detailed: Final = _make_converter(detailed=True)
"""Reads the same, and names all that is wrong."""


class ReadItems(NamedTuple, Generic[T]):
    """What could be read of an array.

    Attributes:
        whole: those that are as they should be.
        items: these, and the odd ones, each with what can be read of it; in the server's order.
        odd: the ids of the odd ones.
        problems: what is wrong, with its place (``"[3].content: ..."``).
    """

    whole: list[T]
    items: list[T]
    odd: list[str]
    problems: list[str]


MOST_ROWS: Final = 10 * PAGE_LIMIT
"""Elements of an array of memories, at most; more than were asked for is odd, but no harm so far."""


def array_from(value: Any, place: str) -> list[Any]:
    """Return an array of memories as it is, after a look at its type and length."""
    if type(value) is not list:
        raise format_error("the server's answer", [f"{place}: {_unlike('an array', value)}"])
    if len(value) > MOST_ROWS:
        raise format_error("the server's answer", [f"{place}: {len(value):,} elements are too many"])
    return value


def read_items(value: Any, kind: type[T], place: str = "") -> ReadItems[T]:
    """Read an array of memories as far as it can be read. Raises `ResponseFormatError` if it is no array."""
    array_from(value, place or "body")
    try:
        items = [_plain.structure(item, kind) for item in value]
    except Exception:  # noqa: BLE001  # whatever it was, it is found again one by one, with its words
        return _read_one_by_one(value, kind, place)
    return ReadItems(items, items, [], [])


def _read_one_by_one(values: list[Any], kind: type[T], place: str) -> ReadItems[T]:
    read = ReadItems[T]([], [], [], [])
    for index, value in enumerate(values):
        item, problems = _read_leniently(value, kind, f"{place}[{index}]")
        if item is not None:
            read.items.append(item)
            if problems:
                read.odd.append(value["id"])
            else:
                read.whole.append(item)
        read.problems.extend(problems)
    return read


def _read_leniently(value: Any, kind: type[T], place: str) -> tuple[T | None, list[str]]:
    """Return an item with what can be read of it, None if it cannot even be named, and what is wrong."""
    if not isinstance(value, dict):
        return None, [f"{place}: {_unlike('an object', value)}"]
    try:
        return _detailed.structure(value, kind), []
    except ClassValidationError as error:
        lines = transform_error(error, path=place, format_exception=_describe)
        problems = [_place_first(line) for line in lines]
        odd = {note.name for _error, note in error.group_exceptions()[0]}
    if "id" in odd:
        return None, problems
    readable = {name: item for name, item in value.items() if name not in odd}
    return _plain.structure(readable, kind), problems


def _describe(error: BaseException, _kind: type | None) -> str:
    return "is missing" if isinstance(error, KeyError) else str(error)


def _place_first(line: str) -> str:
    """Turn cattrs' "what @ where" around."""
    what, _, place = line.rpartition(" @ ")
    return f"{place}: {what}"


def memory_from(value: Any) -> Memory:
    """Read one memory. Raises `ResponseFormatError` that names each field at fault."""
    return item_from(value, Memory, "memory")


def item_from(value: Any, kind: type[T], place: str) -> T:
    """Read one item. Raises `ResponseFormatError` that names each field at fault."""
    try:
        return _plain.structure(value, kind)
    except Exception:  # noqa: BLE001  # as above
        _item, problems = _read_leniently(value, kind, place)
    raise format_error(f"the {place} that the server returned", problems)


def memories_from(value: Any, place: str = "") -> list[Memory]:
    """Read an array of memories, all of them or none.

    Raises `ResponseFormatError` with every problem, and the good ones of them as its `memories`.
    """
    read = read_items(value, Memory, place)
    if read.problems:
        what = f"{len(value) - len(read.whole)} of {len(value)} memories that the server returned"
        raise format_error(what, read.problems, read.whole)
    return read.items


def format_error(what: str, problems: Sequence[str], memories: Sequence[Memory] = ()) -> ResponseFormatError:
    """Make the error for a success that does not decode."""
    named = "; ".join(problems[:PROBLEMS_NAMED])
    more = f"; and {len(problems) - PROBLEMS_NAMED} more" if len(problems) > PROBLEMS_NAMED else ""
    return ResponseFormatError(f"{what} cannot be read: {named}{more}", problems=problems, memories=memories)
