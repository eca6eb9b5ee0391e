"""The parts that need no server: words, records, paces, codes."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from omi_async import Fact, FactOutcome, ImportReport, InvalidFactError, OmiError, RateLimitError
from omi_async.cli import exit_codes, logs, output
from omi_async.cli.format import described, duration, plural, printable
from omi_async.cli.imports import failures, pace
from omi_async.cli.imports.dry_run import Estimate
from omi_async.cli.imports.failure_record import failure_record
from omi_async.cli.imports.failures import FailuresFile
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.imports.result import ImportResult
from omi_async.cli.options import Common
from omi_async.cli.runtime import connected
from omi_async.local import FOREVER, REAL_QUOTAS, Fault, ThreadedServer
from tests.cli.driving import Omi, write_facts


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (240, "4 min"),
        (26 * 3600, "26 h 0 min"),
        (5 * 86_400 + 3600, "5 d 1 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_other_words() -> None:
    assert (plural(1, "call"), plural(2000, "call")) == ("1 call", "2,000 calls")
    assert printable("a\x1b[2J\n\u202eb") == "a [2J  b"


def inputs(*paths: str, **mapping: str) -> Inputs:
    return Inputs(paths or ("facts.jsonl",), "auto", mapping, {"category": "system", "tags": None})


def invalid(record: object, *, field: str = "") -> FactOutcome:
    error = InvalidFactError("is wrong", field=field, record=record)
    return FactOutcome(0, None, "invalid", error=error, origin="facts.jsonl:1")


@pytest.mark.parametrize(
    ("record", "field", "kept"),
    [
        ("x" * 501, "content", {"content": "x" * 501, "category": "system"}),
        ('{"content": "cut', "", {"unreadable": '{"content": "cut'}),
        ('{"unreadable before', "content", {"unreadable": '{"unreadable before'}),
        ([1], "", {"unreadable": "[1]"}),
        ({"data": "text", "category": "Z"}, "x", {"content": "text", "category": "Z"}),
        ({"data": "text", "content": "own"}, "x", {"data": "text", "content": "own", "category": "system"}),
    ],
)
def test_what_was_no_fact_is_kept_to_be_fixed(record: object, field: str, kept: dict[str, object]) -> None:
    made = failure_record(invalid(record, field=field), inputs(content="data"))
    reasons = {"state": "invalid", "error": "is wrong", "origin": "facts.jsonl:1"}
    assert made == {**kept, **reasons}


def test_a_private_fact_is_written_down_as_private() -> None:
    outcome = FactOutcome(0, Fact("text"), "unknown")
    expected = {
        "content": "text",
        "visibility": "private",
        "state": "unknown",
        "error": "unknown",
        "origin": None,
    }
    assert failure_record(outcome, inputs()) == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("-", "stdin.failures.jsonl"),
        ("facts.csv", "facts.failures.jsonl"),
        ("facts.JSONL.gz", "facts.failures.jsonl"),
        ("facts", "facts.failures.jsonl"),
        ("v1.2", "v1.2.failures.jsonl"),
        ("facts.failures.7.jsonl", "facts.failures.jsonl"),
    ],
)
def test_the_failures_file_stands_beside_the_input(path: str, name: str, tmp_path: Path) -> None:
    given = path if path == "-" else str(tmp_path / path)
    file = FailuresFile(inputs(given))
    assert file.path is None
    file.add(invalid("x"))
    file.close()
    assert file.path == (Path(name) if path == "-" else tmp_path / name)


def test_an_input_by_another_name_is_not_written_over(tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text("{}\n")
    (tmp_path / "link").symlink_to(facts)
    file = FailuresFile(inputs(str(facts)), tmp_path / "link")
    file.add(invalid("x"))
    file.close()
    assert facts.read_text() == "{}\n"
    assert file.path == tmp_path / "link.failures.jsonl"


def test_names_run_out_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "count", lambda _start: [])
    (tmp_path / "facts.failures.jsonl").write_text("")
    with pytest.raises(AssertionError):
        FailuresFile(inputs(str(tmp_path / "facts.jsonl"))).add(invalid("x"))


def test_json_lines_hold_whatever_there_is() -> None:
    assert output.json_line({"a": "Größe"}) == '{"a": "Größe"}\n'.encode()
    assert json.loads(output.json_line({"a": "\ud800"})) == {"a": "\ud800"}


def test_a_report_that_waits_for_quota_exits_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = inputs(str(tmp_path / "facts.jsonl"))
    ending = ImportResult(given, FailuresFile(given))
    report = ImportReport(pulled=1, not_sent=1, resume_at=datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert ending.tell(report) == 4
    assert "Out of quota until 2026-11-22" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(RateLimitError("x"), 4), (OmiError("x"), 1), (KeyError("x"), 3), (KeyboardInterrupt(), 130), (None, 3)],
)
def test_codes_of_errors(error: BaseException | None, code: int) -> None:
    assert exit_codes.code_of(error) == code


def test_an_error_without_words_has_its_name() -> None:
    assert described(OmiError()) == "OmiError"
    assert described(OSError(28, "No space left")) == "No space left"


def test_a_bill_of_many_days() -> None:
    bill = Estimate(read=500_000)
    assert bill.calls == 20_000
    assert bill.documented_seconds == 86_400 + 6000
    assert Estimate().documented_seconds == 0


async def test_progress_is_measured_by_lines(tmp_path: Path) -> None:
    path = write_facts(tmp_path / "facts.jsonl", 100)
    packed = tmp_path / "facts.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    given = inputs(str(path), str(packed))
    fractions = [given.fraction() async for _ in given.facts()]
    sizes = path.stat().st_size, packed.stat().st_size
    assert fractions[49] == pytest.approx(0.5 * sizes[0] / sum(sizes))
    assert fractions[150] == 1.0
    assert given.fraction() == 1.0


async def test_a_file_that_goes_away_is_told_by_its_source(tmp_path: Path) -> None:
    path = write_facts(tmp_path / "facts.jsonl", 1)
    given = inputs(str(path))
    path.unlink()
    assert [fact async for fact in given.facts()] == []
    assert "no such file" in str(given.broken[0])


def test_pace() -> None:
    now = [0.0]
    going = pace.Pace(inputs("-"), clock=lambda: now[0])
    report = ImportReport(pulled=100, created=50, not_sent=10)
    now[0] = 5.0
    assert (going.rate(report), going.total(report), going.left(report)) == (10.0, None, None)


def test_commands_run_in_a_thread_and_without_uvloop(
    omi: Omi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    (tmp_path / "facts.txt").write_text("one\n")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(omi, "import", "facts.txt", "--local", "--category", "system").result()
    assert done.code == 0


def told(once: logs.OncePerWait, words: str, level: int = logging.WARNING, **about: object) -> bool:
    record = logging.LogRecord("omi_async", level, "file", 1, words, (), None)
    record.__dict__.update({f"omi_{name}": value for name, value in about.items()})
    return once.filter(record)


def test_one_wait_is_told_once() -> None:
    now = [0.0]
    once = logs.OncePerWait(clock=lambda: now[0])
    assert told(once, "429", why="quota", kind="batch", wait=41.0)
    now[0] = 0.4
    assert not told(once, "429, in other words", why="quota", kind="batch", wait=40.8)  # another worker
    assert told(once, "429", why="quota", kind="list", wait=41.0)  # another quota
    assert told(once, "503", why="trouble", kind="batch", wait=1.0)
    assert told(once, "429", why="quota", kind="batch", wait=90.0)  # it takes longer than was said
    now[0] = 90.5
    assert told(once, "429", why="quota", kind="batch", wait=41.0)  # the next round


def test_what_is_no_wait_is_told_each_time() -> None:
    once = logs.OncePerWait()
    for _ in range(2):
        assert told(once, "something else")
        assert told(once, "POST /v1/dev/user/memories: 200", level=logging.INFO)


def test_the_library_says_with_each_retry_what_is_waited_for(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    seen: list[logging.LogRecord] = []

    def look(record: logging.LogRecord) -> bool:
        seen.append(record)
        return True

    write_facts(tmp_path / "facts.jsonl", 10)
    served.faults.add(Fault.answer(503, "Rate limiter unavailable"), Fault.rate_limited(1), on="batch")
    library = logging.getLogger("omi_async")
    library.addFilter(look)
    try:
        assert omi("import", "facts.jsonl").code == 0
    finally:
        library.removeFilter(look)
    abouts = [vars(record) for record in seen if "omi_wait" in vars(record)]
    assert [(about["omi_why"], about["omi_kind"]) for about in abouts] == [
        ("trouble", "batch"),
        ("quota", "batch"),
    ]
    assert all(0.0 < about["omi_wait"] <= 1.5 for about in abouts)


def test_a_round_of_refusals_is_one_line_and_holds_no_key(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.quotas.replace(*REAL_QUOTAS)
    served.quotas.change("memories_batch", limit=2, window=1.5)
    write_facts(tmp_path / "facts.jsonl", 100)
    served.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
    done = omi("import", "facts.jsonl", "--concurrency", 8, "--json")
    refused = done.event["requests"] - 4
    lines = [line for line in done.err.splitlines() if "the next batch call in" in line]
    assert done.code == 0
    assert refused >= 2
    assert 1 <= len(lines) < refused


def test_foreign_logs_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.logs_to_stderr(logging.WARNING):
        try:
            raise ValueError("inner")
        except ValueError:
            logging.getLogger("asyncio").exception("something")
    assert capsys.readouterr().err == "asyncio: something\n"


async def test_collections_do_not_look_at_what_was_imported_while_a_command_calls(tmp_path: Path) -> None:
    frozen = gc.get_freeze_count()
    async with connected(Common(local=":memory:")) as session:
        await session.memories.create("meanwhile")
        assert gc.get_freeze_count() > frozen + 10_000
    assert gc.get_freeze_count() == 0
