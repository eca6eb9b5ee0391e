from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from omi_async import Fact, Memory
from omi_async.sources.writing import Written, writer_for
from tests.sources.source_reading import read

AWKWARD = [
    Fact("plain"),
    Fact('a, "b"; c | d\tand <br>', category="work", visibility="public", tags=("a,b", "c;d|e", '"', "[x]")),
    Fact("several\nlines\r\nand \u2028 others\n\n# of them", tags=("",)),
    Fact("- bullet"),
    Fact("[ ] no check box"),
    Fact("\\[x] neither \\<br> \\\\<br/> \\\n"),
    Fact("```"),
    Fact("--"),
    Fact("~~~"),
    Fact("1. first"),
    Fact("# no heading"),
    Fact("=SUM(A1)"),
    Fact("{}"),
    Fact("\\d+ 🍵"),
]


def written(wanted: Written, items: list[Fact]) -> str:
    writer = writer_for(wanted)
    lines = [writer.line_of(item) for item in items]
    return "".join(f"{line}\n" for line in [*([writer.header] if writer.header else []), *lines])


@pytest.mark.parametrize("wanted", ["jsonl", "csv"])
@pytest.mark.parametrize("name", ["stdin", "facts.csv", "facts.jsonl"])
def test_what_is_written_is_read_back(wanted, name) -> None:
    assert read(written(wanted, AWKWARD), name).items == AWKWARD


@pytest.mark.parametrize("name", ["stdin", "facts.md"])
def test_markdown_keeps_the_texts(name) -> None:
    assert read(written("markdown", AWKWARD), name).texts == [fact.content for fact in AWKWARD]


def test_a_memory_keeps_its_id_and_its_dates() -> None:
    memory = Memory(id="m1", content="tea", tags=("a",), created_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert json.loads(writer_for("jsonl").line_of(memory)) == {
        "content": "tea",
        "category": "interesting",
        "visibility": "private",
        "tags": ["a"],
        "id": "m1",
        "created_at": "2026-01-02T00:00:00+00:00",
    }
    assert writer_for("csv").line_of(memory) == (
        'tea,interesting,private,"[""a""]",m1,2026-01-02T00:00:00+00:00,'
    )
    assert writer_for("markdown").line_of(memory) == "- tea"


def test_only_known_formats_are_written() -> None:
    with pytest.raises(ValueError, match="can write jsonl, csv, markdown, not 'xml'"):
        writer_for("xml")  # type: ignore[arg-type]  # wrong on purpose
