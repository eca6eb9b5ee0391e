"""The wire's JSON to models and back, by cattrs.

Strict about types, open about values: an unknown category, visibility or field is data; a number in the place
of a string is an error that says where. A list is read more leniently than the answer to a write: one odd
memory must not hide the others, so it is given with what can be read of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from cattrs import ClassValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from omi_async.constants import PAGE_LIMIT
from omi_async.errors import ResponseFormatError
from omi_async.memory import Memory

__all__ = ["ReadMemories", "array_from", "memories_from", "memory_from", "memory_payload", "read_memories"]

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
    # The value itself is somebody's, and stands in no message.
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


def _zulu(moment: datetime) -> str:
    moment = _aware(moment)
    with contextlib.suppress(OverflowError):  # at either end of time, the offset stays as it is
        moment = moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


_READERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
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


def _make_converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed)
    converter.register_unstructure_hook(datetime, _zulu)
    fields: Any = {name: override(struct_hook=hook) for name, hook in _READERS.items()}
    converter.register_structure_hook(Memory, make_dict_structure_fn(Memory, converter, **fields))
    return converter


_plain: Final = _make_converter(detailed=False)
"""Says only that something is wrong, and costs half as much: nearly all that a server sends is right."""

_detailed: Final = _make_converter(detailed=True)
"""Reads the same, and names all that is wrong."""


class ReadMemories(NamedTuple):
    """What could be read of an array of memories.

    Attributes:
        whole: those that are as they should be.
        memories: these, and the odd ones, each with what can be read of it; in the server's order.
        odd: the ids of the odd ones.
        problems: what is wrong, with its place (``"[3].content: ..."``).
    """

    whole: list[Memory]
    memories: list[Memory]
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


def read_memories(value: Any, place: str = "") -> ReadMemories:
    """Read an array of memories as far as it can be read. Raises `ResponseFormatError` if it is no array."""
    array_from(value, place or "body")
    try:
        memories = [_plain.structure(item, Memory) for item in value]
    except Exception:  # noqa: BLE001  # whatever it was, it is found again one by one, with its words
        return _read_one_by_one(value, place)
    return ReadMemories(memories, memories, [], [])


def _read_one_by_one(values: list[Any], place: str) -> ReadMemories:
    read = ReadMemories([], [], [], [])
    for index, value in enumerate(values):
        memory, problems = _read_leniently(value, f"{place}[{index}]")
        if memory is not None:
            read.memories.append(memory)
            if problems:
                read.odd.append(memory.id)
            else:
                read.whole.append(memory)
        read.problems.extend(problems)
    return read


def _read_leniently(value: Any, place: str) -> tuple[Memory | None, list[str]]:
    """Return a memory with what can be read of it, None if it cannot even be named, and what is wrong."""
    if not isinstance(value, dict):
        return None, [f"{place}: {_unlike('an object', value)}"]
    try:
        return _detailed.structure(value, Memory), []
    except ClassValidationError as error:
        lines = transform_error(error, path=place, format_exception=_describe)
        problems = [_place_first(line) for line in lines]
        odd = {note.name for _error, note in error.group_exceptions()[0]}
    if "id" in odd:
        return None, problems
    readable = {name: item for name, item in value.items() if name not in odd}
    return _plain.structure(readable, Memory), problems


def _describe(error: BaseException, _kind: type | None) -> str:
    return "is missing" if isinstance(error, KeyError) else str(error)


def _place_first(line: str) -> str:
    """Turn cattrs' "what @ where" around."""
    what, _, where = line.rpartition(" @ ")
    return f"{where}: {what}"


def memory_from(value: Any) -> Memory:
    """Read one memory. Raises `ResponseFormatError` that names each field at fault."""
    try:
        return _plain.structure(value, Memory)
    except Exception:  # noqa: BLE001  # as above
        _memory, problems = _read_leniently(value, "memory")
    raise format_error("the memory that the server returned", problems)


def memories_from(value: Any, place: str = "") -> list[Memory]:
    """Read an array of memories, all of them or none.

    Raises `ResponseFormatError` with every problem, and the good ones of them as its `memories`.
    """
    read = read_memories(value, place)
    if read.problems:
        what = f"{len(value) - len(read.whole)} of {len(value)} memories that the server returned"
        raise format_error(what, read.problems, read.whole)
    return read.memories


def format_error(what: str, problems: Sequence[str], memories: Sequence[Memory] = ()) -> ResponseFormatError:
    """Make the error for a success that does not decode."""
    named = "; ".join(problems[:PROBLEMS_NAMED])
    more = f"; and {len(problems) - PROBLEMS_NAMED} more" if len(problems) > PROBLEMS_NAMED else ""
    return ResponseFormatError(f"{what} cannot be read: {named}{more}", problems=problems, memories=memories)


def memory_payload(memory: Memory) -> dict[str, Any]:
    """Return a memory as the service itself would show it: dates in ISO 8601 with Z."""
    payload: dict[str, Any] = _plain.unstructure(memory)
    payload["tags"] = list(memory.tags)
    return payload
