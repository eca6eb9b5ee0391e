from __future__ import annotations

import csv

import pytest

from tests.sources.source_reading import read, read_pieces


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_names_of_columns(delimiter) -> None:
    rows = [
        ["ID", "Text ", "CATEGORY", "Visibility", "Labels"],
        ["1", "tea", "system", "public", '"[""a, b"", ""c""]"'],
    ]
    found = read("".join(delimiter.join(row) + "\r\n" for row in rows), "facts.csv")
    assert [(fact.content, fact.category, fact.visibility, fact.tags) for fact in found.facts] == [
        ("tea", "system", "public", ("a, b", "c"))
    ]
    assert found.places == ["facts.csv:2"]


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("a", ("a",)),
        ("a;b", ("a", "b")),
        ("a, x | b;c", ("a, x | b", "c")),
        ("a|b", ("a", "b")),
        ("a, b", ("a", "b")),
        ("[draft]; x", ("[draft]", "x")),
        ('["a;b"]', ("a;b",)),
        (" ; ", ()),
        ("", ()),
    ],
)
def test_tags_of_a_cell(cell, tags) -> None:
    quoted = cell.replace('"', '""')
    found = read(f'content,tags\nx,"{quoted}"\n')
    assert found.facts[0].tags == tags


def test_bad_tags_name_the_field_and_keep_the_cells() -> None:
    found = read("content,tags\nx,\"['a', 'b']\"\ny,[1]\n")
    assert [reason.split(": ")[1] for reason in found.reasons] == ["tags", "tags"]
    assert found.records[0] == {"content": "x", "category": "", "visibility": "", "tags": "['a', 'b']"}


def test_a_text_over_several_lines_has_the_place_of_its_first() -> None:
    found = read('content,category\n"a\nb, ""c""\r\nd",work\ne,\n')
    assert found.texts == ['a\nb, "c"\r\nd', "e"]
    assert found.places == ["facts:2", "facts:5"]


def test_too_few_cells_are_empty_and_too_many_are_invalid() -> None:
    found = read("content,category,tags\na\nb,work\nc,work,t,more\nd\n", "x.csv")
    assert found.texts == ["a", "b", "d"]
    assert found.reasons == ["x.csv:4: has 4 cells below 3 columns; quote a text that holds the delimiter"]
    assert found.records == ["c,work,t,more"]


def test_empty_rows_are_skipped() -> None:
    assert read("\n\ncontent,category\n\n,\n , \na,\n").places == ["facts:7"]


def test_excel_may_name_its_delimiter() -> None:
    assert read("sep=;\ncontent;category\na;work\n", "x.csv").facts[0].category == "work"


def test_spaces_after_all_delimiters_belong_to_no_cell() -> None:
    found = read('content, category, visibility\n"a, b", work, public\n', "x.csv")
    assert [(f.content, f.category, f.visibility) for f in found.facts] == [("a, b", "work", "public")]


@pytest.mark.parametrize("data", ["name,age\nbob,3\n", "just one line"])
def test_no_column_for_the_text(data) -> None:
    found = read(data, "x.csv")
    assert found.items == []
    assert found.error is not None
    assert str(found.error).startswith(
        "x.csv:1: no column of the header is called content, text, memory, fact,"
    )
    assert repr(data.splitlines()[0].split(",")[0]) in str(found.error)


def test_a_mapped_column_in_any_case() -> None:
    found = read(
        "Statement,kind,content\na,work,not this\n",
        "x.csv",
        mapping={"content": "statement", "category": "Kind"},
    )
    assert [(fact.content, fact.category) for fact in found.facts] == [("a", "work")]


@pytest.mark.parametrize("mapping", [{"content": "nope"}, {"category": "nope"}])
def test_a_mapped_column_that_is_missing(mapping) -> None:
    found = read("content,kind\na,work\n", "x.csv", mapping=mapping)
    assert found.items == []
    assert "the header has not all columns of the mapping" in str(found.error)


def test_a_stray_quote_swallows_nothing() -> None:
    rows = "".join(f"fact {number},work\n" for number in range(2000))
    found = read(f'content,category\n"stray,work\n{rows}')
    assert found.texts == [f"fact {number}" for number in range(2000)]
    assert found.reasons == [
        "facts:2: a quote opens here and does not close within 512 lines; close it, or write it twice"
    ]
    assert found.places[-1] == "facts:2002"


def test_a_stray_quote_near_the_end_swallows_nothing() -> None:
    found = read('content,category\na,work\n"stray,work\nb,work\nc,work\n')
    assert found.texts == ["a", "b", "c"]
    assert "never closes" in found.reasons[0]


def test_a_stray_quote_before_quoted_rows_swallows_nothing() -> None:
    found = read('content,category\n"stray,work\nb,work\n"c, d",work\n')
    assert found.texts == ["b", "c, d"]
    assert "closes in the middle" in found.reasons[0]


def test_a_stray_quote_that_a_later_one_closes_swallows_nothing() -> None:
    found = read('content,category\n"stray,work\nb,work\nc",work,x\nd,work\n')
    assert found.texts == ["b", "d"]
    assert found.places == ["facts:2", "facts:3", "facts:4", "facts:5"]


def test_pieces_of_a_broken_row_are_no_facts() -> None:
    found = read('content,category\n"a long text\nover two lines" oops,work\nb,work\nc\n')
    assert found.texts == ["b", "c"]
    assert "is a piece of the broken row above it" in found.reasons[1]


def test_a_quote_inside_of_a_cell_is_just_a_quote() -> None:
    assert read('content,category\n5" nails,work\n').texts == ['5" nails']


def test_damage_stays_in_its_row() -> None:
    found = read(b'content,category\na,\ncaf\xe9,\nn\0l,\n"x\ny\xff",\nb,\n')
    assert found.texts == ["a", "b"]
    assert [reason.split(":")[1] for reason in found.reasons] == ["3", "4", "5"]
    assert "byte 0xe9 at position 4" in found.reasons[0]
    assert "NUL" in found.reasons[1]


def test_damage_is_told_before_what_the_table_makes_of_it() -> None:
    found = read(b'content,category\n"\xff,\nb,\n', wanted="csv")
    assert found.texts == ["b"]
    assert "not UTF-8" in found.reasons[0]


def test_a_huge_cell_is_invalid() -> None:
    huge = "x" * (csv.field_size_limit() + 1)
    found = read(f"content,category\n{huge},work\nb,work\n")
    assert found.texts == ["b"]
    assert "field larger than field limit" in found.reasons[0]
    assert len(str(found.records[0])) < 10_000


def test_tables_may_be_torn_anywhere_between_chunks() -> None:
    data = b'content,category\r\n"a\nb",work\r\n"stray,work\r\nc,\xc3\xa9\n'
    whole = read(data)
    assert whole.texts == ["a\nb", "c"]
    for at in range(len(data)):
        assert read_pieces([data[:at], data[at:]]).told == whole.told


def test_a_header_beyond_all_bounds() -> None:
    found = read("x" * (csv.field_size_limit() + 1) + ",content\na,b\n", "x.csv")
    assert found.items == []
    assert "no column of the header" in str(found.error)
    assert len(str(found.error)) < 1000
