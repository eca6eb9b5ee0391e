"""Two implementations of JSON, side by side: what one does, the other does."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async._api import json as _json
from tests.naming import stable_id

LOADS = [_json._orjson_loads, _json._std_loads]
LOADS_STRINGS = [_json._orjson_loads_strings, _json._std_loads_strings]
DUMPS = [_json._orjson_dumps, _json._std_dumps]
both_loads = pytest.mark.parametrize(
    "loads", [pytest.param(LOADS[0], marks=pytest.mark.extras), LOADS[1]], ids=["orjson", "standard"]
)
both_dumps = pytest.mark.parametrize(
    "dumps", [pytest.param(DUMPS[0], marks=pytest.mark.extras), DUMPS[1]], ids=["orjson", "standard"]
)

REFUSED = object()

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63 - 2, max_value=2**64 + 2)
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def result(function: Callable[[Any], Any], given: Any) -> Any:
    """What a function makes of something, in a form that compares also 1 with 1.0, and -0.0 with 0.0."""
    try:
        return repr(function(given))
    except _json.JSONError:
        return REFUSED


@pytest.mark.extras
@given(values)
@example("\ud800")
@example({"\udfff": 1})
@example({1: 2})
@example([math.nan])
@example(-math.inf)
@example(2**64 - 1)
@example(2**64)
@example(-(2**63) - 1)
@example(2.0**63)
def test_both_write_the_same_and_refuse_the_same(value: Any):
    def written_by(dumps: Callable[[Any], bytes]) -> Any:
        return result(lambda given: json.loads(dumps(given)), value)

    assert written_by(DUMPS[0]) == written_by(DUMPS[1])


@pytest.mark.extras
@given(values)
def test_what_is_written_reads_as_it_was(value: Any):
    try:
        written = _json.dumps(value)
    except _json.JSONError:
        return
    for loads in LOADS:
        assert loads(written) == json.loads(json.dumps(value))


@pytest.mark.extras
@given(
    st.binary(max_size=40)
    | st.text(st.sampled_from('[]{}:,"\\ud80019.eE+-ntrfaul \n\t\x00\ufeff'), max_size=30)
)
@example(b"\xff")
@example(b"\xed\xa0\x80")
@example(b'"\xc0\xaf"')
@example("\ufeff[]")
@example(b"\xef\xbb\xbf[]")
@example('"\\ud800"')
@example('"\\ud83d\\ude00"')
@example('{"a": "\\ud800", "a": 1}')
@example('{"a": {"\\ud800": 1}, "a": 1}')
@example('{"a": 1e999, "a": 1}')
@example('{"a": 123456789012345678901234567890, "a": 1}')
@example('{"a": [1], "a": 1, "b": {}}')
@example('{"a": %s, "a": 1}' % ("9" * 400))
@example('{"a": %s, "a": 1}' % ("9" * 5000))
@example("1e999")
@example("-0")
@example("1e-999")
@example("9" * 5000)
@example("9" * 300)
@example("-" + "9" * 20)
@example("18446744073709551615")
@example("18446744073709551616")
@example("-9223372036854775808")
@example("-9223372036854775809")
@example("9223372036854775807.5")
@example("NaN")
@example("[Infinity, -Infinity]")
@example('"\x00"')
@example('"\x1f"')
@example('"\x7f\u2028\u2029"')
@example("[1,]")
@example("")
@example("1 2")
@example("\x0c1")
@example("[" * 201 + "]" * 201)
@example("[" * 202 + "]" * 202)
@example("[" * 100_000)
@example('{"a":' * 100_000)
def test_both_read_the_same_and_refuse_the_same(text: bytes | str):
    assert result(LOADS[0], text) == result(LOADS[1], text)


@pytest.mark.extras
@given(values)
def test_both_read_the_same_of_what_anybody_writes(value: Any):
    try:
        text = json.dumps(value)  # ASCII, with NaN and numbers of any length
    except ValueError:
        return
    assert result(LOADS[0], text) == result(LOADS[1], text)


def without_numbers(value: Any) -> Any:
    match value:
        case dict():
            return {key: without_numbers(item) for key, item in value.items()}
        case list():
            return [without_numbers(item) for item in value]
        case int() | float() if not isinstance(value, bool):
            return 0
        case _:
            return value


def read_without_numbers(loads: Callable[[Any], Any], text: str) -> Any:
    return result(lambda given: without_numbers(loads(given)), text)


@pytest.mark.extras
@given(values)
@example(["\ud83d", "\ud83d\ude00", "\\ud800", "\\"])
@example({"\udfff": {"\ud800": 1}})
@example([2**64, -(2**63) - 1, 1e19])
@example([math.nan])
@example([-math.inf])
@example({"a": ["b", 1]})  # certainly not refused
def test_what_is_read_for_its_strings_is_refused_for_its_strings_alone(value: Any):
    for text in (json.dumps(value, skipkeys=True), json.dumps(value, skipkeys=True, ensure_ascii=False)):
        found = [read_without_numbers(loads, text) for loads in LOADS_STRINGS]
        assert found[0] == found[1]
        strict = read_without_numbers(_json.loads, text)
        if strict is not REFUSED:
            assert found[0] == strict


@pytest.mark.parametrize(
    "text", ['{"id": "\\ud800"}', '[{"\\uDFFF": 1}]', '{"a": "\\udead", "a": 1}', "[NaN]", '"\ud800"']
)
@pytest.mark.parametrize(
    "loads", [pytest.param(LOADS_STRINGS[0], marks=pytest.mark.extras), LOADS_STRINGS[1]]
)
def test_no_half_surrogate_pair_is_read(loads: Callable[[Any], Any], text: str):
    with pytest.raises(_json.JSONError):
        loads(text)


@both_loads
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff\xfe", "not JSON"),
        ("secret", "line 1, column 1"),
        ('{"secret": \n secret}', "line 2, column"),
        ('{"secret": 123456789012345678901}', "64 bits"),
        ("9" * 5000, r"64 bits|line 1, column 1"),
        ('"secret \\ud800"', "not JSON|surrogate"),
        ('["secret", NaN]', "not JSON|NaN"),
        ("[" * 1000 + '"secret"' + "]" * 1000, "200 levels"),
    ],
)
def test_a_refusal_says_where_and_never_what(loads: Callable[[Any], Any], text: bytes | str, words: str):
    with pytest.raises(_json.JSONError, match=words) as caught:
        loads(text)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    ONE = 1


class Pair(NamedTuple):
    left: str


class Text(str):
    __slots__ = ()


@both_dumps
@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(secret=1),
        {1: "secret"},
        {None: "secret"},
        {Text("secret"): {2: 3}},
        Text("secret"),
        Colour.RED,
        Level.ONE,
        Pair("secret"),
        {"secret"},
        b"secret",
        datetime(2026, 1, 1, tzinfo=UTC),
        UUID(int=0),
        object(),
        math.nan,
        [math.inf],
        2**64,
        1e19,
        "secret \ud800",
    ],
    ids=stable_id,
)
def test_what_is_no_json_is_refused_without_showing_it(dumps: Callable[[Any], bytes], value: Any):
    with pytest.raises(_json.JSONError) as caught:
        dumps([value])
    assert "secret" not in str(caught.value)


@both_dumps
def test_something_that_holds_itself_is_refused(dumps: Callable[[Any], bytes]):
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(_json.JSONError, match="200 levels"):
        dumps(endless)


sound = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(sound, sound | st.none() | st.tuples(sound), max_size=4))
def test_what_was_checked_before_is_written_the_same(value: Any):
    written = _json.dumps_checked(value)
    assert written == _json._std_dumps_checked(value) == _json.dumps(value)


@both_dumps
def test_json_is_written_compact_as_utf8(dumps: Callable[[Any], bytes]):
    assert dumps({"a": [1, True, None], "ß": ("\u2028\x00", 1.5)}) == (
        '{"a":[1,true,null],"ß":["\u2028\\u0000",1.5]}'.encode()
    )


def test_without_orjson_the_standard_library_does_it():
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from omi_async._api import json as _json\n"
        "assert not _json.FAST\n"
        "assert _json.loads is _json._std_loads and _json.dumps is _json._std_dumps\n"
        "assert _json.loads(_json.dumps({'a': 1})) == {'a': 1}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.extras
def test_with_orjson_orjson_does_it():
    assert _json.FAST
    assert _json.loads is LOADS[0]
    assert _json.dumps is DUMPS[0]
