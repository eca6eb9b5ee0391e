from __future__ import annotations

import pytest

from omi_async.sources._detect import detect, hint_of
from omi_async.sources._options import ReadOptions, options_from
from tests.sources.source_reading import read

JSON_LINES = '{"content": "a"}\n{"content": "b"}\n'


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.jsonl", "jsonl"),
        ("dir.csv/a.NDJSON", "jsonl"),
        ("a.json.gz", "json"),
        ("a.CSV.GZ", "csv"),
        ("a.tsv", "tsv"),
        ("a.b.md", "markdown"),
        ("a.txt", "text"),
        ("a.gz", "auto"),
        ("a.bak", "auto"),
        ("stdin", "auto"),
    ],
)
def test_what_a_name_promises(name, hint) -> None:
    assert hint_of(name) == hint


@pytest.mark.parametrize(
    ("data", "name", "found"),
    [
        (JSON_LINES, "a.txt", "jsonl"),
        (JSON_LINES, "a.json", "jsonl"),
        (JSON_LINES, "a.csv", "jsonl"),
        (JSON_LINES, "a", "jsonl"),
        ('"a"\n"b"\n', "a", "jsonl"),
        ('{"content": "cut\n' + JSON_LINES, "a", "jsonl"),
        ("garbage\n" + JSON_LINES * 2, "a", "jsonl"),
        ('{"content": "cut', "a.jsonl", "jsonl"),
        ("garbage", "a.jsonl", "jsonl"),
        ('[{"content": "a"}]', "a.jsonl", "json"),
        ('{\n"content": "a"\n}', "a.jsonl", "json"),
        ('{"memories": [{"content": "a"}]}', "a.jsonl", "json"),
        ('{"memories": [{"content": "a"}]}', "a", "json"),
        ('{"content": "a", "items": []}\n', "a", "jsonl"),
        ('{"memories": [\n{"content": "a"},\n{"content": "b"}\n]}', "a", "json"),
        ('[\n"a",\n"b"\n]', "a.txt", "json"),
        ("[]", "a", "json"),
        ("[1, 2]", "a.json", "json"),
        ("nonsense", "a.json", "json"),
        ("[ ] a task\nand more", "a", "text"),
        ("{name} likes tea", "a", "text"),
        ('{"Tea"} is in quotes', "a", "text"),
        ("[[Tea]] is what I like\nI have a cat\n", "a.txt", "text"),
        ("[[1984]] is what I read\nI have a cat\n", "a", "text"),
        ("[[me/Tea|Tea]] is what I like\n- I have a cat\n", "a.md", "markdown"),
        ('["Tea"] is what I say\nI have a cat\n', "a.txt", "text"),
        ('["I like tea"]\nThat is all\n', "a.txt", "json"),
        ('[{"content": "a"}] That is all\n', "a.txt", "json"),
        ('["I like tea"]["I have a cat"]', "a.txt", "json"),
        ('"Quoted," she said.\nAnd left.\n', "a", "text"),
        ('"Quoted."\nNot quoted.\nNot quoted.\n', "a", "text"),
        ("content,category\na,b\n", "a.txt", "csv"),
        ("content\na, b\n", "a", "csv"),
        ("Note\na\n", "a.txt", "text"),
        ("Note, I like tea\nToday, I went out\n", "a", "text"),
        ("Text, note\nand a line without\nand another\n", "a", "text"),
        ("content,category\n", "a", "csv"),
        ('"content","category"\n"a","b"\n', "a", "csv"),
        ('"content"\n"a"\n', "a", "csv"),
        ("content\tcategory\na\tb\n", "a.tsv", "tsv"),
        ("name;age\n", "a.csv", "csv"),
        ("a\nb\n", "a.md", "markdown"),
        ("content,category\na,b\n", "a.md", "markdown"),
        ("- a\n- b\nc\n", "a.txt", "markdown"),
        ("- a\nb\nc\n", "a.txt", "text"),
        ("", "a", "text"),
    ],
)
def test_content_first_name_second(data, name, found) -> None:
    assert detect(data.encode(), name, ReadOptions()) == found


def test_a_mapping_helps_to_recognise_a_table() -> None:
    options = options_from(mapping={"content": "Statement"})
    assert detect(b"id,statement\n1,a\n", "x", options) == "csv"
    assert detect(b"id,statement\n1,a\n", "x", ReadOptions()) == "text"


def test_a_cell_beyond_all_bounds_makes_no_table() -> None:
    data = b"content,note\n" + b"x" * 140_000 + b",b\n"
    assert detect(data, "x", ReadOptions()) == "text"


@pytest.mark.parametrize(
    ("magic", "words"),
    [
        (b"PK\x03\x04...", "a ZIP archive"),
        (b"SQLite format 3\0...", "SQLite"),
        (b"%PDF-1.7", "PDF"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PAR1", "Parquet"),
    ],
)
def test_files_of_other_kinds_say_what_to_do(magic, words) -> None:
    found = read(magic, "x.csv")
    assert found.items == []
    assert str(found.error).startswith("x.csv: is ")
    assert words in str(found.error)


def test_a_line_longer_than_what_is_looked_at() -> None:
    text = "x" * 400
    data = '[{"content": "a"}' + f', {{"content": "{text}"}}' * 400 + "]"
    assert len(read(data).facts) == 401
    assert len(read((f'{{"content": "{text}"}}\n') * 400).facts) == 400
