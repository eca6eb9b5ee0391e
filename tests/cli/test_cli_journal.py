"""journal show, export and forget."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from omi_async import Journal, Session
from omi_async.cli import journal as module
from omi_async.local import FOREVER, Fault, ThreadedServer
from omi_async.local.store import database_id
from tests.cli.driving import SCRIPT, Omi, Start, ended, lines_of, texts, until, write_facts

JOURNAL = "facts.jsonl.journal"


@pytest.fixture
def doubtful(omi: Omi, forgetful: ThreadedServer, tmp_path: Path) -> Path:
    """Nine facts in doubt that are not stored, and one that is rejected."""
    write_facts(tmp_path / "facts.jsonl", 10)
    forgetful.faults.add(Fault.poison("number 7"))
    forgetful.faults.add(Fault.slow(0), Fault.reset(), on="batch")
    assert omi("import", "facts.jsonl", "--on-unknown", "report").code == 6
    forgetful.faults.clear()
    assert not forgetful.memories()
    return tmp_path / JOURNAL


def test_show_tells_what_is_where_and_how_to_go_on(
    omi: Omi, doubtful: Path, forgetful: ThreadedServer
) -> None:
    done = omi("journal", "show", JOURNAL)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[:2] == [
        f"{forgetful.url}: 10 facts: 1 rejected, 9 unknown",
        "10 facts are not safely stored:",
    ]
    assert lines[2].startswith("  unknown: User likes number 0: ")
    assert any(line.startswith("  rejected: User likes number 7: ") for line in lines)
    assert "To go on, repeat the import with this journal" in done.out
    assert done.err == ""


def test_show_as_json(omi: Omi, doubtful: Path, forgetful: ThreadedServer) -> None:
    first, *facts = omi("journal", "show", JOURNAL, "--json").events
    counts = {"rejected": 1, "unknown": 9}
    assert first == {"event": "journal", "path": JOURNAL, "servers": {forgetful.url: counts}}
    assert [fact["content"] for fact in facts] == texts(10)
    assert facts[7]["state"] == "rejected"
    assert all(fact["event"] == "fact" and fact["error"] for fact in facts)
    assert {fact["server"] for fact in facts} == {forgetful.url}


def test_show_knows_every_server(omi: Omi, doubtful: Path, tmp_path: Path) -> None:
    assert omi("import", "facts.jsonl", "--local").code == 0
    out = omi("journal", "show", JOURNAL).out
    name = database_id(str(tmp_path / "omi-local.db"))
    assert f"local:{name}: 10 facts: 10 created" in out


def test_show_of_a_finished_import_is_one_line(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 1)
    assert omi("import", "facts.jsonl").code == 0
    assert omi("journal", "show", JOURNAL).out == f"{served.url}: 1 fact: 1 created\n"


def test_show_names_the_first_only(omi: Omi, doubtful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN", 3)
    out = omi("journal", "show", JOURNAL).out
    assert out.count("  unknown: ") == 3
    assert "... and 7 more" in out


def test_show_of_a_journal_without_a_fact(omi: Omi, tmp_path: Path) -> None:
    with Journal(tmp_path / "new"):
        pass
    assert omi("journal", "show", "new").out == "No fact was sent yet.\n"


def test_what_steers_a_terminal_is_not_shown(omi: Omi, forgetful: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text('{"content": "\\u001b[2J red", "category": "system"}\n')
    forgetful.faults.add(Fault.reset(), on="batch")
    assert omi("import", "facts.jsonl", "--on-unknown", "report").code == 6
    out = omi("journal", "show", JOURNAL).out
    assert "  unknown:  [2J red" in out
    assert "\x1b" not in out


@pytest.mark.slow
def test_an_import_that_was_killed_has_its_facts_in_doubt(
    omi: Omi, start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.slow(600), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 10)
    process = start("import", "facts.jsonl")
    until(lambda: served.max_in_flight, process)
    process.kill()
    process.wait()
    assert f"{served.url}: 10 facts: 10 unknown\n" in omi("journal", "show", JOURNAL).out


@pytest.mark.parametrize("command", ["show", "export", "forget"])
@pytest.mark.parametrize("content", [None, b"", b"a diary\n" * 200])
def test_what_is_no_journal_exits_1_and_stays_as_it_is(
    omi: Omi, tmp_path: Path, command: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "diary").write_bytes(content)
    words = ["--yes"] if command == "forget" else []
    done = omi("journal", command, "diary", *words)
    assert (done.code, done.out) == (1, "")
    assert "diary" in done.err
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == ({} if content is None else {"diary": content})


def test_export_writes_what_import_reads(
    omi: Omi, doubtful: Path, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    done = omi("journal", "export", JOURNAL, "-o", "rest.jsonl")
    assert (done.code, done.out, done.err) == (0, "", "10 facts exported to rest.jsonl\n")
    records = lines_of(tmp_path / "rest.jsonl")
    assert records[0] == {
        "content": "User likes number 0",
        "category": "interesting",
        "visibility": "private",
        "tags": [],
        "state": "unknown",
        "error": records[0]["error"],
        "server": forgetful.url,
        "journal": str(tmp_path / JOURNAL),
    }
    calls = len(forgetful.requests)
    fixed = [record | {"content": record["content"].replace("7", "seven")} for record in records]
    (tmp_path / "rest.jsonl").write_text("\n".join(map(json.dumps, fixed)))
    done = omi("import", "rest.jsonl", "--on-unknown", "resend", "--json")
    assert (done.code, done.event["created"], done.event["journal"]) == (0, 10, str(tmp_path / JOURNAL))
    assert len(forgetful.requests) > calls
    assert len(omi("journal", "export", JOURNAL).events) == 1  # the rejected one, not fixed


@pytest.mark.slow
def test_export_goes_through_a_pipe(doubtful: Path, forgetful: ThreadedServer) -> None:
    line = f"{SCRIPT} journal export {JOURNAL} | {SCRIPT} import - --journal other --json"
    done = subprocess.run(
        ["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    forgetful.assert_each_stored_once(texts(10))


def test_export_does_not_write_over_the_journal(omi: Omi, doubtful: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(doubtful)
    before = doubtful.read_bytes()
    for name in (JOURNAL, "link"):
        done = omi("journal", "export", JOURNAL, "-o", name)
        assert done.code == 1
        assert "written over" in done.err
    assert doubtful.read_bytes() == before


def test_export_says_what_it_leaves_out(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 3)
    assert omi("import", "facts.jsonl").code == 0
    assert omi("journal", "forget", JOURNAL, "--state", "created", "--yes").code == 0
    assert "  not sent: (its text is not in the journal)" in omi("journal", "show", JOURNAL).out
    done = omi("journal", "export", JOURNAL)
    assert (done.code, done.out) == (6, "")
    assert "0 facts exported\n3 facts are left out" in done.err


def test_forget_lets_facts_be_sent_again_without_looking(
    omi: Omi, doubtful: Path, forgetful: ThreadedServer
) -> None:
    done = omi("journal", "forget", JOURNAL, "--yes", "--state", "unknown")
    assert (done.code, done.out) == (0, "9 facts forgotten; the next import sends them.\n")
    calls = len(forgetful.requests)
    done = omi("import", "facts.jsonl", "--json")
    assert (done.code, done.event["created"], done.event["rejected"]) == (6, 9, 1)
    assert [call.kind for call in forgetful.requests[calls:]] == ["batch"]


def test_forget_takes_all_that_is_not_safely_stored(omi: Omi, doubtful: Path) -> None:
    assert omi("journal", "forget", JOURNAL, "--yes", "--json").event == {
        "event": "forgotten",
        "path": JOURNAL,
        "states": ["unknown", "rejected", "invalid"],
        "facts": 10,
    }
    assert omi("journal", "forget", JOURNAL).out == "0 facts forgotten.\n"  # nothing to ask about


def test_forget_needs_yes_if_there_is_no_terminal(
    omi: Omi, doubtful: Path, forgetful: ThreadedServer
) -> None:
    done = omi("journal", "forget", JOURNAL)
    assert done.code == 1
    assert "--yes" in done.err
    with Journal(doubtful) as journal:
        assert journal.counts()[forgetful.url]["unknown"] == 9


def test_forget_of_what_is_no_state_exits_1(omi: Omi, doubtful: Path) -> None:
    done = omi("journal", "forget", JOURNAL, "--state", "lost", "--yes")
    assert done.code == 1
    assert "'unknown', 'rejected', 'invalid', 'created', 'existing'" in done.err


@pytest.mark.slow
async def test_a_journal_of_hashes_is_shown_without_texts(
    start: Start, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    forgetful.faults.add(Fault.reset(), on="batch")
    async with Session() as session:
        journal = Journal(tmp_path / "hashes", texts=False)
        await session.memories.import_facts(texts(3), journal=journal, on_unknown="report")
    shown = ended(start("journal", "show", "hashes"))
    assert "3 unknown" in shown.out
    assert shown.out.count("(its text is not in the journal)") == 3
    assert "likes" not in shown.out
    assert ended(start("journal", "export", "hashes")).code == 6
