"""import, to its various ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omi_async.cli.imports import progress
from omi_async.local import FOREVER, REAL_QUOTAS, Fault, ThreadedServer
from tests.cli.driving import Omi, Start, ended, lines_of, texts, until, write_facts


@pytest.mark.slow
def test_ten_thousand_facts_take_400_calls(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    served.faults.add(Fault.slow(0.001), on="batch", times=FOREVER)
    write_facts(tmp_path / "facts.jsonl", 10_000)
    done = omi("import", "facts.jsonl", "--concurrency", 3)
    assert done.code == 0
    assert done.out.startswith("10,000 facts: 10,000 created\n400 calls")
    batches = [call for call in served.requests if call.kind == "batch"]
    assert len(batches) == len(served.requests) == 400
    assert 1 < served.max_in_flight <= 3
    assert len(served.memories()) == 10_000


def test_several_files_are_one_import(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("User likes tea\nUser has a cat\n")
    (tmp_path / "b.csv").write_text("content,category\nUser likes tea,system\nUser lives in Oslo,\n")
    done = omi(
        "import", "a.txt", "b.csv", "--category", "manual", "--tag", "x", "--visibility", "public", "--json"
    )
    assert done.code == 0
    assert (done.event["pulled"], done.event["created"], done.event["duplicate"]) == (4, 3, 1)
    assert {memory["category"] for memory in served.memories()} == {"manual"}
    assert {(*memory["tags"], memory["visibility"]) for memory in served.memories()} == {("x", "public")}
    assert len(served.requests) == 1


def test_without_folding_everything_is_sent(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\none\n")
    done = omi("import", "a.txt", "--no-dedupe", "--json", "--category", "system")
    assert (done.code, done.event["duplicate"]) == (0, 0)


def test_standard_input_is_read(start: Start, served: ThreadedServer, tmp_path: Path) -> None:
    facts = write_facts(tmp_path / "facts.jsonl", 30)
    with facts.open() as stdin:
        done = ended(start("import", "-", stdin=stdin))
    assert done.code == 0
    assert done.out.startswith("30 facts: 30 created")


def test_bad_records_cost_none_of_the_others(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_bytes(
        b'{"content": "one"}\n{"content": ""}\n{"content": "tw\n[1]\n'
        b'{"content": "ok", "visibility": "PUBLIC"}\n'
        b'{"content": "' + b"x" * 501 + b'"}\n{"content": "caf\xe9"}\n"last"\n'
    )
    done = omi("import", "facts.jsonl", "--category", "system")
    assert done.code == 6
    assert "facts.jsonl:2: invalid: content: is empty" in done.out
    assert "6 facts are not safely stored: see facts.failures.jsonl" in done.err
    assert {memory["content"] for memory in served.memories()} == {"one", "last"}
    records = lines_of(tmp_path / "facts.failures.jsonl")
    assert [record["origin"] for record in records] == [f"facts.jsonl:{line}" for line in range(2, 8)]
    assert {record["state"] for record in records} == {"invalid"}
    assert all(record["error"] for record in records)
    assert ["unreadable" in record for record in records] == [False, True, True, False, False, True]
    assert records[3]["content"] == "ok"


def test_the_failures_file_fixed_is_the_next_input(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text(
        '{"content": "one"}\n{"memo": "two", "visibility": "Public"}\n{"memo": ""}\n'
    )
    words = ("--map", "content=memo", "--category", "system", "--tag", "t")
    assert omi("import", "facts.jsonl", *words).code == 6
    failures = tmp_path / "facts.failures.jsonl"
    assert [record.get("content") for record in lines_of(failures)] == ["one", "two", ""]
    failures.write_text(
        failures.read_text().replace('"Public"', '"public"').replace('"content": ""', '"content": "three"')
    )
    kept = failures.read_text()
    omi("import", failures.name)
    memories = {memory["content"]: memory for memory in served.memories()}
    assert memories.keys() >= {"two", "three"}
    assert memories["two"]["visibility"] == "public"
    assert (memories["two"]["category"], memories["two"]["tags"]) == ("system", ["t"])
    assert failures.read_text() == kept


def test_a_second_round_of_failures_gets_a_file_of_its_own(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "facts.failures.jsonl").write_text('{"content": ""}\n')
    before = (tmp_path / "facts.failures.jsonl").read_text()
    assert omi("import", "facts.failures.jsonl").code == 6
    assert omi("import", "facts.failures.jsonl", "--failures", "facts.failures.jsonl").code == 6
    assert (tmp_path / "facts.failures.jsonl").read_text() == before
    assert len(lines_of(tmp_path / "facts.failures.2.jsonl")) == 1
    assert not (tmp_path / "facts.failures.3.jsonl").exists()  # it would say the same


def test_a_failures_file_that_is_named_is_replaced(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text('{"content": ""}\n')
    (tmp_path / "failed.jsonl").write_text("old\n")
    assert omi("import", "facts.jsonl", "--failures", "failed.jsonl").code == 6
    assert len(lines_of(tmp_path / "failed.jsonl")) == 1


def test_what_the_server_refuses_is_rejected_with_its_words(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.poison("number 7"))
    write_facts(tmp_path / "facts.jsonl", 30, tags=["t"], visibility="public")
    done = omi("import", "facts.jsonl", "--json")
    assert done.code == 6
    assert (done.event["created"], done.event["rejected"], done.event["ok"]) == (29, 1, False)
    assert done.event["failures_file"] == "facts.failures.jsonl"
    [failure] = [event for event in done.events if event["event"] == "failure"]
    [record] = lines_of(tmp_path / "facts.failures.jsonl")
    assert record == {
        "content": "User likes number 7",
        "category": "interesting",
        "visibility": "public",
        "tags": ["t"],
        "state": "rejected",
        "error": record["error"],
        "origin": "facts.jsonl:8",
        "journal": "facts.jsonl.journal",
    }
    del record["journal"]
    assert failure == {"event": "failure", "index": 7, **record}
    assert "29 created" in done.err


def test_json_events_parse_and_end_with_the_report(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 100)
    done = omi("import", "facts.jsonl", "--json")
    kinds = [event["event"] for event in done.events]
    assert kinds[0] == "progress"
    assert kinds[-1] == "report"
    states = ("created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent")
    for event in done.events[-1:]:
        assert sum(event[state] for state in states) == event["pulled"] == 100
    assert done.event["complete"]
    assert done.event["exit_code"] == done.code == 0


def test_a_wrong_key_stops_the_import(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    write_facts(tmp_path / "facts.jsonl", 1000)
    done = omi("import", "facts.jsonl", "--json")
    assert done.code == done.event["exit_code"] == 2
    assert "Invalid API Key" in done.err
    assert done.err.endswith(
        "The same command goes on: the journal facts.jsonl.journal has what is settled.\n"
    )
    assert done.event["not_sent"] == done.event["pulled"]
    assert len(served.requests) <= 4


def test_a_dead_server_is_told_at_once(omi: Omi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_any_of_all")
    write_facts(tmp_path / "facts.jsonl", 10)
    done = omi("import", "facts.jsonl", "--base-url", "http://127.0.0.1:1")
    assert done.code == 3
    assert "was not reached" in done.err
    assert not (tmp_path / "facts.failures.jsonl").exists()


def test_a_damaged_file_ends_where_it_is_damaged_and_the_next_is_read(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.json").write_text('[{"content": "one"}, {"content": "two"')
    (tmp_path / "whole.txt").write_text("three\n")
    done = omi("import", "broken.json", "whole.txt", "--category", "system")
    assert done.code == 1
    assert "Error: broken.json" in done.err
    assert "did not come to its end" in done.out
    assert {memory["content"] for memory in served.memories()} >= {"one", "three"}


@pytest.mark.parametrize(
    "words",
    [
        ["import"],
        ["import", "nofile.jsonl"],
        ["import", "empty"],
        ["import", "-", "-"],
        ["import", "facts.txt", "--map", "content"],
        ["import", "facts.txt", "--map", "colour=x"],
        ["import", "facts.txt", "--category", "two words"],
        ["import", "facts.txt", "--concurrency", "0"],
    ],
)
def test_what_cannot_be_meant_exits_1(
    omi: Omi, served: ThreadedServer, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "facts.txt").write_text("one\n")
    (tmp_path / "empty").mkdir()
    done = omi(*words)
    assert done.code == 1
    assert "Error:" in done.err
    assert not served.requests


def test_an_unreadable_archive_is_named(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "facts.zip").write_bytes(b"PK\x03\x04 and so on")
    done = omi("import", "facts.zip")
    assert done.code == 1
    assert "ZIP" in done.err


def test_an_import_into_a_local_file(omi: Omi, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 60)
    assert omi("import", "--local", "facts.jsonl").code == 0
    again = omi("import", "facts.jsonl", "--local")
    assert again.code == 0
    assert again.out.startswith("60 facts: 60 created\n0 calls")
    assert "Nothing was sent" in again.err
    assert len(omi("list", "--local", "--limit", 100, "--json").events) == 60


def test_a_failures_file_that_cannot_be_written_does_not_end_the_import(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "facts.jsonl").write_text(
        '{"content": ""}\n{"content": ""}\n{"content": "one", "category": "system"}\n'
    )
    done = omi("import", "facts.jsonl", "--failures", "/dev/full")
    assert done.code == 6
    assert done.err.count("no failures file can be written") == 1
    assert len(served.memories()) == 1


def test_progress_is_told_in_lines_if_there_is_no_terminal(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINES_EVERY", 0.0)
    write_facts(tmp_path / "facts.jsonl", 500)
    done = omi("import", "facts.jsonl")
    lines = done.err.splitlines()
    assert len(lines) >= 20
    assert lines[-1].startswith("500 of about 500 facts: 500 created; ")
    assert "a second" in lines[-1]


def test_progress_of_an_unknown_length_has_no_estimate(
    start: Start, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = write_facts(tmp_path / "facts.jsonl", 100)
    with facts.open() as stdin:
        done = ended(start("import", "-", "--json", stdin=stdin))
    assert done.event["created"] == 100


def test_an_import_goes_on_when_its_events_are_not_read(
    start: Start, served: ThreadedServer, tmp_path: Path
) -> None:
    served.faults.add(Fault.poison("number"))
    write_facts(tmp_path / "facts.jsonl", 60)
    process = start("import", "facts.jsonl", "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert ended(process).code == 6
    assert len(lines_of(tmp_path / "facts.failures.jsonl")) == 60


def test_a_quota_is_kept_in_full(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    served.quotas.replace(*REAL_QUOTAS)
    served.quotas.change("memories_batch", limit=2, window=0.3)
    write_facts(tmp_path / "facts.jsonl", 100)
    done = omi("import", "facts.jsonl", "--json")
    assert (done.code, done.event["created"]) == (0, 100)


def test_dry_run_reads_checks_folds_and_prints_the_bill(omi: Omi, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 1000)
    (tmp_path / "more.txt").write_text("User likes number 1\n" + "x" * 501 + "\nnew\n")
    done = omi("import", "facts.jsonl", "more.txt", "--dry-run")
    assert done.code == 6
    assert (
        done.out
        == """\
