"""Markdown: what is a fact in it, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async.sources._inline import escaped, inline, unescaped
from tests.sources.source_reading import read

NOTE = """\
---
title: About me
tags:
  - person
  - "#me"
---

# About me

Some prose that is no fact,
over two lines.

| a | b |
|---|---|
| 1 | 2 |

<!-- a comment
- hidden
-->
%% another %%

[link]: https://example.com

    indented code

- User likes tea
- [ ] buy tea
- [x] bought tea
- Sizes
    - shoes 42
    - jacket in size M
        - but L in winter
- User has two cats:
  - Tom
- long one that
  goes on
- last
"""


def test_a_note() -> None:
    found = read(NOTE, "note.md")
    assert found.texts == [
        "User likes tea",
        "Sizes: shoes 42",
        "Sizes: jacket in size M",
        "Sizes: jacket in size M: but L in winter",
        "User has two cats: Tom",
        "long one that goes on",
        "last",
    ]
    assert {fact.tags for fact in found.facts} == {("person", "me")}
    assert found.skipped == {
        "front matter": 1,
        "prose": 2,
        "table": 3,
        "comment": 2,
        "link definition": 1,
        "code": 1,
        "task": 2,
        "label": 2,
    }
    assert found.places[0] == "note.md:26"


@pytest.mark.parametrize(
    ("front", "tags"),
    [
        ("---\ntags: [a, 'b c']\n---", ("a", "b c")),
        ("---\ntags: a, b\n---", ("a", "b")),
        ("---\ntags:\n- a\n- b\nother: x\n---", ("a", "b")),
        ("---\nother: x\n---", ()),
        ("---\nTags: [\n  a,\n  b\n]\n...", ("a", "b")),
        ('+++\ntags = ["a", "b"]\n+++', ("a", "b")),
    ],
)
def test_tags_of_front_matter(front, tags) -> None:
    for ending in ("- tea", "User likes tea"):
        found = read(f"{front}\n{ending}\n", "a.md")
        assert [fact.tags for fact in found.facts] == [tags]


def test_a_mark_that_never_comes_again_is_a_rule() -> None:
    assert read("---\n- tea\n", "a.md").texts == ["tea"]


def test_without_bullets_each_line_is_a_fact() -> None:
    found = read("Title\n=====\n\nI like tea.\nI like coffee.\n\nSub\n---\nI run.\n", "a.md")
    assert found.texts == ["I like tea.", "I like coffee.", "I run."]


def test_a_remark_below_a_list_is_none_of_it() -> None:
    found = read("- I like tea.\nThat is all.\n- I live in\noslo\n", "a.md")
    assert found.texts == ["I like tea.", "I live in oslo"]
    assert found.skipped == {"prose": 1}


@pytest.mark.parametrize(
    ("line", "text", "tags"),
    [
        ("I am vegetarian #food", "I am vegetarian", ("food",)),
        ("#food #me I eat", "I eat", ("food", "me")),
        ("I eat #rice often", "I eat rice often", ("rice",)),
        ("#12 and C# and a#b", "#12 and C# and a#b", ()),
        ("nested #me/Food_2-x", "nested", ("me/Food_2-x",)),
        ("words #[[two words]]", "words", ("two words",)),
        ("Allergic to [[Nuts|nuts]] ^a1b2", "Allergic to nuts", ()),
        ("See [[Note#Part]] now", "See Note now", ()),
        ("Tea %% really %% here <!-- no -->", "Tea here", ()),
        ("\\#tag and \\[[x]]", "#tag and [[x]]", ()),
        ("one<br>two", "one\ntwo", ()),
    ],
)
def test_marks_inside_of_a_line(line, text, tags) -> None:
    found = read(f"- {line}\n- x\n", "a.md").facts[0]
    assert (found.content, found.tags) == (text, tags)


@pytest.mark.parametrize(
    "line", ["- TODO buy", "- key:: value", "![[picture.png]]", "![](a.png)", "> quoted", "[^1]: note"]
)
def test_what_else_is_no_fact(line) -> None:
    found = read(f"{line}\n- tea\n", "a.md")
    assert found.texts == ["tea"]
    assert sum(found.skipped.values()) == 1


def test_only_below_a_heading() -> None:
    data = "- a\n# One\n- b\n## **Two** ##\n- c\n# Three\n- d\n"
    assert read(data, "a.md", under="one").texts == ["b", "c"]
    found = read(data, "a.md", under=["## Two", "Three"])
    assert found.texts == ["c", "d"]
    assert found.skipped == {"not under the heading": 2}


def test_logseq_tags_a_page() -> None:
    found = read("tags:: [[food]], me\n- I eat rice\n\t- and beans\n\tid:: 0198\n", "a.md")
    assert [(fact.content, fact.tags) for fact in found.facts] == [
        ("I eat rice", ("food", "me")),
        ("I eat rice: and beans", ("food", "me")),
    ]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).map(str.strip)


@given(
    TEXT.filter(bool)
    | st.text("\\#[]!%<->^a1:|`TODO \n", min_size=1, max_size=12).map(str.strip).filter(bool)
)
@example("\\#tag")
@example("\\\\#tag")
@example("#tag")
@example("TODO buy")
@example("\\TODO buy")
@example("2026-01-01 - moved")
@example("a ^b")
@example("key:: value")
def test_a_text_that_is_written_is_read_back(text) -> None:
    assert unescaped(escaped(text)) == text
    assert inline(escaped(text)) == (text, ())
    assert read(f"- {escaped(text)}\n", wanted="markdown").texts == [text]


# A pasted list


def test_a_list_with_talk_around_it() -> None:
    found = read(
        "Here is what I know:\n\n```text\n# Memories\n**Food**\n1. [2025-05-02]. Likes tea\n"
        "  and coffee.\n• [inferred] Owns a cat.\n"
        "\u2013 2024-01-01 - Moved.\n[name] likes rain.\n[x] a task\n```\nAll!\n"
    )
    assert [(fact.content, fact.tags) for fact in found.facts] == [
        ("Likes tea and coffee.", ()),
        ("Owns a cat.", ("inferred",)),
        ("Moved.", ()),
        ("[name] likes rain.", ()),
    ]
    assert found.places[2] == "facts:9 (2024-01-01)"
    assert found.skipped == {"around the list": 2, "heading": 2, "task": 1}


def test_a_list_without_a_code_block() -> None:
    found = read("[2025-05-02] - Likes tea.\n[unknown] - Owns a cat.\nThat is all.\n", "x.txt")
    assert found.texts == ["Likes tea.", "Owns a cat."]
    assert found.skipped == {"around the list": 1}


def test_talk_before_a_list_without_a_code_block_is_no_fact() -> None:
    found = read(
        "Here is all:\n- [2025-05-02] Likes tea\n  and jam.\n- Owns a cat.\n- [unknown] Moved.\nBye!\n",
        "x.txt",
    )
    assert found.texts == ["Likes tea and jam.", "Owns a cat.", "Moved."]
    assert found.places[0] == "x.txt:2 (2025-05-02)"
    assert found.skipped == {"around the list": 2}


def test_one_date_in_a_text_makes_no_list_of_it() -> None:
    lines = ["I like tea", "2025-05-02 - I went home", "I own a cat"]
    assert read("\n".join(lines), "x.txt").texts == lines


def test_an_entry_with_a_heading_behind_it_does_not_go_on_in_it() -> None:
    found = read("```\n[2025-05-02] - Likes tea.\n**Pets**\n[unknown] - Owns\na cat.\n## Work\n```", "x.txt")
    assert found.texts == ["Likes tea.", "Owns a cat."]
    assert found.skipped == {"heading": 2}


def test_code_in_a_text_is_no_fact() -> None:
    found = read("I like tea\n```\nimport os\n```\nI own a cat\n", "x.txt")
    assert found.texts == ["I like tea", "I own a cat"]
    assert found.skipped == {"code": 1}


def test_bullets_of_a_screen_are_bullets() -> None:
    assert read("• Likes tea.\n• Owns a cat.\n", "x.txt").texts == ["Likes tea.", "Owns a cat."]
