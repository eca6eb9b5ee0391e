from __future__ import annotations

import pytest

from tests.sources.source_reading import read


def test_a_line_is_a_fact_as_it_is() -> None:
    found = read("I like tea\n\n  # not a heading \nI have two cats, and a dog\r\n", "facts.txt")
    assert found.texts == ["I like tea", "# not a heading", "I have two cats, and a dog"]
    assert found.places == ["facts.txt:1", "facts.txt:3", "facts.txt:4"]


def test_what_makes_a_line_invalid_spoils_no_other() -> None:
    found = read(b"a\ncaf\xe9\nn\0l\n" + b"x" * 501 + b"\nb")
    assert found.texts == ["a", "b"]
    assert [reason.partition(": ")[0] for reason in found.reasons] == ["facts:2", "facts:3", "facts:4"]
    assert found.records[:2] == ["caf\\xe9", "n\0l"]


def test_a_text_of_bullets_is_markdown_unless_told() -> None:
    data = "# Facts\n\n- a\n- b\n"
    assert read(data).texts == ["a", "b"]
    assert read(data, wanted="text").texts == ["# Facts", "- a", "- b"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("- a", "a"),
        ("* a", "a"),
        ("+ a", "a"),
        ("1. a", "a"),
        ("23) a", "a"),
        ("   - a  ", "a"),
        ("- - a", "- a"),
        ("a paragraph", "a paragraph"),
        ("-5 degrees", "-5 degrees"),
        ("*emphasis* counts", "*emphasis* counts"),
        ("[link](to)", "[link](to)"),
        ("#12 is his number", "#12 is his number"),
        ("he writes C# and F#", "he writes C# and F#"),
        ("- one<br>two", "one\ntwo"),
    ],
)
def test_bullets_of_markdown(line, text) -> None:
    assert read(line, wanted="markdown").texts == [text]


@pytest.mark.parametrize(
    "line", ["# a", "###### a", "#", "---", "* * *", "___", "-", "- [ ]", "", "====", " \t"]
)
def test_furniture_of_markdown(line) -> None:
    assert read(f"{line}\n- fact\n", "notes.md").texts == ["fact"]


def test_code_is_skipped() -> None:
    data = "- a\n```python\n- code\n~~~\n```\n- b\n~~~\n```\n~~~~\n- c\n- ```inline``` code\n"
    found = read(data, "notes.md")
    assert found.texts == ["a", "b", "c", "```inline``` code"]


def test_code_without_an_end_is_told() -> None:
    found = read("- a\n```\n- b\n- c\n", "notes.md")
    assert found.texts == ["a"]
    assert found.reasons == [
        "notes.md:2: a code block begins here and never ends; the 2 lines below it were skipped"
    ]


def test_damage_in_markdown_spoils_its_line_only() -> None:
    found = read(b"- a\n- caf\xe9\n- b\n", "notes.md")
    assert found.texts == ["a", "b"]
    assert found.places == ["notes.md:1", "notes.md:2", "notes.md:3"]


@pytest.mark.parametrize("wanted", ["text", "markdown"])
def test_a_mapping_finds_nothing_in_text(wanted) -> None:
    found = read("- a\n", wanted=wanted, mapping={"content": "x"})
    assert found.items == []
    assert "in which a mapping, a template or a filter finds no keys or columns" in str(found.error)
