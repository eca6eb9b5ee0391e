"""import of facts that the account holds with other tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from omi_async.local import FOREVER, Fault, ThreadedServer
from tests.cli.driving import Omi, Start, ended, texts, until, write_facts


def tags_of(served: ThreadedServer) -> set[tuple[str, ...]]:
    return {tuple(memory["tags"]) for memory in served.memories()}


@pytest.fixture
def held(omi: Omi, served: ThreadedServer, tmp_path: Path) -> ThreadedServer:
    """The server, which holds three facts, two of them with a tag that the file `facts.jsonl` has not."""
    write_facts(tmp_path / "held.jsonl", 2, tags=["mine"])
    assert omi("import", "held.jsonl", "--no-journal").code == 0
    write_facts(tmp_path / "facts.jsonl", 3, tags=["new"])
    return served


def test_tags_that_are_kept_are_counted_and_the_option_is_named(omi: Omi, held: ThreadedServer) -> None:
    done = omi("import", "facts.jsonl")
    assert done.code == 0
    assert done.out.startswith("3 facts: 1 created, 2 existing\n")
    assert "2 facts stored before with other tags" in done.out
    assert "--on-existing add-tags" in done.err
    assert tags_of(held) == {("mine",), ("new",)}


def test_the_command_that_is_named_then_adds_them_although_the_journal_knows_the_facts(
    omi: Omi, held: ThreadedServer
) -> None:
    omi("import", "facts.jsonl")
    done = omi("import", "facts.jsonl", "--on-existing", "add-tags", "--json")
    assert done.code == 0
    assert (done.event["existing"], done.event["created"]) == (2, 1)
    assert (done.event["tags_added"], done.event["other_tags"], done.event["tags_error"]) == (2, 0, None)
    assert "--on-existing" not in done.err
    assert tags_of(held) == {("mine", "new"), ("new",)}
    assert [call.kind for call in held.requests].count("batch") == 2


def test_tags_that_cannot_be_added_cost_no_fact_and_are_told(omi: Omi, held: ThreadedServer) -> None:
    held.faults.add(Fault.answer(402, "A paid plan is required."), on="update", times=FOREVER)
    done = omi("import", "facts.jsonl", "--on-existing", "add-tags")
    assert done.code == 0
    assert "the tags of 2 facts could not be added: " in done.out
    assert "A paid plan is required." in done.out
    assert not list(Path().glob("*.failures.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("journal", [True, False])
def test_a_kill_between_two_updates_loses_no_tag(
    journal: bool, omi: Omi, start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    write_facts(tmp_path / "held.jsonl", 40, tags=["mine"])
    assert omi("import", "held.jsonl", "--no-journal").code == 0
    write_facts(tmp_path / "facts.jsonl", 50, tags=["new"])
    served.faults.add(Fault.slow(0.02), on="update", times=FOREVER)
    command = ["import", "facts.jsonl", "--on-existing", "add-tags", *([] if journal else ["--no-journal"])]
    process = start(*command)
    until(lambda: sum(call.kind == "update" for call in served.requests) > 10, process)
    process.kill()
    process.wait()
    assert ("mine",) in tags_of(served)
    done = ended(start(*command))
    assert done.code == 0
    assert tags_of(served) == {("mine", "new"), ("new",)}
    assert sorted(memory["content"] for memory in served.memories()) == sorted(texts(50))
