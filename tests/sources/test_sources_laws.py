"""What holds for any facts and any bytes."""

from __future__ import annotations

import gzip
import json
from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import Fact
from omi_async._formats import Format
from omi_async.sources.writing import writer_for
from tests.sources.source_reading import read, read_pieces

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=10)
FACTS = st.lists(
    st.builds(
        Fact,
        TEXT.filter(str.strip),
        category=st.none() | WORDS,
        visibility=st.sampled_from(["private", "public"]),
        tags=st.lists(TEXT, max_size=3),
    ),
    max_size=8,
)


def without_nul(facts: list[Fact]) -> bool:
    return all("\0" not in part for fact in facts for part in (fact.content, *fact.tags))


@given(FACTS)
def test_json_lines_come_back(facts) -> None:
    writer = writer_for("jsonl")
    assert read("".join(f"{writer.line_of(fact)}\n" for fact in facts)).items == facts


@given(FACTS, st.booleans(), st.sampled_from([None, 2]))
def test_json_documents_come_back(facts, wrapped, indent) -> None:
    records = [json.loads(writer_for("jsonl").line_of(fact)) for fact in facts]
    document = {"n": 1, "memories": records} if wrapped else records
    for ascii_only in (True, False):
        found = read(json.dumps(document, indent=indent, ensure_ascii=ascii_only), "facts.json")
        assert (found.items, found.error) == (facts, None)


@given(FACTS.filter(without_nul))
@example([Fact("a\rb")])
def test_tables_come_back(facts) -> None:
    writer = writer_for("csv")
    lines = [writer.header or "", *map(writer.line_of, facts)]
    assert read("".join(f"{line}\n" for line in lines)).items == facts


@given(FACTS.filter(without_nul))
def test_markdown_keeps_every_text(facts) -> None:
    writer = writer_for("markdown")
    data = "".join(f"{writer.line_of(fact)}\n" for fact in facts)
    assert read(data, wanted="markdown").texts == [fact.content for fact in facts]


@given(st.binary(max_size=200), st.sampled_from(get_args(Format)), st.integers(0, 200))
@example(b"a\nb\n", "text", 1)  # certainly without an error
def test_any_bytes_are_facts_or_outcomes_or_a_source_error(data, wanted, at) -> None:
    whole = read(data, "x", wanted)
    assert [outcome.index for outcome in whole.invalid] == [
        index for index, item in enumerate(whole.items) if not isinstance(item, Fact)
    ]
    if not whole.error:
        assert read(gzip.compress(data), "x", wanted).told == whole.told
        assert read_pieces([data[:at], data[at:]], "x", wanted).facts is not None


BAD_LINE = st.binary(min_size=1, max_size=60).filter(lambda line: not {10, 13, 26} & set(line))


@given(BAD_LINE, st.integers(1, 5), st.integers(1, 5))
def test_no_bad_line_loses_the_json_lines_around_it(bad, before, after) -> None:
    good = [f"good {number}" for number in range(before + after)]
    lines = [json.dumps({"content": text}).encode() for text in good]
    data = b"\n".join([*lines[:before], bad, *lines[before:]])
    found = read(data)
    assert [text for text in found.texts if text in good] == good
    assert len(found.items) == len(good) + bool(bad.strip())


@given(BAD_LINE, st.integers(1, 5), st.integers(0, 5))
@example(b'"', 1, 2)
@example(b'x,"', 1, 2)
def test_no_bad_row_loses_the_rows_around_it(bad, before, after) -> None:
    good = [f"good {number}" for number in range(before + after)]
    rows = [f"{text},work".encode() for text in good]
    data = b"\n".join([b"content,category", *rows[:before], bad, *rows[before:]])
    found = read(data)
    assert [text for text in found.texts if text in good] == good


@given(BAD_LINE, st.integers(1, 5))
def test_no_bad_line_loses_the_text_around_it(bad, count) -> None:
    good = [f"good {number}" for number in range(count)]
    found = read(b"\n".join([b"first", bad, *map(str.encode, good)]), wanted="text")
    assert found.texts[0] == "first"
    assert found.texts[-count:] == good


HIDES = (b"```", b"~~~", b"<!--", b"%%")
"""What begins something that goes on over the lines below, by the rules of Markdown."""


@given(BAD_LINE.filter(lambda line: not any(mark in line for mark in HIDES)), st.integers(1, 5))
def test_no_bad_line_loses_the_bullets_around_it(bad, count) -> None:
    good = [f"good {number}" for number in range(count)]
    lines = [b"- first", b"", bad, b"", *(f"- {text}".encode() for text in good)]
    found = read(b"\n".join(lines), wanted="markdown")
    assert found.texts[0] == "first"
    assert found.texts[-count:] == good
