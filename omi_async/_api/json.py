"""JSON through orjson if it is installed, else through the standard library.

Both refuse, as `JSONError`, what no other program could read back: NaN and infinities, half surrogate pairs,
bytes that are not UTF-8. They differ in what no API says: numbers beyond 64 bits, and how deep is too deep.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

try:
    import orjson
except ImportError:  # the `speed` extra is not installed
    FAST = False
else:
    FAST = True

__all__ = ["FAST", "JSONError", "dumps", "dumps_checked", "loads", "loads_answer"]

MOST_VALUES: Final = 2_000_000
"""Values in an answer, at most. A page of 1,000 memories holds some 20,000, and if its texts are nothing but
commas it seems to hold 520,000; but 32 MiB of ``{},`` would become a gigabyte of dicts."""


class JSONError(ValueError):
    """Not JSON, or nothing that JSON can carry. It says where or why, and never what: the text is private."""


def _refuse_constant(_name: str) -> None:
    raise JSONError("NaN and infinities are no JSON")


_decode: Final = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def dumps(value: Any) -> bytes:
    """Write compact JSON as UTF-8. Raises `JSONError`."""
    # The standard library's, even if orjson is there: that would write NaN as null, and dates as it likes.
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        raise JSONError("a string holds half of a surrogate pair") from None
    except ValueError:
        raise JSONError("NaN, an infinity, or something that holds itself is no JSON") from None
    except TypeError as error:
        raise JSONError(f"no JSON: {error}") from None  # names the type
    except RecursionError:
        raise JSONError("it is nested too deep") from None


_encode_checked: Final = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


def _std_dumps_checked(value: Any) -> bytes:
    return _encode_checked(value).encode()  # with escapes, which is a quarter faster than UTF-8


dumps_checked: Final[Callable[[Any], bytes]] = orjson.dumps if FAST else _std_dumps_checked
"""Write what is known to be strings, lists and dicts of sound text, as `dumps` would, but faster."""


def _orjson_loads(data: bytes | str) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise JSONError(f"not JSON: {_position(error)}") from None


def _std_loads(data: bytes | str) -> Any:
    try:
        text = data if isinstance(data, str) else data.decode()
        value = _decode(text)
    except RecursionError:
        raise JSONError("it is nested too deep") from None
    except JSONError:
        raise
    except ValueError as error:
        raise JSONError(f"not JSON: {_position(error)}") from None
    # In sound text only an escape can make half of a surrogate pair. Half a pair cannot be sent on, stored or
    # printed: better to stop it here, with a place, than to fail wherever it turns up.
    # One byte is found much faster than three, and most answers hold no escape at all.
    if isinstance(data, str) or (b"\\" in data and (b"\\ud" in data or b"\\uD" in data)):
        try:
            _encode(value).encode()
        except UnicodeEncodeError:
            raise JSONError("not JSON: a string holds half of a surrogate pair") from None
        except ValueError:
            pass  # 1e999 is read as an infinity, which is no matter here
    return value


def _position(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):  # orjson's error is one too
        return f"unreadable at line {error.lineno}, column {error.colno}"
    # A number of more digits than Python turns into an int by itself; or what `decode` has refused.
    return "the bytes are not UTF-8" if isinstance(error, UnicodeDecodeError) else "a number is too long"


loads: Final[Callable[[bytes | str], Any]] = _orjson_loads if FAST else _std_loads
"""Read JSON from bytes (UTF-8) or text. Raises `JSONError`."""


def loads_answer(data: bytes) -> Any:
    """Read the JSON of an answer, as `loads` does, unless it would take far more memory than its bytes do."""
    if len(data) > MOST_VALUES and data.count(b",") > MOST_VALUES:
        raise JSONError("it holds more values than any answer of this API")
    return loads(data)
