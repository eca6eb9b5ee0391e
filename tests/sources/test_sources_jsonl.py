from __future__ import annotations

import json
from itertools import chain
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async.errors import InvalidFactError
from omi_async.importing.report import FactOutcome
from omi_async.sources._jsonl import _taken, read_jsonl
from omi_async.sources._lines import Lines, clean
from omi_async.sources._options import options_from
from omi_async.sources._records import LONGEST, Entry, Reading, Records
from tests.sources.source_reading import read, read_pieces


def test_an_object_or_a_string_a_line() -> None:
    found = read(
        '{"content": " tea ", "category": "system", "visibility": "public", "tags": ["a", "b"]}\n'
        "\n"
        '   \n"plain"\n',
        "facts.jsonl",
    )
    tea, plain = found.facts
    assert (tea.content, tea.category, tea.visibility, tea.tags) == ("tea", "system", "public", ("a", "b"))
    assert (tea.origin, plain.origin) == ("facts.jsonl:1", "facts.jsonl:4")
    assert plain.content == "plain"


def test_a_broken_line_is_one_invalid_outcome_with_its_place_and_its_text() -> None:
    found = read('{"content": "a"}\n{"content": "b",}\n{"content": "c"}\n{"content": "cut', "x.jsonl")
    assert found.texts == ["a", "c"]
    assert [outcome.index for outcome in found.invalid] == [1, 3]
    assert [outcome.state for outcome in found.invalid] == ["invalid", "invalid"]
    assert found.reasons[0].startswith("x.jsonl:2: not JSON: unreadable at column ")
    assert found.records == ['{"content": "b",}', '{"content": "cut']


def test_the_last_line_needs_no_end() -> None:
    assert read('{"content": "a"}\n{"content": "b"}').texts == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_understood(end) -> None:
    found = read(end.join(['{"content": "a"}', "", '{"content": "b"}', ""]))
    assert found.texts == ["a", "b"]
    assert found.places == ["facts:1", "facts:3"]


def test_unicode_line_separators_end_no_record() -> None:
    text = "a\u2028b\u2029c\u0085d"
    assert read(f'{{"content": "{text}"}}\n').texts == [text]


def test_only_objects_and_strings_are_facts() -> None:
    found = read('[1]\nnull\n3\n1.5\ntrue\n{"content": "x"}\n', wanted="jsonl")
    assert [reason.rpartition("not ")[2] for reason in found.reasons] == [
        "a list",
        "null",
        "a number",
        "a number",
        "true or false",
    ]
    assert found.texts == ["x"]


def test_bad_utf8_spoils_its_line_only_and_says_where() -> None:
    found = read(b'{"content": "a"}\n{"content": "caf\xe9"}\n{"content": "c"}\n')
    assert found.texts == ["a", "c"]
    assert "is not UTF-8: byte 0xe9 at position 17 of the line" in found.reasons[0]
    assert found.records == ['{"content": "caf\\xe9"}']


def test_a_nul_spoils_its_line_only() -> None:
    found = read(b'{"content": "a\0"}\n{"content": "b"}\n')
    assert found.texts == ["b"]
    assert "NUL character at position 15" in found.reasons[0]


def test_half_a_surrogate_pair_is_invalid() -> None:
    found = read('{"content": "\\ud800"}\n{"content": "b"}\n')
    assert found.texts == ["b"]
    assert len(found.invalid) == 1


def test_a_line_beyond_all_bounds_is_invalid_and_not_kept() -> None:
    found = read_pieces(
        [b'{"content": "a"}\n"', *[b"x" * 100_000] * 20, b'"\n{"content": "b"}\n'], "big", "jsonl"
    )
    assert found.texts == ["a", "b"]
    assert found.reasons == [f"big:2: is longer than {LONGEST:,} bytes"]
    assert len(str(found.records[0])) < 10_000


def test_a_long_line_in_one_piece_is_invalid_too() -> None:
    line = b'{"content": "a", "note": "' + b"x" * LONGEST + b'"}\n'
    assert read_pieces([line, b'"b"\n'], wanted="jsonl").texts == ["b"]


