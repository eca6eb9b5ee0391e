from __future__ import annotations

import json

import pytest

from omi_async.sources._records import LONGEST
from tests.sources.source_reading import read, read_pieces


def test_a_list_with_the_line_of_each_element() -> None:
    found = read('[\n  {"content": "a"},\n  "b", {\n "text": "c"}\n]\n', "facts.json")
    assert found.texts == ["a", "b", "c"]
    assert found.places == ["facts.json:2", "facts.json:3", "facts.json:3"]


@pytest.mark.parametrize("key", ["memories", "results", "facts", "items", "data"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_inside_of_an_object(key, indent) -> None:
    document = {"total": 2, "page": {"next": None}, key: [{"memory": "a"}, {"memory": "b"}], "more": [1]}
    found = read(json.dumps(document, indent=indent))
    assert found.texts == ["a", "b"]
    assert found.invalid == []


def test_one_object_laid_out_over_lines_is_one_fact() -> None:
    found = read(json.dumps({"content": "a", "items": [1], "tags": ["t"]}, indent=2))
    assert [(fact.content, fact.tags, fact.origin) for fact in found.facts] == [("a", ("t",), "facts:1")]


def test_objects_one_after_the_other_as_jq_prints_them() -> None:
    data = "".join(json.dumps({"content": text}, indent=2) + "\n" for text in "abc")
    found = read(data + '{"id": 1\n}\n"d"')
    assert found.texts == ["a", "b", "c", "d"]
    assert found.places == ["facts:1", "facts:4", "facts:7", "facts:10", "facts:12"]
    assert found.reasons == ["facts:10: content: is missing"]


def test_a_broken_element_spoils_no_other() -> None:
    found = read(
        '[\n{"content": "a"},\n{"content": tru},\n{"content" "x"},\n{"content": NaN}, {"content": "c"}]'
    )
    assert found.texts == ["a", "c"]
    assert [reason.partition(" not")[0] for reason in found.reasons] == ["facts:3:", "facts:4:", "facts:5:"]
    assert found.records == ['{"content": tru}', '{"content" "x"}', '{"content": NaN}']
    assert found.error is None


def test_commas_too_many_are_forgiven_or_told() -> None:
    assert read('[{"content": "a"},]').texts == ["a"]
    found = read('[{"content": "a"},,{"content": "b"}]')
    assert found.texts == ["a", "b"]
    assert len(found.invalid) == 1


@pytest.mark.parametrize(
    ("tail", "line", "words"),
    [
        ("", 3, "cut short"),
        ('{"content": "b', 3, "cut short"),
        ('{"content": ["b"', 3, "cut short"),
        ('{"content": "b}, \n {"content": "c"}]', 3, "does not end on its line"),
        ('{"content": ["b"}, {"content": "c"}]', 3, "brackets do not match"),
        ('{"content": "b"} {"content": "c"}]', 3, "',' is expected here"),
        ('{"content": "b"}\n', 4, "cut short"),
        ("\n nonsense", 4, "no JSON value begins here"),
    ],
)
def test_beyond_other_damage_nothing_is_guessed(tail, line, words) -> None:
    found = read('[\n{"content": "a"},\n' + tail, "x.json")
    assert found.texts[:1] == ["a"]
    assert found.error is not None
    assert words in str(found.error)
    assert (found.error.name, found.error.line) == ("x.json", line)
    assert str(found.error).startswith(f"x.json:{line}: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"entries": [{"content": "a"}], "n": 1}', "it holds 'entries', 'n'"),
        ("{}", "it holds nothing"),
        ('{"a": 1, 2: 3}', "a key in quotes"),
        ('{"a" 1}', "':' is expected"),
        ('{"a": 1 "b": 2}', "',' is expected"),
        ("]", "closes or follows nothing"),
        ("nonsense", "no JSON value"),
    ],
)
def test_a_document_without_records_says_what_it_holds(data, words) -> None:
    found = read(data, wanted="json")
    assert found.items == []
    assert words in str(found.error)


def test_something_behind_the_list_is_told() -> None:
    found = read('[{"content": "a"}]\n}', "x.json")
    assert found.texts == ["a"]
    assert str(found.error).startswith("x.json:2: '}' closes or follows nothing")


def test_a_broken_value_beside_the_text_makes_the_record_invalid() -> None:
    found = read('{\n"content": "a",\n"id": nope}\n{\n"content": "b"}', wanted="json")
    assert found.texts == ["b"]
    assert found.reasons == ["facts:1: not JSON: Expecting value"]


def test_bad_utf8_spoils_its_element_only() -> None:
    found = read(b'[{"content": "a"},\n{"content": "caf\xe9"},\n{"content": "\xc3\xa9"}]')
    assert found.texts == ["a", "é"]
    assert "facts:2: is not UTF-8: byte 0xe9 after 16 characters" in found.reasons[0]
    assert found.records == ['{"content": "caf\\xe9"}']


def test_half_a_surrogate_pair_spoils_its_element_only() -> None:
    assert read('[{"content": "\\udc00"}, {"content": "b"}]').texts == ["b"]


def test_nesting_without_end_spoils_its_element_only() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    found = read(f'[{{"content": "a", "x": {deep}}}, {{"content": "b"}}]', wanted="json")
    assert found.texts == ["b"]
    assert "nested too deeply" in found.reasons[0]


OPENINGS = ["[", '{"a":', '{"data":[', '[{"content":', '{"content":']


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt", "x.md", "x"])
def test_brackets_that_never_close_are_one_invalid_fact(name: str, opening: str) -> None:
    found = read_pieces([opening.encode() * 100_000], name)
    assert found.error is None
    assert (found.texts, found.places) == ([], [f"{name}:1"])


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("name", ["x.jsonl", "x"])
def test_lines_behind_brackets_that_never_close_are_read(name: str, opening: str) -> None:
    found = read_pieces([opening.encode() * 100_000, b'\n"b"\n{"content": "c"}'], name)
    assert (found.texts, found.error) == (["b", "c"], None)
    assert found.reasons[0].startswith((f"{name}:1: is nested too deeply", f"{name}:1: is longer than"))


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("depth", [501, 1_100, 20_000])
def test_records_around_one_that_is_nested_too_deeply_are_read(depth: int, opening: str) -> None:
    # 501 levels are few enough for every parser, 1,100 for some, 20,000 for none.
    closing = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opening) if mark in "[{")
    deep = f"{opening * depth}1{closing * depth}"
    for form, name in ((f'["a", {deep}, "b"]', "x.json"), (f'"a"\n{deep}\n"b"', "x.jsonl")):
        found = read_pieces([form.encode()], name)
        assert (found.texts, found.error) == (["a", "b"], None)
        assert "is nested too deeply: in more than 500 brackets" in found.reasons[0]


