"""The wire's JSON to models and back: one strict cattrs converter.

Strict about types, open about values: an unknown category, visibility or field is data; a number where a
string belongs is an error that says where.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from cattrs import BaseValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from omi_async.errors import ResponseFormatError
from omi_async.models import Memory

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
    """Let null pass; cattrs' own way there takes longer than what is to be read."""

    def read(value: Any, target: Any) -> Any:
        return None if value is None else structure(value, target)

    return read


_str_or_null = _or_null(_exact_str)
_bool_or_null = _or_null(_exact_bool)


def _id(value: Any, target: Any) -> str:
    if type(value) is str and value:
        return value
    _exact_str(value, target)
    raise ValueError("expected an id, got an empty string")


def _visibility(value: Any, target: Any) -> Any:
    # The official document allows null here; it means the default.
    return "private" if value is None else _exact_str(value, target)


def _datetime(value: Any, target: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value if type(value) is str else _exact_str(value, target))
    except ValueError:
        raise ValueError("expected an ISO 8601 date and time") from None
    return moment if moment.tzinfo is not None else _aware(moment)


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


_HOOKS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "id": _id,
    "content": _exact_str,
    "category": _exact_str,
    "visibility": _visibility,
    "tags": _tags,
    "created_at": _datetime,
    "updated_at": _datetime,
    "manually_added": _exact_bool,
    "scoring": _str_or_null,
    "reviewed": _exact_bool,
    "user_review": _bool_or_null,
    "edited": _exact_bool,
}
"""How each field of a memory is read."""

_BLANK: Final = Memory(id="-")
_NO_TAGS: Final[list[str]] = []


def _memory(value: Any, target: Any) -> Memory:
    """Read a memory as cattrs would with these hooks, in two thirds of the time.

    What cattrs generates calls the class with keywords, which is slow; it has its turn where this one fails.
    """
    get = value.get
    memory_id = value["id"]
    content, category = get("content", ""), get("category", _BLANK.category)
    visibility, tags = get("visibility"), get("tags", _NO_TAGS)
    created_at, updated_at = get("created_at"), get("updated_at")
    scoring, user_review = get("scoring"), get("user_review")
    by_hand, reviewed = get("manually_added", False), get("reviewed", False)
    edited = get("edited", False)
    memory = object.__new__(Memory)
    Memory.__init__(
        memory,
        id=_id(memory_id, target),
        content=content if type(content) is str else _exact_str(content, target),
        category=category if type(category) is str else _exact_str(category, target),
        visibility=visibility if type(visibility) is str else _visibility(visibility, target),
        tags=_tags(tags, target) if tags != _NO_TAGS else _BLANK.tags,
        created_at=_datetime(created_at, target),
        updated_at=_datetime(updated_at, target),
        manually_added=by_hand if type(by_hand) is bool else _exact_bool(by_hand, target),
        scoring=scoring if scoring is None else _exact_str(scoring, target),
        reviewed=reviewed if type(reviewed) is bool else _exact_bool(reviewed, target),
        user_review=user_review if user_review is None else _exact_bool(user_review, target),
        edited=edited if type(edited) is bool else _exact_bool(edited, target),
    )
    return memory


def _make_converter(*, detailed_validation: bool) -> Converter:
    converter = Converter(detailed_validation=detailed_validation)
    converter.register_unstructure_hook(datetime, _zulu)
    if detailed_validation:
        fields: Any = {name: override(struct_hook=hook) for name, hook in _HOOKS.items()}
        converter.register_structure_hook(Memory, make_dict_structure_fn(Memory, converter, **fields))
    else:
        converter.register_structure_hook(Memory, _memory)
    return converter


# The terse one is the faster by far; the detailed one is asked only when it has something to explain.
_terse = _make_converter(detailed_validation=False)
_detailed = _make_converter(detailed_validation=True)


def _problems(value: Any, place: str) -> list[str]:
    """Name all that is wrong with one memory."""
    if type(value) is not dict:
        return [f"{place}: {_unlike('an object', value)}"]
    try:
        _detailed.structure(value, Memory)
    except BaseValidationError as error:
        lines = transform_error(error, path=place, format_exception=_describe)
        return [_place_first(line) for line in lines]
    return [f"{place}: cannot be read"]


def _describe(error: BaseException, _kind: type | None) -> str:
    return "is missing" if isinstance(error, KeyError) else str(error)


def _place_first(line: str) -> str:
    """Turn cattrs' "what @ where" around."""
    what, _, where = line.rpartition(" @ ")
    return f"{where}: {what}"


def memory_from(value: Any) -> Memory:
    """Read one memory. Raises `ResponseFormatError` that names each field at fault."""
    memories, problems = _read([value], lambda _index: "memory")
    if problems:
        raise format_error("the memory that the server returned", problems)
    return memories[0]


def memories_from(value: Any, place: str = "") -> list[Memory]:
    """Read an array of memories, all of them or none.

    Raises `ResponseFormatError` with every problem, and the good ones of them as its `memories`.
    """
    if type(value) is not list:
        raise format_error("the server's answer", [f"{place or 'body'}: {_unlike('an array', value)}"])
    memories, problems = _read(value, lambda index: f"{place}[{index}]")
    if problems:
        what = f"{len(value) - len(memories)} of {len(value)} memories that the server returned"
        raise format_error(what, problems, memories)
    return memories


def _read(values: list[Any], place_of: Callable[[int], str]) -> tuple[list[Memory], list[str]]:
    memories: list[Memory] = []
    problems: list[str] = []
    for index, value in enumerate(values):
        try:
            memories.append(_terse.structure(value, Memory))
        except Exception:  # noqa: BLE001  # whatever it was, the detailed converter finds the words
            problems += _problems(value, place_of(index))
    return memories, problems


def format_error(what: str, problems: list[str], memories: list[Memory] | None = None) -> ResponseFormatError:
    """Make the error for a success that does not decode."""
    named = "; ".join(problems[:PROBLEMS_NAMED])
    more = f"; and {len(problems) - PROBLEMS_NAMED} more" if len(problems) > PROBLEMS_NAMED else ""
    return ResponseFormatError(
        f"{what} cannot be read: {named}{more}", problems=problems, memories=memories or ()
    )


def memory_payload(memory: Memory) -> dict[str, Any]:
    """Return a memory as the service itself would show it: dates in ISO 8601 with Z."""
    payload: dict[str, Any] = _terse.unstructure(memory)
    payload["tags"] = list(memory.tags)
    return payload