1,003 records: 1,002 valid, 1 invalid, 1 duplicate; 1,001 facts to send
  more.txt:2: content: has 501 characters, the server takes at most 500
41 batch calls: 1 min at the documented 100 calls a minute; 2 h 0 min if your key is held to 15 batch calls \
an hour (15 at the start of each hour)
1 fact without a category: the server then asks a language model for each, which makes the calls slow; \
--category interesting spares it that
facts.jsonl: read as jsonl
more.txt: read as text
The first facts, as they would be sent:
  {"content": "User likes number 0", "visibility": "private", "tags": [], "category": "interesting"}
  {"content": "User likes number 1", "visibility": "private", "tags": [], "category": "interesting"}
  {"content": "User likes number 2", "visibility": "private", "tags": [], "category": "interesting"}
Nothing was sent (--dry-run).
"""
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.jsonl", "more.txt"]


def test_dry_run_as_json_and_with_a_failures_file(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text("one\n" + ("x" * 501 + "\n") * 12 + "one\n")
    done = omi(
        "import", "facts.txt", "--dry-run", "--json", "--failures", "bad.jsonl", "--category", "system"
    )
    assert done.code == 6
    assert done.event == {
        "event": "bill",
        "read": 14,
        "valid": 2,
        "invalid": 12,
        "duplicate": 1,
        "to_send": 1,
        "calls": 1,
        "without_category": 0,
        "sources": [{"name": "facts.txt", "format": "text", "columns": {}}],
        "samples": [{"content": "one", "visibility": "private", "tags": [], "category": "system"}],
        "skipped": {},
        "seconds_at_100_calls_a_minute": 1,
        "seconds_at_15_batches_an_hour": 0,
        "limits": "documented",
        "quotas": done.event["quotas"],
        "windows_to_wait_for": 0,
        "seconds_to_wait": 0,
    }
    assert [quota["policy"] for quota in done.event["quotas"]] == ["100-a-minute", "10,000-a-day"]
    assert "... and 2 more" in done.err
    assert "bad.jsonl" in done.err
    assert len(lines_of(tmp_path / "bad.jsonl")) == 12
    assert all(len(record["content"]) == 501 for record in lines_of(tmp_path / "bad.jsonl"))


def test_dry_run_without_folding(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text("one\none\n")
    done = omi("import", "facts.txt", "--dry-run", "--no-dedupe", "--json")
    assert (done.code, done.event["to_send"]) == (0, 2)


def test_dry_run_of_a_damaged_file_exits_1(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text('[{"content": "one"}')
    done = omi("import", "facts.json", "--dry-run")
    assert done.code == 1
    assert "facts.json" in done.err
    assert json.dumps("one") not in done.err


def test_a_source_that_never_ends_can_be_listened_to(start: Start, served: ThreadedServer) -> None:
    process = start("import", "-", stdin=-1)
    assert process.stdin is not None
    for index in range(25):
        process.stdin.write(json.dumps({"content": f"live {index}", "category": "system"}) + "\n")
    process.stdin.flush()
    until(lambda: len(served.memories()) == 25, process)
    assert ended(process).code == 0


def test_the_ids_of_what_is_stored_are_told_as_json(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    write_facts(tmp_path / "facts.jsonl", 30)
    done = omi("import", "facts.jsonl", "--json")
    stored = [event for event in done.events if event["event"] == "stored"]
    ids = {memory["content"]: memory["id"] for memory in served.memories()}
    assert {event["origin"]: event["id"] for event in stored} == {
        f"facts.jsonl:{index + 1}": ids[text] for index, text in enumerate(texts(30))
    }
    assert {event["state"] for event in stored} == {"created"}


def test_what_stopped_an_import_is_an_event(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    write_facts(tmp_path / "facts.jsonl", 10)
    error, report = omi("import", "facts.jsonl", "--json").events[-2:]
    assert (error["event"], error["type"], error["exit_code"]) == ("error", "AuthenticationError", 2)
    assert report["event"] == "report"
    monkeypatch.delenv("OMI_API_KEY")
    [error] = omi("import", "facts.jsonl", "--json").events
    assert (error["event"], error["exit_code"]) == ("error", 2)


def test_a_document_that_is_nested_too_deeply_is_one_invalid_fact(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "]" * 100_000 + "\n" + '{"content": "one"}\n')
    done = omi("import", "deep.jsonl", "--category", "system", "--json")
    assert (done.code, done.event["invalid"], done.event["created"]) == (6, 1, 1)