def test_a_value_without_end_says_that_nothing_behind_it_was_read() -> None:
    found = read('{"memories": ["a", ' + "[" * 2_000_000 + ', "b"]}', wanted="json")
    assert (found.texts, found.error) == (["a"], None)
    assert "has no end: what may stand behind it was not read" in found.reasons[0]


def test_a_record_beyond_all_bounds_ends_the_reading() -> None:
    pieces = [b'[{"content": "a"},\n{"content": "', *[b"x" * 100_000] * 20, b'"}]']
    found = read_pieces(pieces, "x.json")
    assert found.texts == ["a"]
    assert str(found.error) == f"x.json:2: a record of more than {LONGEST:,} characters; a fact has 500"


def test_an_object_of_very_many_keys_is_not_kept() -> None:
    pieces = [b'{"content": "a"', *[b', "k": "' + b"x" * 1000 + b'"'] * 1100, b"}"]
    found = read_pieces(pieces, wanted="json")
    assert found.items == []
    assert "neither a record" in str(found.error)


def test_documents_may_be_torn_anywhere_between_chunks() -> None:
    data = '{"total": 1.5, "memories": [\n{"content": "é"}, "b",\n{"content": tru}, 12.5e1 ,[]]}\n'.encode()
    whole = read(data)
    assert whole.texts == ["é", "b"]
    assert len(whole.invalid) == 3
    for at in range(len(data)):
        assert read_pieces([data[:at], data[at:]]).told == whole.told
    assert read_pieces([bytes([byte]) for byte in data]).told == whole.told
