"""import and its journal."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from omi_async import Journal
from omi_async.importing.report import State
from omi_async.local import FOREVER, REAL_QUOTAS, Fault, LocalServer, ThreadedServer
from omi_async.local.store import database_id
from tests.cli.driving import Omi, Start, ended, lines_of, texts, until, write_facts

JOURNAL = "facts.jsonl.journal"


def counts(path: Path) -> dict[str, dict[State, int]]:
    with Journal(path) as journal:
        return journal.counts()


def batches(server: ThreadedServer) -> int:
    return sum(call.kind == "batch" for call in server.requests)


def test_the_same_command_again_sends_nothing(omi: Omi, forgetful: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 60)
    first = omi("import", "facts.jsonl", "--json")
    assert (first.code, first.event["requests"], first.event["journal"]) == (0, 3, JOURNAL)
    assert JOURNAL not in first.err  # it stays, and does not matter now
    again = omi("import", "facts.jsonl")
    assert again.code == 0
    assert again.out.startswith("60 facts: 60 created\n0 calls")
    assert again.err == f"Nothing was sent: an earlier run has settled all of it (journal: {JOURNAL}).\n"
    forgetful.assert_each_stored_once(texts(60))
    assert counts(tmp_path / JOURNAL) == {forgetful.url: {"created": 60}}


def test_an_input_that_has_grown_sends_what_is_new(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    write_facts(tmp_path / "facts.jsonl", 25)
    assert omi("import", "facts.jsonl").code == 0
    write_facts(tmp_path / "facts.jsonl", 50)
    done = omi("import", "facts.jsonl", "--json")
    assert (done.code, done.event["created"], done.event["requests"]) == (0, 50, 1)
    assert "Nothing was sent" not in done.err
    forgetful.assert_each_stored_once(texts(50))


def test_the_journal_stands_where_it_was_told_to(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    (tmp_path / "elsewhere").mkdir()
    done = omi("import", "facts.jsonl", "--journal", "elsewhere/mine", "--json")
    assert (done.code, done.event["journal"]) == (0, "elsewhere/mine")
    assert counts(tmp_path / "elsewhere" / "mine") == {served.url: {"created": 10}}
    assert not (tmp_path / JOURNAL).exists()


def test_of_several_files_the_first_has_the_journal(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    facts = write_facts(tmp_path / "facts.jsonl", 10)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "more.txt").write_text("new\n")
    with facts.open() as stdin:
        done = ended(start("import", "-", "folder/more.txt", "facts.jsonl", "--json", stdin=stdin))
    assert (done.code, done.event["journal"]) == (0, "folder/more.txt.journal")
    assert (done.event["created"], done.event["duplicate"]) == (11, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_has_a_journal_if_one_is_named(
    start: Start, forgetful: ThreadedServer, tmp_path: Path, name: str
) -> None:
    facts = write_facts(tmp_path / "facts.jsonl", 10)
    with facts.open() as stdin:
        without = ended(start("import", name, "--json", stdin=stdin))
    assert (without.code, without.event["journal"]) == (0, None)
    assert "No journal is kept of standard input; --journal PATH" in without.err
    for calls in (1, 0):
        with facts.open() as stdin:
            done = ended(start("import", name, "--json", "--journal", "mine", stdin=stdin))
        assert (done.code, done.event["journal"], done.event["requests"]) == (0, "mine", calls)
        assert "No journal" not in done.err
    assert len(forgetful.memories()) == 20


@pytest.mark.parametrize("option", ["--no-journal", "--no-dedupe"])
def test_without_a_journal_everything_is_sent_again(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path, option: str
) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    for _ in range(2):
        done = omi("import", "facts.jsonl", option, "--json")
        assert (done.code, done.event["journal"], done.event["requests"]) == (0, None, 1)
        assert "journal" not in done.err.lower()
    assert len(forgetful.memories()) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["facts.jsonl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--journal", "x", "--no-dedupe"], "facts by their text"),
        (["--journal", "x", "--no-journal"], "exclude each other"),
        (["--journal", "facts.jsonl"], "cannot be its input too"),
        (["--local=:memory:", "--journal", "x"], "server in memory forgets"),
        (["--on-unknown", "guess"], "--on-unknown"),
        (["--max-wait", "-1"], "--max-wait"),
        (["--journal", "."], "is a directory"),
    ],
)
def test_what_cannot_be_meant_with_a_journal_exits_1(
    omi: Omi, served: ThreadedServer, tmp_path: Path, words: list[str], said: str
) -> None:
    facts = write_facts(tmp_path / "facts.jsonl", 10)
    before = facts.read_bytes()
    done = omi("import", "facts.jsonl", *words)
    assert done.code == 1
    assert said in done.err
    assert facts.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["facts.jsonl"]
    assert not served.requests


def test_a_server_in_memory_has_no_journal(omi: Omi, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    for _ in range(2):
        assert omi("import", "facts.jsonl", "--local=:memory:", "--json").event["requests"] == 1
    assert not (tmp_path / JOURNAL).exists()


def test_a_rehearsal_does_not_count_for_the_real_thing(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    write_facts(tmp_path / "facts.jsonl", 30)
    assert omi("import", "facts.jsonl", "--local").code == 0
    assert omi("import", "facts.jsonl", "--local", "other.db", "--json").event["requests"] == 2
    assert omi("import", "facts.jsonl", f"--local={tmp_path}/omi-local.db", "--json").event["requests"] == 0
    assert omi("import", "facts.jsonl", "--json").event["requests"] == 2
    forgetful.assert_each_stored_once(texts(30))
    ids = {database_id(str(tmp_path / name)) for name in ("omi-local.db", "other.db")}
    names = {*(f"local:{one}" for one in ids), forgetful.url}
    assert len(names) == 3
    assert counts(tmp_path / JOURNAL).keys() == names


def test_a_local_database_that_is_gone_is_not_taken_for_full(omi: Omi, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 30)
    assert omi("import", "facts.jsonl", "--local").code == 0
    (tmp_path / "omi-local.db").unlink()
    with LocalServer.in_thread(tmp_path / "omi-local.db"):
        pass  # another one, empty, stands at its path now
    assert omi("import", "facts.jsonl", "--local", "--json").event["created"] == 30
    (tmp_path / "omi-local.db").rename(tmp_path / "moved.db")
    assert omi("import", "facts.jsonl", "--local", "moved.db", "--json").event["requests"] == 0
    with LocalServer.in_thread(tmp_path / "moved.db") as server:
        server.assert_each_stored_once(texts(30))


@pytest.mark.parametrize("named", [False, True])
def test_a_journal_that_cannot_be_made_is_told_with_the_way_out(
    omi: Omi, served: ThreadedServer, tmp_path: Path, named: bool
) -> None:
    write_facts(tmp_path / "facts.jsonl", 30)
    (tmp_path / JOURNAL).symlink_to(tmp_path / "no" / "such" / "folder")
    words = ["--journal", JOURNAL] if named else []
    done = omi("import", "facts.jsonl", *words)
    assert done.code == 1
    assert f"{JOURNAL} cannot be opened" in done.err
    assert "--journal PATH" in done.err
    assert "--no-journal" in done.err
    assert not served.requests
    assert omi("import", "facts.jsonl", "--no-journal").code == 0


@pytest.mark.parametrize("foreign", [b"my diary\n" * 100, b"SQLite format 3\0" + bytes(200)])
def test_a_foreign_file_is_told_and_left_alone(
    omi: Omi, served: ThreadedServer, tmp_path: Path, foreign: bytes
) -> None:
    write_facts(tmp_path / "facts.jsonl", 30)
    (tmp_path / JOURNAL).write_bytes(foreign)
    done = omi("import", "facts.jsonl")
    assert done.code == 1
    assert JOURNAL in done.err
    assert "not touched" in done.err
    assert (tmp_path / JOURNAL).read_bytes() == foreign
    assert not served.requests


def test_a_damaged_journal_is_told_and_kept(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 2000)
    assert omi("import", "facts.jsonl").code == 0
    whole = (tmp_path / JOURNAL).read_bytes()
    damaged = whole[:8192] + bytes(8192) + whole[16384:]
    (tmp_path / JOURNAL).write_bytes(damaged)
    calls = len(served.requests)
    done = omi("import", "facts.jsonl")
    assert done.code == 1
    assert "not overwritten" in done.err
    assert "--skip-existing" in done.err
    assert "--no-journal" not in done.err  # which would store everything twice
    assert (tmp_path / JOURNAL).read_bytes() == damaged
    assert len(served.requests) == calls


def test_a_second_import_with_the_same_journal_is_refused(
    omi: Omi, start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.slow(600), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 30)
    process = start("import", "facts.jsonl")
    until(lambda: served.max_in_flight, process)
    for words in (["import", "facts.jsonl"], ["journal", "show", JOURNAL]):
        done = omi(*words)
        assert done.code == 1
        assert "in use by another import" in done.err
        assert "--no-journal" not in done.err  # which would store everything twice
    assert process.poll() is None
    assert len(served.requests) == 0


def test_a_full_disk_ends_the_import_in_order(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415  # here only

    write_facts(tmp_path / "facts.jsonl", 3000, tags=["x" * 50])
    connect = sqlite3.connect

    def small(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # type: ignore[call-overload]  # passed through
        connection.execute("PRAGMA max_page_count = 12")
        return connection  # type: ignore[no-any-return]  # likewise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omi_async.importing.journal.file.sqlite3.connect", small)
        done = omi("import", "facts.jsonl", "--json")
    assert done.code == done.event["exit_code"] == 1
    assert "full" in done.err
    assert "The same command goes on" in done.err
    assert done.event["not_sent"] > 0
    assert done.event["created"] == len(served.memories())
    assert omi("import", "facts.jsonl").code == 0
    served.assert_each_stored_once(texts(3000))


def test_skip_existing_sends_only_what_is_new(omi: Omi, forgetful: ThreadedServer, tmp_path: Path) -> None:
    forgetful.add(*texts(30))
    write_facts(tmp_path / "facts.jsonl", 55)
    done = omi("import", "facts.jsonl", "--skip-existing", "--json")
    assert (done.code, done.event["existing"], done.event["created"]) == (0, 30, 25)
    assert batches(forgetful) == 1
    forgetful.assert_each_stored_once(texts(55))


def test_an_account_exported_and_imported_again_stays_as_it_is(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    forgetful.add(*texts(120), "Größe 漢字 🦉", "  two\nlines ", tags=["x"])
    forgetful.add("two\nlines")  # twice there, once to import
    assert omi("export", "--output", "account.jsonl").code == 0
    before = forgetful.memories()
    done = omi("import", "account.jsonl", "--skip-existing", "--json")
    assert done.code == 0
    assert (done.event["existing"], done.event["duplicate"]) == (122, 1)
    assert batches(forgetful) == 0
    assert forgetful.memories() == before


def test_what_is_rejected_stays_so_until_it_is_forgotten(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.poison("number 7"))
    write_facts(tmp_path / "facts.jsonl", 10)
    assert omi("import", "facts.jsonl").code == 6
    served.faults.clear()
    again = omi("import", "facts.jsonl", "--json")
    assert (again.code, again.event["rejected"], again.event["requests"]) == (6, 1, 0)
    assert f"omi-async journal forget {JOURNAL} --state rejected" in again.err
    assert omi("journal", "forget", JOURNAL, "--state", "rejected", "--yes").code == 0
    assert omi("import", "facts.jsonl").code == 0
    served.assert_each_stored_once(texts(10))


def lost_batch(server: ThreadedServer, *, stored: bool) -> None:
    """Let the batch be stored or not, its answer be lost, and let no list be read."""
    server.faults.add(Fault.reset(stored=stored), on="batch")
    server.faults.add(Fault.answer(403, "no"), on="list", times=FOREVER)


def test_facts_in_doubt_are_told_kept_and_found_later(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    lost_batch(forgetful, stored=True)
    write_facts(tmp_path / "facts.jsonl", 10)
    done = omi("import", "facts.jsonl", "--on-unknown", "report", "--json")
    assert (done.code, done.event["unknown"]) == (6, 10)
    assert f"the journal {JOURNAL} has what is settled. 10 facts in doubt will stay so" in done.err
    assert "--on-unknown reconcile" in done.err
    forgetful.faults.clear()
    done = omi("import", "facts.jsonl", "--json")
    assert (done.code, done.event["unknown"], batches(forgetful)) == (0, 0, 1)
    forgetful.assert_each_stored_once(texts(10))


def test_resend_trusts_the_server(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    lost_batch(served, stored=True)
    write_facts(tmp_path / "facts.jsonl", 10)
    done = omi("import", "facts.jsonl", "--on-unknown", "resend", "--json")
    assert (done.code, done.event["unknown"], batches(served)) == (0, 0, 2)
    served.assert_each_stored_once(texts(10))


@pytest.mark.parametrize("words", [["facts.failures.jsonl"], ["other.txt", "sub/moved.jsonl"]])
def test_a_failures_file_brings_its_journal_so_that_doubt_is_looked_into(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path, words: list[str]
) -> None:
    lost_batch(forgetful, stored=True)
    write_facts(tmp_path / "facts.jsonl", 10)
    assert omi("import", "facts.jsonl", "--on-unknown", "report").code == 6
    forgetful.faults.clear()
    (tmp_path / "sub").mkdir()
    failures = (tmp_path / "facts.failures.jsonl").read_text()
    moved = failures.replace(f'"{JOURNAL}"', json.dumps(str(tmp_path / JOURNAL)))
    (tmp_path / "sub" / "moved.jsonl").write_text(moved)
    (tmp_path / "other.txt").write_text("")
    done = omi("import", *words, "--json")
    assert done.code == 0
    assert Path(done.event["journal"]).name == JOURNAL
    forgetful.assert_each_stored_once(texts(10))
    assert omi("import", "facts.jsonl", "--json").event["requests"] == 0


def test_a_failures_file_whose_journal_is_gone_gets_one_of_its_own(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    line = {"content": "one", "state": "not_sent", "error": "stopped", "journal": "gone.journal"}
    (tmp_path / "a.failures.jsonl").write_text(json.dumps(line) + "\n")
    done = omi("import", "a.failures.jsonl", "--json")
    assert (done.code, done.event["journal"]) == (0, "a.failures.jsonl.journal")
    assert not (tmp_path / "gone.journal").exists()


def test_failures_of_different_imports_go_one_after_the_other(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n\n{'x' * 501}\n")
        assert omi("import", f"{name}.txt", "--category", "system").code == 6
    calls = len(served.requests)
    done = omi("import", "a.failures.jsonl", "b.failures.jsonl")
    assert done.code == 1
    assert "different journals" in done.err
    assert len(served.requests) == calls
    assert omi("import", "a.failures.jsonl", "b.failures.jsonl", "--no-journal").code == 6


def test_the_failures_of_an_import_name_its_journal_wherever_they_stand(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("x" * 501 + "\n")
    (tmp_path / "sub").mkdir()
    assert omi("import", "a.txt", "--failures", "sub/bad.jsonl").code == 6
    assert lines_of(tmp_path / "sub" / "bad.jsonl")[0]["journal"] == str(tmp_path / "a.txt.journal")
    assert omi("import", "a.txt", "--no-journal").code == 6
    assert "journal" not in lines_of(tmp_path / "a.failures.jsonl")[0]


def test_a_path_with_spaces_is_quoted_in_the_commands_that_are_shown(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.poison("two"))
    (tmp_path / "my facts.txt").write_text("one\ntwo\n")
    assert "omi-async import 'my facts.failures.jsonl'" in omi("import", "my facts.txt").err
    assert "forget 'my facts.txt.journal'" in omi("import", "my facts.txt").err


def test_a_window_that_opens_too_late_ends_the_import_and_the_same_command_goes_on(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful.quotas.replace(*REAL_QUOTAS)
    forgetful.quotas.change("memories_batch", limit=2, window=3600)
    write_facts(tmp_path / "facts.jsonl", 100)
    done = omi("import", "facts.jsonl", "--max-wait", "0.1", "--json")
    assert done.code == done.event["exit_code"] == 4
    assert (done.event["created"], done.event["unknown"]) == (50, 0)
    assert datetime.fromisoformat(done.event["resume_at"]) > datetime.now(UTC)
    assert "Out of quota until 2" in done.err
    assert f"The same command goes on: the journal {JOURNAL} has what is settled." in done.err
    made = len(forgetful.requests)
    assert omi("import", "facts.jsonl", "--max-wait", "0.1").code == 4  # too early: the ledger knows it
    assert len(forgetful.requests) == made
    forgetful.quotas.replace()
    monkeypatch.setenv("OMI_LEDGER", "")
    assert omi("import", "facts.jsonl", "--max-wait", "0").code == 0
    forgetful.assert_each_stored_once(texts(100))


def test_the_dry_run_leaves_the_journal_alone(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    assert omi("import", "facts.jsonl").code == 0
    before = (tmp_path / JOURNAL).read_bytes()
    assert omi("import", "facts.jsonl", "--dry-run", "--journal", JOURNAL).code == 0
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert omi("import", "facts.jsonl", "--dry-run", "--journal", "new").code == 0
    assert not (tmp_path / "new").exists()


def test_the_journal_holds_no_key(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    served.faults.add(Fault.poison("number 7"))
    write_facts(tmp_path / "facts.jsonl", 10)
    assert omi("import", "facts.jsonl").code == 6
    assert os.environ["OMI_API_KEY"].encode() not in (tmp_path / JOURNAL).read_bytes()


def test_without_a_journal_the_end_says_so(omi: Omi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_facts(tmp_path / "facts.jsonl", 10)
    with LocalServer.in_thread() as server:
        monkeypatch.setenv("OMI_API_BASE", server.url)
        monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
        done = omi("import", "facts.jsonl", "--no-journal")
    assert done.code == 2
    assert "To try them again: omi-async import facts.failures.jsonl" in done.err
    assert "The same command begins from the start, for no journal was kept" in done.err
