from __future__ import annotations

import json

import pytest

from omi_async.sources import open_facts
from tests.sources.source_reading import read


def line(**record: object) -> str:
    return json.dumps(record) + "\n"


@pytest.mark.parametrize("key", ["content", "text", "memory", "fact", "body", "note", "value"])
def test_the_text_goes_by_many_names(key) -> None:
    assert read(line(**{key: "tea", "id": 7})).texts == ["tea"]


def test_content_wins_and_null_is_absent() -> None:
    assert read(line(memory="b", content="a")).texts == ["a"]
    assert read(line(memory="b", content=None)).texts == ["b"]


def test_an_empty_text_is_no_reason_to_look_further() -> None:
    found = read(line(memory="b", content=""))
    assert found.reasons == ["facts:1: content: is empty"]
    assert found.records == [{"memory": "b", "content": ""}]


def test_a_record_without_a_text_says_so() -> None:
    assert read(line(id=1), wanted="jsonl").reasons == ["facts:1: content: is missing"]
    found = read(line(id=1), wanted="jsonl", mapping={"content": "x.y"})
    assert found.reasons == ["facts:1: content: no 'x.y' in the record"]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"content": 5}, "content"),
        ({"content": ["a"]}, "content"),
        ({"content": "a", "category": 5}, "category"),
        ({"content": "a", "category": "two words"}, "category"),
        ({"content": "a", "tags": "x"}, "tags"),
        ({"content": "a", "tags": {"x": 1}}, "tags"),
        ({"content": "a", "tags": [1]}, "tags"),
        ({"content": "a", "visibility": True}, "visibility"),
        ({"content": "a", "visibility": ["public"]}, "visibility"),
        ({"content": "a", "visibility": 0}, "visibility"),
    ],
)
def test_other_types_are_invalid_and_name_the_field(record, field) -> None:
    (outcome,) = read(line(**record), wanted="jsonl").invalid
    assert outcome.error is not None
    assert str(outcome.error).startswith(f"{field}:")
    assert getattr(outcome.error, "field", None) == field


@pytest.mark.parametrize("word", ["Public", "PUBLIC", " public", "public ", "yes", "shared", "Private"])
def test_no_other_word_is_public_or_private(word) -> None:
    for found in (
        read(line(content="a", visibility=word)),
        read(f"content,visibility\na,{word}\n"),
    ):
        assert found.facts == []
        assert "visibility: must be exactly" in found.reasons[0]


def test_an_empty_visibility_is_private() -> None:
    for value in (None, ""):
        assert read(line(content="a", visibility=value)).facts[0].visibility == "private"
    assert read("content,visibility\na,\nb,public\nc,private\n").facts[0].visibility == "private"


def test_defaults_are_for_records_that_have_none() -> None:
    defaults = {"category": "system", "visibility": "public", "tags": ["d"]}
    found = read(
        line(content="none", category=None, visibility="", tags=[])
        + line(content="own", category="work", visibility="private", tags=["t"])
        + '"bare"\n',
        defaults=defaults,
    )
    none, own, bare = found.facts
    assert (none.category, none.visibility, none.tags) == ("system", "public", ("d",))
    assert (own.category, own.visibility, own.tags) == ("work", "private", ("t",))
    assert (bare.category, bare.visibility, bare.tags) == ("system", "public", ("d",))


def test_defaults_reach_csv_and_text() -> None:
    defaults = {"category": "system", "visibility": None, "tags": ["d"]}
    for data in ("content,category,tags\na,,\nb,,\n", "a\nb\n", "- a\n- b\n"):
        found = read(data, defaults=defaults)
        assert [(fact.content, fact.category, fact.visibility, fact.tags) for fact in found.facts] == [
            ("a", "system", "private", ("d",)),
            ("b", "system", "private", ("d",)),
        ]


def test_a_mapping_reaches_into_nested_json() -> None:
    found = read(
        line(data={"memory": "a"}, kind="work", content="not this")
        + line(**{"data.memory": "b", "category": "unmapped"})
        + line(data="no object"),
        mapping={"content": "data.memory", "category": "kind"},
    )
    assert [(fact.content, fact.category) for fact in found.facts] == [("a", "work"), ("b", None)]
    assert found.reasons == ["facts:3: content: no 'data.memory' in the record"]


def test_what_is_not_mapped_goes_by_its_usual_names() -> None:
    found = read(line(memory="a", kind="work", tags=["t"]), mapping={"category": "kind"})
    assert (found.facts[0].content, found.facts[0].category, found.facts[0].tags) == ("a", "work", ("t",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mapping": {"text": "content"}}, "mapping: 'text' is no field"),
        ({"mapping": {"content": ""}}, "mapping: 'content' must map to the name"),
        ({"mapping": {"content": 3}}, "mapping: 'content' must map to the name"),
        ({"defaults": {"content": "x"}}, "defaults: 'content' has no default"),
        ({"defaults": {"category": "two words"}}, "defaults: category:"),
        ({"defaults": {"visibility": "Public"}}, "defaults: visibility:"),
        ({"defaults": {"tags": "abc"}}, "defaults: tags:"),
        ({"format": "xml"}, "format must be one of auto, jsonl"),
    ],
)
def test_bad_arguments_fail_at_the_call(arguments, words) -> None:
    with pytest.raises(ValueError, match=words):
        open_facts("never-opened", **arguments)
