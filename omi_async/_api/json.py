"""JSON through orjson where it is installed, through the standard library where not, with one behaviour.

Both refuse what is no interchangeable JSON: NaN and infinities, numbers beyond 64 bits, half surrogate
pairs, bytes that are not UTF-8, keys that are not strings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

try:
    import orjson
except ImportError:  # the `speed` extra is not installed
    FAST = False
else:
    FAST = True

__all__ = ["JSONError", "dumps", "dumps_checked", "loads", "loads_strings"]

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_FLOAT_MAX: Final = 2.0**63
_INT_DIGITS: Final = 20  # a sign and 19 digits, or 20 digits
_NESTING: Final = 200
_TOO_DEEP: Final = f"nested more than {_NESTING} levels deep"
_NO_LIMIT: Final = 10_000  # Python's own recursion limit comes first


class JSONError(ValueError):
    """Not JSON, or JSON that cannot be carried faithfully."""


def _check_int(value: int) -> None:
    if not _INT_MIN <= value <= _INT_MAX:
        raise JSONError("a number is too large: JSON numbers are carried with 64 bits")


def _check_float(value: float) -> None:
    if not math.isfinite(value):
        raise JSONError("NaN and infinities are no JSON")
    if abs(value) >= _FLOAT_MAX:
        # orjson reads an integer beyond 64 bits as such a float; the digits would be lost in silence.
        raise JSONError("a number is too large: JSON numbers are carried with 64 bits")


def _check_str(value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise JSONError("a string holds half of a surrogate pair") from None


def _check_key(value: object) -> None:
    if not isinstance(value, str):
        raise JSONError(f"a key must be a string, not {type(value).__name__}")
    _check_str(value)


Checks = dict[type, Callable[[Any], None] | None]
"""The types that JSON has, exactly; a check of the value where any will not do."""

_ALL: Final[Checks] = {
    int: _check_int,
    float: _check_float,
    str: _check_str,
    bool: None,
    type(None): None,
}
_STRINGS: Final[Checks] = {**_ALL, int: None, float: None}


def _walk(value: Any, checks: Checks, depth: int = 0) -> None:
    if depth > _NESTING:
        raise JSONError(_TOO_DEEP)
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            _check_key(key)
            _step(item, checks, depth)
    elif kind is list or kind is tuple:
        for item in value:
            _step(item, checks, depth)
    else:
        _step(value, checks, depth)


def _step(item: Any, checks: Checks, depth: int) -> None:
    """Check a leaf here, so that the walk calls itself for containers only."""
    kind = type(item)
    if kind is dict or kind is list or kind is tuple:
        _walk(item, checks, depth + 1)
    elif kind not in checks:
        raise JSONError(f"no JSON: {kind.__name__}")
    elif (check := checks[kind]) is not None:
        check(item)


def _check_numbers(value: Any, depth: int = 0) -> None:
    """Check the numbers, and the depth, of what was read from JSON."""
    if depth > _NESTING:
        raise JSONError(_TOO_DEEP)
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is dict or kind is list:
            _check_numbers(item, depth + 1)
        elif kind is int:
            _check_int(item)
        else:
            _check_float(item)


def _orjson_loads_strings(data: bytes | str) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise JSONError(f"not JSON: {_position(error)}") from None


def _orjson_loads(data: bytes | str) -> Any:
    value = _orjson_loads_strings(data)
    _check_numbers([value], -1)
    return value


def _std_loads_strings(data: bytes | str) -> Any:
    try:
        if isinstance(data, str):
            _check_str(data)
        text = data if isinstance(data, str) else data.decode()
        # In sound text, only an escape can make half a surrogate pair.
        if "\\" in text and ("\\ud" in text or "\\uD" in text):
            value = _wary_decode(text)
            _walk(value, _STRINGS, depth=-_NO_LIMIT)
            return value
        return _decode(text)
    except RecursionError:
        raise JSONError(_TOO_DEEP) from None
    except JSONError:
        raise
    except ValueError as error:
        raise JSONError(f"not JSON: {_position(error)}") from None


def _std_loads(data: bytes | str) -> Any:
    value = _std_loads_strings(data)
    _check_numbers([value], -1)
    return value


def _refuse_constant(_name: str) -> None:
    raise JSONError("NaN and infinities are no JSON")


def _parse_int(text: str) -> int | float:
    # Like orjson; int() would also refuse thousands of digits with an error of its own.
    return int(text) if len(text) <= _INT_DIGITS else _parse_float(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JSONError("a number is too large: JSON numbers are carried with 64 bits")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        # The last of equal keys wins. orjson has read the others too, and refused half surrogates in them.
        for _key, item in pairs:
            _walk(item, _STRINGS, depth=-_NO_LIMIT)
    return value


_decode: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_parse_int, parse_float=_parse_float
).decode
_wary_decode: Final = json.JSONDecoder(
    parse_constant=_refuse_constant,
    parse_int=_parse_int,
    parse_float=_parse_float,
    object_pairs_hook=_object,
).decode


def _position(error: ValueError) -> str:
    """Say where, and never what: the text is somebody's."""
    if isinstance(error, json.JSONDecodeError):  # orjson's error is one too
        return f"unreadable at line {error.lineno}, column {error.colno}"
    return "the bytes are not UTF-8"


def _orjson_dumps(value: Any) -> bytes:
    _walk(value, _ALL)
    return orjson.dumps(value)


_encode: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def _std_dumps(value: Any) -> bytes:
    _walk(value, _ALL)
    return _std_dumps_checked(value)


def _std_dumps_checked(value: Any) -> bytes:
    return _encode(value).encode()


loads: Final[Callable[[bytes | str], Any]] = _orjson_loads if FAST else _std_loads
"""Read JSON from bytes (UTF-8) or text. Raises `JSONError`, a `ValueError`, that says where, never what."""

loads_strings: Final[Callable[[bytes | str], Any]] = _orjson_loads_strings if FAST else _std_loads_strings
"""Read JSON for the strings in it: as `loads`, but nobody looks at how long the numbers were, nor how deep
all is nested. Strings are as sound as those of `loads`."""

dumps: Final[Callable[[Any], bytes]] = _orjson_dumps if FAST else _std_dumps
"""Write compact JSON as UTF-8. Raises `JSONError`.

Takes dict, list, tuple, str, int, float, bool and None, and none of their subclasses: of those, the two
implementations would each write something else.
"""

dumps_checked: Final[Callable[[Any], bytes]] = orjson.dumps if FAST else _std_dumps_checked
"""Write what `dumps` would take, without looking whether it is that."""
