"""A failures file that was fixed is imported as if its facts had been right from the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omi_async.local import LocalServer, ThreadedServer
from tests.cli.driving import Omi


def fixed(path: Path, **fields: object) -> Path:
    """Fix each line of a failures file, as a person would."""
    lines = [json.loads(line) | fields for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_rejected_fact_with_a_fixed_category_is_sent(omi: Omi, served: ThreadedServer):
    Path("r.jsonl").write_text('{"content": "six", "category": "zebra"}\n', encoding="utf-8")
    assert omi("import", "r.jsonl").code == 6
    assert omi("import", str(fixed(Path("r.failures.jsonl"), category="work"))).code == 0
    assert [memory["category"] for memory in served.memories()] == ["work"]


def test_the_tags_of_a_broken_row_stay_tags(omi: Omi, served: ThreadedServer):
    Path("t.csv").write_text('content,tags\n,"a, b"\n', encoding="utf-8")
    assert omi("import", "t.csv").code == 6
    assert omi("import", str(fixed(Path("t.failures.jsonl"), content="fixed"))).code == 0
    assert [memory["tags"] for memory in served.memories()] == [["a", "b"]]


def test_what_a_dotted_mapping_found_is_kept(omi: Omi, served: ThreadedServer):
    Path("d.jsonl").write_text('{"t": "", "data": {"kind": "work"}, "labels": ["x"]}\n', encoding="utf-8")
    options = ["--map", "content=t", "--map", "category=data.kind", "--map", "tags=labels"]
    assert omi("import", "d.jsonl", *options).code == 6
    assert omi("import", str(fixed(Path("d.failures.jsonl"), content="fixed"))).code == 0
    assert [(memory["category"], memory["tags"]) for memory in served.memories()] == [("work", ["x"])]


def test_a_failures_file_without_a_folder_is_refused_before_anything_is_sent(
    omi: Omi, served: ThreadedServer
):
    Path("f.txt").write_text("one\n", encoding="utf-8")
    ended = omi("import", "f.txt", "--failures", "nowhere/f.jsonl")
    assert ended.code == 1
    assert "nowhere" in ended.err
    assert served.memories() == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_that_listens_everywhere_names_an_address_to_use(host: str):
    with LocalServer.in_thread(host=host) as server:
        assert server.url.startswith(("http://127.0.0.1:", "http://[::1]:"))
