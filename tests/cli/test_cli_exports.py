"""The exports of other systems by the command line: what is stored, what is told, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.driving import Omi
from tests.sources.test_exports import EXPORTS, WHAT_IT_SAYS

TEXTS = {name: [text for text, _ in expected] for name, (_, expected, _) in WHAT_IT_SAYS.items()}


def words_of(options: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if name == "template":
            words += ["--template", value]
        else:
            flag = {"where": "--where", "mapping": "--map"}[name]
            words += [word for field, wanted in value.items() for word in (flag, f"{field}={wanted}")]
    return words


def stored(omi: Omi) -> list[tuple[str, tuple[str, ...]]]:
    listed = omi("list", "--local=x.db", "--json", "--limit", "1000")
    memories = [json.loads(line) for line in listed.out.splitlines()]
    return sorted((memory["content"], tuple(memory["tags"])) for memory in memories)


@pytest.mark.parametrize("name", WHAT_IT_SAYS)
def test_every_sample_is_stored_as_it_is_read(name, omi: Omi) -> None:
    options, expected, skipped = WHAT_IT_SAYS[name]
    words = ["import", str(EXPORTS / name), "--no-journal", "--category", "other", "--json", "--local=x.db"]
    done = omi(*words, *words_of(options))
    assert done.code == 0
    assert (done.event["created"], done.event["skipped"]) == (len(expected), skipped)
    assert stored(omi) == sorted(expected)


def test_what_was_left_out_is_told(omi: Omi) -> None:
    done = omi("import", str(EXPORTS / "bee_facts.md"), "--no-journal", "--local=x.db")
    assert done.code == 0
    assert "Left out on purpose: 1 pending." in done.err


def test_a_dry_run_shows_format_columns_facts_and_what_is_left_out(omi: Omi) -> None:
    words = ["import", str(EXPORTS / "notion.csv"), str(EXPORTS / "vault"), "--map", "content=Name"]
    done = omi("import", str(EXPORTS / "notion.csv"), "--map", "content=Name", "--dry-run")
    assert words
    assert "read as csv; content from 'Name', tags from 'Tags'; not used: 'Status', 'Created'" in done.out
    assert '{"content": "Prefers aisle seats", "visibility": "private", "tags": ["travel", "me"]}' in done.out
    vault = omi("import", str(EXPORTS / "vault"), "--dry-run")
    assert "Me.md: read as vault" in vault.out
    assert "Left out on purpose: 2 task, 1 front matter, 1 prose." in vault.out


def test_files_that_an_import_makes_stand_beside_a_folder(omi: Omi, tmp_path: Path) -> None:
    shutil.copytree(EXPORTS / "vault", tmp_path / "vault")
    (tmp_path / "vault" / "Long.md").write_text("- " + "x" * 501 + "\n")
    done = omi("import", "vault/", "--local=x.db")
    assert done.code == 6
    assert sorted(path.name for path in (tmp_path / "vault").iterdir()) == ["Long.md", "Me.md"]
    assert (tmp_path / "vault.journal").exists()
    assert (tmp_path / "vault.failures.jsonl").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--template", "no field"],
        ["--template", "{Title", "--where", "a=b"],
        ["--template", "{Title}", "--map", "content=Title"],
        ["--where", "Shelf"],
        ["--include", "everything"],
        ["--encoding", "base64"],
        ["--long", "cut"],
        ["--map", "content="],
    ],
)
def test_choices_that_cannot_be_meant(omi: Omi, words: Sequence[str]) -> None:
    done = omi("import", str(EXPORTS / "goodreads.csv"), *words, "--local=x.db")
    assert done.code == 1
    assert "Error:" in done.err


def test_a_program_is_refused_and_nothing_stored(omi: Omi, tmp_path: Path) -> None:
    done = omi("import", "/bin/ls", "--local=x.db")
    assert done.code == 1
    assert "Error: /bin/ls: is a program" in done.err
    assert "The same command goes on" not in done.err
    assert stored(omi) == []


def test_a_category_that_the_server_refuses_names_its_column(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Text,Category\nlikes tea,food\n")
    done = omi("import", "a.csv", "--local=x.db")
    assert done.code == 6
    assert (
        "The server knows no category 'food' (the column 'Category'): --map category= leaves it out"
        in done.err
    )
    assert omi("import", "a.csv", "--map", "category=", "--local=x.db").code == 0
    assert stored(omi) == [("likes tea", ())]


def test_an_encoding_is_hinted_at_and_taken(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("User likes the café".encode("cp1252"))
    done = omi("import", "a.txt", "--local=x.db")
    assert done.code == 6
    assert "--encoding cp1252" in done.out
    assert omi("import", "a.txt", "--encoding", "cp1252", "--local=x.db").code == 0
    assert stored(omi) == [("User likes the café", ())]


def test_help_names_what_the_readers_know(omi: Omi) -> None:
    told = " ".join(omi("import", "--help").out.split())
    assert "content, text, memory, fact, body, note or value" in told
    assert "mcp-memory" in told