def test_records_may_be_torn_anywhere_between_chunks() -> None:
    data = b'{"content": "a"}\n{"content": "b"}\r\n\n"c"'
    whole = read(data)
    for at in range(len(data)):
        assert read_pieces([data[:at], data[at:]]).told == whole.told
    assert read_pieces(bytes([byte]) for byte in data).told == whole.told


def test_a_failures_file_is_read_again() -> None:
    found = read(
        '{"content": "a", "category": null, "tags": [], "state": "rejected", "error": "", "origin": "f:7"}\n'
        '{"unreadable": "{\\"content", "state": "invalid", "error": "not JSON", "origin": "f:18"}\n',
        "failures.jsonl",
    )
    assert found.texts == ["a"]
    assert found.facts[0].origin == "failures.jsonl:1"
    assert "could not be read by an earlier import either" in found.reasons[0]
    assert found.records == ['{"content']


def test_an_outcome_holds_no_frames() -> None:
    """Failures are kept by the thousand, and a traceback would keep the chunk that they came from."""
    (outcome,) = read('{"content": 1}\n').invalid
    assert outcome.error is not None
    assert (outcome.error.__traceback__, outcome.error.__context__) == (None, None)


def test_an_empty_file_has_no_facts() -> None:
    for name in ("a.jsonl", "a.json", "a.csv", "a.txt", "a.md", "a"):
        for data in ("", "\n", " \n\r\n"):
            assert read(data, name).items == []
            assert read(data, name).error is None


TEXTS = st.text(max_size=8) | st.sampled_from(["", " ", "public", "private", "\ud800", "x" * 501])
LEAVES = (
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**19, 10**30, 1e30])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
KEYS = ("content", "category", "visibility", "tags", "text", "memory", "id", "data", "data.text")
GOOD = st.fixed_dictionaries(
    {"content": st.text(min_size=1, max_size=8)},
    optional={
        "category": st.sampled_from(["work", "", None]),
        "visibility": st.sampled_from(["public", "private", "", None]),
        "tags": st.none() | st.lists(st.text(max_size=3), max_size=2),
        "id": st.none() | st.booleans() | st.text(max_size=8),
    },
)
RECORDS = GOOD | TEXTS | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4) | VALUES
LINES = st.one_of(
    RECORDS.map(lambda record: json.dumps(record).encode()),
    st.sampled_from([b"", b"\r", b' {"content": "a"} \r', b'{"content": ' + b"[" * 300 + b"]" * 300 + b"}"]),
    st.binary(max_size=8).filter(lambda line: b"\n" not in line),
)
MAPPINGS = st.dictionaries(st.sampled_from(KEYS[:4]), st.sampled_from(KEYS))
DEFAULTS = st.fixed_dictionaries(
    {}, optional={"category": st.just("system"), "visibility": st.just("public"), "tags": st.just(["a"])}
)


def told(items: list[Entry]) -> list[tuple[str, object]]:
    """Everything, in a form in which two readings can be compared: no error equals another."""
    return [(repr(item), repr(record_of(item))) for item in items]


def record_of(item: Entry) -> object:
    error = item.error if isinstance(item, FactOutcome) else None
    return error.record if isinstance(error, InvalidFactError) else None


@given(st.lists(LINES, max_size=6), MAPPINGS, DEFAULTS)
@example([b'{"content": "a", "id": 1}', b'{"content": 1}', b'{"content": "a"}', b"null"], {}, {})
@example([b'{"text": "a", "content": 1e30}'], {"content": "text"}, {})
@example([b'{"data": {"text": "a"}}', b'{"data.text": "a"}'], {"content": "data.text"}, {})
@example([b'"a"', b'"' + b" " * LONGEST + b'a"'], {}, {})
@example([b"\x1a", b"\xef\xbb\xbf"], {}, {})
def test_the_quick_way_makes_what_the_careful_way_makes(
    lines: list[bytes], mapping: dict[str, Any], defaults: dict[str, Any]
) -> None:
    quick, careful = (Records("x", Reading(options_from(mapping, defaults))) for _ in range(2))
    whole = b"".join(line + b"\n" for line in lines)

    batches = list(read_jsonl(Lines([whole], "x"), quick))

    cleaned = enumerate(map(clean, lines), 1)
    expected = [_taken(line, number, careful) for number, line in cleaned if line.strip()]
    assert told(list(chain(*batches))) == told(list(chain(*expected)))
    assert quick.count == careful.count
