"""A failures file that was fixed is imported as if its facts had been right from the start."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from omi_async.cli.imports.reference import journal_at, journal_reference
from omi_async.local import Fault, LocalServer, Quota, ThreadedServer
from tests.cli.driving import SCRIPT, Omi, Start, ended, lines_of, texts, write_facts


def fixed(path: Path, **fields: object) -> Path:
    """Fix each line of a failures file, as a person would."""
    lines = [json.loads(line) | fields for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_rejected_fact_with_a_fixed_category_is_sent(omi: Omi, served: ThreadedServer) -> None:
    Path("r.jsonl").write_text('{"content": "six", "category": "zebra"}\n', encoding="utf-8")
    assert omi("import", "r.jsonl").code == 6
    assert omi("import", str(fixed(Path("r.failures.jsonl"), category="work"))).code == 0
    assert [memory["category"] for memory in served.memories()] == ["work"]


def test_the_tags_of_a_broken_row_stay_tags(omi: Omi, served: ThreadedServer) -> None:
    Path("t.csv").write_text('content,tags\n,"a, b"\n', encoding="utf-8")
    assert omi("import", "t.csv").code == 6
    assert omi("import", str(fixed(Path("t.failures.jsonl"), content="fixed"))).code == 0
    assert [memory["tags"] for memory in served.memories()] == [["a", "b"]]


def test_what_a_dotted_mapping_found_is_kept(omi: Omi, served: ThreadedServer) -> None:
    Path("d.jsonl").write_text('{"t": "", "data": {"kind": "work"}, "labels": ["x"]}\n', encoding="utf-8")
    options = ["--map", "content=t", "--map", "category=data.kind", "--map", "tags=labels"]
    assert omi("import", "d.jsonl", *options).code == 6
    assert omi("import", str(fixed(Path("d.failures.jsonl"), content="fixed"))).code == 0
    assert [(memory["category"], memory["tags"]) for memory in served.memories()] == [("work", ["x"])]


def test_a_failures_file_without_a_folder_is_refused_before_anything_is_sent(
    omi: Omi, served: ThreadedServer
) -> None:
    Path("f.txt").write_text("one\n", encoding="utf-8")
    ended = omi("import", "f.txt", "--failures", "nowhere/f.jsonl")
    assert ended.code == 1
    assert "nowhere" in ended.err
    assert served.memories() == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_that_listens_everywhere_names_an_address_to_use(host: str) -> None:
    with LocalServer.in_thread(host=host) as server:
        assert server.url.startswith(("http://127.0.0.1:", "http://[::1]:"))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("words", [["--no-journal"], ["--no-dedupe"]])
def test_what_is_in_doubt_without_a_journal_is_looked_for_before_it_is_sent(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path, words: list[str], stored: bool
) -> None:
    write_facts(tmp_path / "facts.jsonl", 20)
    forgetful.faults.add(Fault.reset(stored=stored), on="batch")
    assert omi("import", "facts.jsonl", "--on-unknown", "report", *words).code == 6
    done = omi("import", "facts.failures.jsonl", *words)  # as the first one advises
    assert done.code == 0
    assert "the account's list is read" in done.err
    forgetful.assert_each_stored_once(texts(20))
    again = omi("import", "facts.failures.jsonl", *words)
    assert again.code == 0
    forgetful.assert_each_stored_once(texts(20))


def test_failures_of_standard_input_are_looked_for_too(
    start: Start, omi: Omi, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    forgetful.faults.add(Fault.reset(stored=True), on="batch")
    with write_facts(tmp_path / "facts.jsonl", 20).open() as stdin:
        assert ended(start("import", "-", "--on-unknown", "report", stdin=stdin)).code == 6
    assert omi("import", "stdin.failures.jsonl").code == 0
    forgetful.assert_each_stored_once(texts(20))


def test_a_failures_file_whose_journal_is_gone_is_looked_for(
    omi: Omi, forgetful: ThreadedServer, tmp_path: Path
) -> None:
    forgetful.faults.add(Fault.reset(stored=True), on="batch")
    write_facts(tmp_path / "facts.jsonl", 20)
    assert omi("import", "facts.jsonl", "--on-unknown", "report").code == 6
    (tmp_path / "facts.jsonl.journal").unlink()
    assert omi("import", "facts.failures.jsonl").code == 0
    forgetful.assert_each_stored_once(texts(20))


def test_what_was_not_sent_needs_no_look(omi: Omi, served: ThreadedServer) -> None:
    line = {"content": "one", "category": "system", "state": "not_sent", "error": "stopped"}
    Path("a.failures.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    done = omi("import", "a.failures.jsonl")
    assert (done.code, done.err) == (0, "")
    assert [call.kind for call in served.requests] == ["batch"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".failures" in path.name)


def test_a_command_that_is_repeated_leaves_one_file_of_failures(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.poison("number 7"))
    write_facts(tmp_path / "facts.jsonl", 10)
    for _ in range(3):
        assert omi("import", "facts.jsonl").code == 6
        assert names(tmp_path) == ["facts.failures.jsonl"]
        assert len(lines_of(tmp_path / "facts.failures.jsonl")) == 1


def test_interrupted_imports_leave_one_file_of_failures(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_LEDGER", "")
    write_facts(tmp_path / "facts.jsonl", 200)
    for number in range(1, 4):
        served.quotas.replace(Quota(f"batches {number}", 1, 3600, ("batch",)))
        done = omi("import", "facts.jsonl", "--max-wait", 0, "--json")
        assert (done.code, done.event["created"]) == (4, 25 * number)
        assert names(tmp_path) == [done.event["failures_file"]] == ["facts.failures.jsonl"]
        assert len(lines_of(tmp_path / "facts.failures.jsonl")) == done.event["not_sent"]


def test_what_was_fixed_by_hand_is_never_written_over(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.poison("number 7"))
    write_facts(tmp_path / "facts.jsonl", 10)
    assert omi("import", "facts.jsonl").code == 6
    kept = fixed(tmp_path / "facts.failures.jsonl", content="User likes seven").read_bytes()
    assert omi("import", "facts.jsonl").code == 6
    assert (tmp_path / "facts.failures.jsonl").read_bytes() == kept
    assert names(tmp_path) == ["facts.failures.2.jsonl", "facts.failures.jsonl"]


def test_an_import_that_sent_nothing_leaves_no_failures(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    write_facts(tmp_path / "facts.jsonl", 10)
    done = omi("import", "facts.jsonl")
    assert done.code == 2
    assert names(tmp_path) == []
    assert (done.out + done.err).count("401") == 1  # a wrong key is said once


@pytest.mark.parametrize("given", ["/dev/stdin", "<(cat facts.txt)", "/dev/fd/0"])
def test_failures_of_what_has_no_folder_go_to_the_current_one(
    served: ThreadedServer, tmp_path: Path, given: str
) -> None:
    (tmp_path / "facts.txt").write_text("one\n" + "x" * 501 + "\n")
    line = f"{SCRIPT} import {given} --category system < facts.txt"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 6, done.stderr
    assert "omi-async import stdin.failures.jsonl" in done.stderr
    assert len(lines_of(tmp_path / "stdin.failures.jsonl")) == 1


def test_a_name_that_is_no_utf_8_comes_back_through_failures_and_journal(
    served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("one\n" + "x" * 501 + "\n")
    line = f"{SCRIPT} import caf*.txt --category system"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 6, done.stderr
    [command] = re.findall(r"omi-async (import .*)", done.stderr)
    [failures] = tmp_path.glob("*.failures.jsonl")
    fixed(failures, content="two")
    assert lines_of(failures)[0]["origin"] == "caf\\xe9.txt:2"
    line = f"{SCRIPT} {command} --json"  # as it is told, pasted into a shell
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["journal"] == os.fsdecode(b"caf\xe9.txt.journal")
    assert {memory["content"] for memory in served.memories()} == {"one", "two"}


def test_a_journal_with_an_odd_name_is_found_again(tmp_path: Path) -> None:
    for name in ("a.journal", os.fsdecode(b"caf\xe9.journal"), "file:odd", "new\nline"):
        reference = journal_reference(tmp_path / name, tmp_path)
        assert json.loads(json.dumps(reference).encode()) == reference
        assert reference.isascii()
        assert journal_at(reference, tmp_path) == tmp_path / name
