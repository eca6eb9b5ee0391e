from __future__ import annotations

import pytest

from omi_async.sources._lines import LONGEST
from tests.sources.source_reading import read, read_pieces


def test_an_object_or_a_string_a_line():
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


def test_a_broken_line_is_one_invalid_outcome_with_its_place_and_its_text():
    found = read('{"content": "a"}\n{"content": "b",}\n{"content": "c"}\n{"content": "cut', "x.jsonl")
    assert found.texts == ["a", "c"]
    assert [outcome.index for outcome in found.invalid] == [1, 3]
    assert [outcome.state for outcome in found.invalid] == ["invalid", "invalid"]
    assert found.reasons[0].startswith("x.jsonl:2: not JSON: unreadable at column ")
    assert found.records == ['{"content": "b",}', '{"content": "cut']


def test_the_last_line_needs_no_end():
    assert read('{"content": "a"}\n{"content": "b"}').texts == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_understood(end):
    found = read(end.join(['{"content": "a"}', "", '{"content": "b"}', ""]))
    assert found.texts == ["a", "b"]
    assert found.places == ["facts:1", "facts:3"]


def test_unicode_line_separators_end_no_record():
    text = "a\u2028b\u2029c\u0085d"
    assert read(f'{{"content": "{text}"}}\n').texts == [text]


def test_only_objects_and_strings_are_facts():
    found = read('[1]\nnull\n3\n1.5\ntrue\n{"content": "x"}\n', wanted="jsonl")
    assert [reason.rpartition("not ")[2] for reason in found.reasons] == [
        "a list",
        "null",
        "a number",
        "a number",
        "true or false",
    ]
    assert found.texts == ["x"]


def test_bad_utf8_spoils_its_line_only_and_says_where():
    found = read(b'{"content": "a"}\n{"content": "caf\xe9"}\n{"content": "c"}\n')
    assert found.texts == ["a", "c"]
    assert "is not UTF-8: byte 0xe9 at position 17 of the line" in found.reasons[0]
    assert found.records == ['{"content": "caf\\xe9"}']


def test_a_nul_spoils_its_line_only():
    found = read(b'{"content": "a\0"}\n{"content": "b"}\n')
    assert found.texts == ["b"]
    assert "NUL character at position 15" in found.reasons[0]


def test_half_a_surrogate_pair_is_invalid():
    found = read('{"content": "\\ud800"}\n{"content": "b"}\n')
    assert found.texts == ["b"]
    assert len(found.invalid) == 1


def test_a_line_beyond_all_bounds_is_invalid_and_not_kept():
    found = read_pieces(
        [b'{"content": "a"}\n"', *[b"x" * 100_000] * 20, b'"\n{"content": "b"}\n'], "big", "jsonl"
    )
    assert found.texts == ["a", "b"]
    assert found.reasons == [f"big:2: is longer than {LONGEST:,} bytes"]
    assert len(str(found.records[0])) < 10_000


def test_a_long_line_in_one_piece_is_invalid_too():
    line = b'{"content": "a", "note": "' + b"x" * LONGEST + b'"}\n'
    assert read_pieces([line, b'"b"\n'], wanted="jsonl").texts == ["b"]


def test_records_may_be_torn_anywhere_between_chunks():
    data = b'{"content": "a"}\n{"content": "b"}\r\n\n"c"'
    whole = read(data)
    for at in range(len(data)):
        assert read_pieces([data[:at], data[at:]]).told == whole.told
    assert read_pieces(bytes([byte]) for byte in data).told == whole.told


def test_a_failures_file_is_read_again():
    found = read(
        '{"content": "a", "category": null, "tags": [], "state": "rejected", "error": "", "origin": "f:7"}\n'
        '{"unreadable": "{\\"content", "state": "invalid", "error": "not JSON", "origin": "f:18"}\n',
        "failures.jsonl",
    )
    assert found.texts == ["a"]
    assert found.facts[0].origin == "failures.jsonl:1"
    assert "could not be read by an earlier import either" in found.reasons[0]
    assert found.records == ['{"content']


def test_an_outcome_holds_no_frames():
    """Failures are kept by the thousand, and a traceback would keep the chunk that they came from."""
    (outcome,) = read('{"content": 1}\n').invalid
    assert outcome.error is not None
    assert (outcome.error.__traceback__, outcome.error.__context__) == (None, None)


def test_an_empty_file_has_no_facts():
    for name in ("a.jsonl", "a.json", "a.csv", "a.txt", "a.md", "a"):
        for data in ("", "\n", " \n\r\n"):
            assert read(data, name).items == []
            assert read(data, name).error is None
