"""Tables as people have them: nothing of a row is cut or changed in silence."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.source_reading import read, read_pieces


def test_a_header_with_a_line_break() -> None:
    data = (
        'id,"Content","Category\n(optional)",tags\n1,User drinks oat milk,lifestyle,food\n2,b,habits,sport\n'
    )
    found = read(data, "facts.csv")
    assert [(fact.content, fact.tags) for fact in found.facts] == [
        ("User drinks oat milk", ("food",)),
        ("b", ("sport",)),
    ]
    assert found.places == ["facts.csv:3", "facts.csv:4"]
    for at in range(len(data)):
        assert read_pieces([data[:at].encode(), data[at:].encode()], "facts.csv").texts == found.texts


def test_rows_with_an_empty_cell_too_many() -> None:
    found = read(
        "content,category\nUser drinks oat milk,lifestyle,\nb,habits, ,\nc,habits,more\n", "facts.csv"
    )
    assert found.texts == ["User drinks oat milk", "b"]
    assert "has 3 cells below 2 columns" in found.reasons[0]


def test_spaces_before_a_quoted_cell() -> None:
    found = read('content,tags\n "a, b", "x, y"\nc, "z"\n"d", plain\n"e", "open\n', "facts.csv")
    assert [(fact.content, fact.tags) for fact in found.facts] == [
        ("a, b", ("x", "y")),
        ("c", ("z",)),
        ("d", ("plain",)),
    ]
    assert len(found.invalid) == 1


def test_what_only_files_have_is_no_text() -> None:
    table = "content,category\r\nUser likes tea,lifestyle\r\n"
    joined = f"\ufeff{table}\ufeff{table.replace('tea', 'rain')}\x1a"
    found = read(joined, "facts.csv")
    assert found.texts == ["User likes tea", "User likes rain"]
    assert found.skipped == {"repeated header": 1}
    assert read("a\r\nb\r\n\x1a", "a.txt").texts == ["a", "b"]
    assert read("a\nb\x1a\x1a\0\0", "a.txt").texts == ["a", "b"]
    assert read('{"content": "a"}\r\n\ufeff{"content": "b"}\r\n\x1a', "a.jsonl").texts == ["a", "b"]
    assert read('\ufeff\ufeff[{"content": "a"}]\x1a', "a.json").texts == ["a"]


@pytest.mark.parametrize(
    "header",
    ["content,content", "Text,Note", "content,tags,tags", "labels,text,keywords", "category,text,Category "],
)
def test_two_columns_of_one_use_are_refused(header) -> None:
    found = read(f"{header}\na,b,c\n", "x.csv")
    assert found.items == []
    assert "could be any of the columns" in str(found.error)
    assert "--map" in str(found.error)


def test_the_name_that_the_api_has_settles_it() -> None:
    found = read("note,content,labels,tags\nn,c,l,t\n", "x.csv")
    assert [(fact.content, fact.tags) for fact in found.facts] == [("c", ("t",))]
    assert found.recognised[0].ignored == ("note", "labels")
    assert read("Text,Note\na,b\n", "x.csv", mapping={"content": "note"}).texts == ["b"]


@pytest.mark.parametrize(
    ("name", "mapped"), [("Cafe\u0301", "Caf\u00e9"), ("Stra\u00dfe", "STRASSE"), ("a\n b", "A B")]
)
def test_names_are_equal_however_they_are_written(name, mapped) -> None:
    assert read(f'"{name}",x\na,b\n', "x.csv", mapping={"content": mapped}).texts == ["a"]


def test_a_type_is_no_category() -> None:
    found = read("Key,Type,Note\nA1,journal article,User reads about bees\n", "lib.csv")
    assert [(fact.content, fact.category) for fact in found.facts] == [("User reads about bees", None)]
    assert read('{"content": "a", "type": "x", "kind": "y"}\n').facts[0].category is None


def test_a_bad_category_names_its_column_and_may_be_left_out() -> None:
    data = "Text,Category \na,two words\n"
    (reason,) = read(data, "x.csv").reasons
    assert "it comes from the column 'Category': --map category=" in reason
    assert read(data, "x.csv", mapping={"category": ""}).texts == ["a"]
    (reason,) = read('{"content": "a", "category": "two words"}\n').reasons
    assert "it comes from 'category': --map category=" in reason


@pytest.mark.parametrize("quoted", ['"User likes tea, cake"', '"User says ""hi"""', '"C:\\temp\\new"'])
def test_a_name_decides_about_quoted_lines(quoted) -> None:
    text = quoted[1:-1].replace('""', '"')
    assert read(f"content\n{quoted}\n{quoted}\nplain\n", "x.csv").texts == [text, text, "plain"]
    assert read(f"{quoted}\n{quoted}\nplain\n", "x.txt").texts == [quoted, quoted, "plain"]


def test_a_text_is_no_table_without_a_doubt() -> None:
    for name in ("a.txt", "stdin"):
        found = read(
            "Memory, work\nUser uses vim, mostly\nUser lives in Oslo, Norway\nUser plays chess\n", name
        )
        assert found.items == []
        assert "--format csv or --format text" in str(found.error)
    assert read("id,content\n1,User likes tea\n", "stdin").texts == ["User likes tea"]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\x1a\ufeff"), max_size=20)


@given(st.lists(st.tuples(CELL, CELL), max_size=8), st.sampled_from([",", ";", "\t", "|"]))
def test_no_cell_is_changed(rows, delimiter) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([("content", "x"), *rows])
    found = read(out.getvalue(), "x.csv")
    expected = [text.strip() for text, other in rows if text.strip()]
    assert [text for text in found.texts if text != "content"] == [
        text for text in expected if text != "content"
    ]
    assert found.error is None
