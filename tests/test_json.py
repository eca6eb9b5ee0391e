"""JSON with orjson and without: what a program must be able to rely on holds for both."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async._api import json as _json
from tests.naming import stable_id

LOADS = [_json._orjson_loads, _json._std_loads]
DUMPS: list[Callable[[Any], bytes]] = [_json.dumps, _json.dumps_checked]
both_loads = pytest.mark.parametrize(
    "loads", [pytest.param(LOADS[0], marks=pytest.mark.extras), LOADS[1]], ids=["orjson", "standard"]
)

sound = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | sound,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(sound, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.extras
@given(values)
@example([-0.0, 1, 1.0, "ß\u2028\x00", {"": None}])
def test_what_is_written_reads_as_it_was(value: Any) -> None:
    try:
        written = _json.dumps(value)
    except _json.JSONError:
        assert "inf" in repr(value)
        return
    for loads in LOADS:
        assert repr(loads(written)) == repr(value)
        assert repr(loads(written.decode())) == repr(value)


@pytest.mark.extras
@given(
    st.binary(max_size=40)
    | st.text(st.sampled_from('[]{}:,"\\ud80019.eE+-ntrfaul \n\t\x00\ufeff'), max_size=20)
)
@example(b"\xff")
@example(b"\xed\xa0\x80")
@example(b'"\xc0\xaf"')
@example(b"\xef\xbb\xbf[]")
@example('"\\ud83d\\ude00"')
@example('{"a": "\\uDEAD"}')
@example("[NaN, Infinity, -Infinity]")
@example('"\x1f"')
@example("[1,]")
@example("")
@example("1 2")
@example('{"a": ["b", 1.5]}')  # certainly the same
def test_both_read_the_same_and_refuse_the_same(text: bytes | str) -> None:
    read = []
    for loads in LOADS:
        try:
            read.append(repr(loads(text)))
        except _json.JSONError:
            read.append("refused")
    # A number so long or so large is the one thing in which they differ.
    if "inf" not in read[1] and not any(part.isdigit() for part in read[1].split() if len(part) > 18):
        assert read[0] == read[1]


@both_loads
@pytest.mark.parametrize("text", ['{"id": "\\ud800"}', '[{"\\uDFFF": 1}]', '"\\uD83D x"', '"\ud800"'])
def test_no_half_surrogate_pair_is_read(loads: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(_json.JSONError):
        loads(text)


@both_loads
@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_no_number_is_read_that_is_none(loads: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(_json.JSONError):
        loads(text)


@both_loads
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff\xfe", "not JSON"),
        ("secret", "line 1, column 1"),
        ('{"secret": \n secret}', "line 2, column"),
        ("9" * 5000, "not JSON"),
        ('"secret \\ud800"', "not JSON"),
        ('["secret", NaN]', "not JSON|NaN"),
        ('["secret",' * 100_000, "deep|line 1, column"),
        ("[" * 100_000, "deep|line 1, column"),
        ('{"a":' * 100_000, "deep|line 1, column"),
    ],
    ids=stable_id,
)
def test_a_refusal_says_where_and_never_what(
    loads: Callable[[Any], Any], text: bytes | str, words: str
) -> None:
    with pytest.raises(_json.JSONError, match=words) as caught:
        loads(text)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"secret"}, "set"),
        (b"secret", "bytes"),
        (datetime(2026, 1, 1, tzinfo=UTC), "datetime"),
        (UUID(int=0), "UUID"),
        (object(), "object"),
        ({("secret",): 1}, "tuple"),
        (math.nan, "NaN"),
        ([-math.inf], "infinity"),
        ("secret \ud800", "surrogate"),
        ({"secret \udfff": 1}, "surrogate"),
    ],
    ids=stable_id,
)
def test_what_is_no_json_is_refused_without_showing_it(value: Any, words: str) -> None:
    with pytest.raises(_json.JSONError, match=words) as caught:
        _json.dumps([value])
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_something_without_an_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(_json.JSONError):
            _json.dumps(value)


@given(st.dictionaries(sound, sound | st.none() | st.tuples(sound), max_size=4))
def test_what_was_checked_before_means_the_same(value: Any) -> None:
    # Not the same bytes: without orjson, escapes are written, which takes less time.
    assert json.loads(_json.dumps_checked(value)) == json.loads(_json.dumps(value))


def test_json_is_written_compact_as_utf8() -> None:
    assert _json.dumps({"a": [1, True, None], "ß": ("\u2028\x00", 1.5)}) == (
        '{"a":[1,true,null],"ß":["\u2028\\u0000",1.5]}'.encode()
    )


@pytest.mark.parametrize("dumps", DUMPS)
def test_json_is_written_compact(dumps: Callable[[Any], bytes]) -> None:
    written = dumps({"a": [1, True, None], "ß": ("\u2028\x00", 1.5)})
    assert written.startswith(b'{"a":[1,true,null],')
    assert b" " not in written
    assert json.loads(written) == {"a": [1, True, None], "ß": ["\u2028\x00", 1.5]}


def test_without_orjson_the_standard_library_does_it() -> None:
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from omi_async._api import json as _json\n"
        "assert not _json.FAST\n"
        "assert _json.loads is _json._std_loads\n"
        "for dumps in _json.dumps, _json.dumps_checked:\n"
        "    assert _json.loads(dumps(['\u00e9', ('\U0001f600', {})])) == ['\u00e9', ['\U0001f600', {}]]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.extras
def test_with_orjson_orjson_does_it() -> None:
    assert _json.FAST
    assert _json.loads is LOADS[0]
    assert _json.dumps_checked is not _json.dumps


@both_loads
def test_the_standard_librarys_own_dialect_is_read(loads: Callable[[bytes | str], Any]) -> None:
    # Catches: our own decoder, if it refuses what every other program writes.
    text = json.dumps({"text": "é\u2028\U0001f600", "n": [1, 2.5, -3e-7, True, None]}, indent=1)
    assert loads(text) == json.loads(text)
