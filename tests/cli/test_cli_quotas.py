"""Quotas: the ledger's file, the waits, what is shown meanwhile, and the bill."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from omi_async import ImportReport, QuotaPolicy, QuotaState, Retry, Session
from omi_async.cli import export, logs, prompt_sender
from omi_async.cli.format import countdown, local_time, until_in_words, window_in_words
from omi_async.cli.imports import pace, progress
from omi_async.cli.imports.events import Events
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.imports.run import import_all
from omi_async.cli.options import Common
from omi_async.importing.forecast import Forecast, foresee
from omi_async.local import FOREVER, Fault, LocalServer, Quota, ThreadedServer
from tests.cli.driving import Omi, Start, ended, texts, until, write_facts

HOURLY = Quota("batches", 2, 3600, ("batch",))


# The ledger's file


def without_a_named_ledger(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("OMI_LEDGER")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))


def test_the_ledger_stands_in_the_users_state_directory_and_holds_no_key(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_named_ledger(monkeypatch, tmp_path)
    done = omi("create", "one", "--category", "system")
    assert (done.code, done.err) == (0, "")
    [path] = tmp_path.rglob("quotas.db")
    assert "omi_async" in path.parts
    for file in path.parent.iterdir():
        assert served.api_key.encode() not in file.read_bytes()


def test_an_empty_variable_keeps_no_ledger(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_named_ledger(monkeypatch, tmp_path)
    monkeypatch.setenv("OMI_LEDGER", "")
    done = omi("list")
    assert (done.code, done.err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_built_in_server_needs_no_ledger(omi: Omi, ledger: Path) -> None:
    assert omi("create", "--local", "one").code == 0
    assert not ledger.exists()


@pytest.mark.parametrize("place", ["file/quotas.db", "directory", "pipe", "dangling"])
def test_an_unusable_ledger_is_a_warning(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "quotas.db")
    monkeypatch.setenv("OMI_LEDGER", str(tmp_path / place))
    write_facts(tmp_path / "facts.jsonl", 60)
    done = omi("import", "facts.jsonl")
    assert done.code == 0
    assert len(re.findall("^warning: .* cannot be written", done.err, re.MULTILINE)) == 1
    assert "OMI_LEDGER=PATH" in done.err


def test_a_damaged_ledger_is_a_warning(omi: Omi, served: ThreadedServer, ledger: Path) -> None:
    ledger.write_text("this is no database, " * 100)
    done = omi("list")
    assert done.code == 0
    assert f"{ledger} cannot be used" in done.err


def test_a_ledger_that_cannot_be_anywhere_is_none(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("~no_user_of_this_name/quotas.db", os.devnull):
        monkeypatch.setenv("OMI_LEDGER", value)
        done = omi("list")
        assert (done.code, done.err) == (0, "")


def test_a_window_that_one_command_has_used_up_is_not_spent_by_the_next(
    omi: Omi, start: Start, served: ThreadedServer
) -> None:
    served.quotas.replace(Quota("creates", 1, 3600, ("create",)))
    assert omi("create", "one", "--category", "system").code == 0
    assert omi("create", "two", "--category", "system").code == 4
    made = len(served.requests)
    done = ended(start("create", "three", "--category", "system"))
    assert done.code == 4
    assert "nothing was sent" in done.err
    assert re.search(r"try again in (60 min|1 h 0 min), at \d\d:\d\d\.", done.err)
    assert len(served.requests) == made
    assert omi("list").code == 0


# The waits at a prompt


def test_a_short_wait_is_waited_out_and_announced(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_sender, "NOTICEABLE", 0.5)
    served.faults.add(Fault.rate_limited(1), on="create")
    done = omi("create", "c", "--category", "system")
    assert done.code == 0
    assert done.err == "Waiting for the quota window, which opens in 1 s. Ctrl-C ends it.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["create", "text"],
        ["update", "some-id", "--content", "x"],
        ["delete", "some-id", "--yes"],
        ["export"],
    ],
)
def test_a_command_waits_no_longer_than_was_said(omi: Omi, served: ThreadedServer, words: list[str]) -> None:
    served.quotas.replace(Quota("all", 1, 30))
    omi("list")
    served.quotas.change("all", limit=0)
    done = omi(*words, "--max-wait", 5)
    assert done.code == 4
    assert "try again in 30 s" in done.err or "try again in 29 s" in done.err
    made = len(served.requests)
    assert omi(*words, "--max-wait", 5).code == 4
    assert len(served.requests) == made


def test_trouble_is_waited_out_as_quotas_are(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_sender, "NOTICEABLE", 0.0)
    served.faults.add(Fault.answer(503, "busy", headers={"Retry-After": "0"}), on="list")
    done = omi("list")
    assert done.code == 0
    assert "The server has trouble; trying again in 1 s" in done.err


def test_refusals_that_name_no_window_are_announced_too(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_sender, "NOTICEABLE", 0.0)
    monkeypatch.setattr(prompt_sender, "RETRY", Retry(base=0.1))
    served.faults.add(Fault.rate_limited(), on="list")
    done = omi("list")
    assert done.code == 0
    assert "The server takes no calls for now; going on in 1 s" in done.err


@pytest.mark.slow
def test_an_export_waits_for_the_windows_that_it_needs(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    served.add("one", "two", "three")
    served.quotas.replace(Quota("lists", 1, 1, ("list",)))
    done = omi("export", "-o", "out.jsonl")
    assert done.code == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    (tmp_path / "out.jsonl").unlink()
    served.quotas.replace(Quota("hourly", 1, 3600, ("list",)))
    done = omi("export", "-o", "out.jsonl", "--max-wait", 60)
    assert done.code == 4
    assert "The export is not complete; out.jsonl was not written." in done.err
    assert not (tmp_path / "out.jsonl").exists()


# What is shown of an import


def waiting(seconds: float = 2467.4, *, window: float | None = 3600.0, policy: str = "15-an-hour") -> Any:
    opens_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return QuotaState(policy, frozenset({"batch"}), 15, window, 15, opens_at, "learned")


class Halfway(Inputs):
    """An input of which 32 % is read."""

    def __init__(self) -> None:
        super().__init__(["facts.jsonl"], "auto", {}, {})

    def fraction(self) -> float:
        return 0.32


def soon(facts: int) -> Forecast:
    assert facts == 6800
    done_at = datetime.now(UTC).astimezone().replace(hour=2, minute=10, second=0)
    return Forecast(272, 7000.0, 2, done_at)


SHOWN = r"waiting for the 15-an-hour window, opens in 41:0[67], 3,200 of 10,000 facts, done about 02:10"


def test_lines_tell_of_a_wait_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINES_EVERY", 3600.0)
    report = ImportReport(pulled=3200, created=3200, requests=128, waiting_for=waiting())
    with progress.watched(Halfway(), None) as view:
        view.foresee_by(soon)
        view.show(report)
        for _ in range(3):  # looked at again; the clocks differ a little
            report.waiting_for = waiting(2467.0)
            view.show(report)
        report.waiting_for = None
        view.show(report)
    assert re.fullmatch(f"{SHOWN}\n", capsys.readouterr().err)


def test_another_window_is_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = ImportReport(pulled=3200, created=3200, requests=128)
    with progress.watched(Halfway(), None) as view:
        for state in (waiting(), waiting(6067), waiting(50, policy="100-a-minute"), waiting(window=None)):
            report.waiting_for = state
            view.show(report)
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub("opens in .*?,", "opens,", line) for line in lines] == [
        "waiting for the 15-an-hour window, opens, 3,200 of 10,000 facts",
        "waiting for the 15-an-hour window, opens, 3,200 of 10,000 facts",
        "waiting for the 100-a-minute window, opens, 3,200 of 10,000 facts",
        "waiting for the window of 15 calls, opens, 3,200 of 10,000 facts",
    ]


def test_what_is_no_wait_makes_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = ImportReport(pulled=3200, created=3200, requests=128, resume_at=datetime.now(UTC))
    report.waiting_for = waiting()  # it ends the import
    with progress.watched(Halfway(), None) as view:
        view.show(report)
        report.resume_at, report.waiting_for = None, waiting(logs.LONG_WAIT / 2)
        view.show(report)
    assert capsys.readouterr().err == ""


def test_events_tell_of_a_wait_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = ImportReport(pulled=3200, created=3200, requests=128)
    told = Events()
    with progress.watched(Halfway(), told) as view:
        view.foresee_by(soon)
        view.show(report)
        view.show(report)
        report.waiting_for = waiting()
        view.show(report)
        view.show(report)
        report.created, report.pulled = 3203, 3203  # landed meanwhile
        view.foresee_by(lambda _facts: soon(6800))
        view.show(report)
    told.flush()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["waiting_for"] for event in events] == [None, "15-an-hour", "15-an-hour"]
    assert [event["opens_at"] is None for event in events] == [True, False, False]
    assert events[2]["created"] == 3203
    assert datetime.fromisoformat(events[0]["done_about"]).minute == 10


def test_a_forecast_leaves_out_what_needs_no_call() -> None:
    seen = []

    def forecast(facts: int) -> Forecast:
        seen.append(facts)
        return Forecast(0, 0.0, 0, datetime.now(UTC))

    going = pace.Pace(Halfway())
    going.forecast = forecast
    going.done_at(ImportReport(pulled=3200, created=1600, duplicate=1500, invalid=100, requests=64))
    assert seen == [3400]
    assert going.done_at(ImportReport(pulled=3200, created=3200)) is None  # an earlier run's: no pace yet
    windowless = ImportReport(pulled=32, created=32, requests=2, waiting_for=waiting(window=None))
    assert going.done_at(windowless) is None


def test_long_waits_are_told_by_the_progress_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(wait: float) -> None:
        about = {"omi_why": "quota", "omi_kind": "batch", "omi_wait": wait}
        logging.getLogger("omi_async").warning("refused for %d s", wait, extra=about)

    for level, is_told in ((logging.WARNING, False), (logging.DEBUG, True)):
        with logs.logs_to_stderr(level):
            with logs.without_long_waits():
                refused(7)
                refused(3600)
                logging.getLogger("omi_async").warning("something else")
            lines = capsys.readouterr().err
            assert ("refused for 3600 s" in lines) is is_told
            assert "refused for 7 s" in lines
            assert "something else" in lines
            refused(9999)
            assert capsys.readouterr().err


def test_times_in_words() -> None:
    assert [countdown(seconds) for seconds in (-1, 7, 2467, 93_600)] == ["0:00", "0:07", "41:07", "26:00:00"]
    now = datetime.now(UTC)
    assert re.fullmatch(r"\d\d:\d\d", local_time(now + timedelta(hours=23)))
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", local_time(now + timedelta(hours=25)))
    assert until_in_words(7) == "in 7 s"
    assert re.fullmatch(r"in 60 min, at \d\d:\d\d", until_in_words(3599))
    unlimited = QuotaState("quota", frozenset({"batch"}), None, None, 0, None, "learned")
    assert window_in_words(unlimited) == "the quota window"


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch, *quotas: Quota) -> AsyncIterator[LocalServer]:
    """Serve in this loop, at the address that the environment names."""
    async with LocalServer(quotas=quotas, clock=time.time) as server:
        monkeypatch.setenv("OMI_API_KEY", server.api_key)
        monkeypatch.setenv("OMI_API_BASE", server.url)
        yield server


@pytest.mark.virtual_clock
async def test_an_import_of_hours_tells_of_each_window_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_facts(tmp_path / "facts.jsonl", 150)
    async with serving(monkeypatch, HOURLY) as server:
        with logs.logs_to_stderr(logging.WARNING):
            assert await import_all(Common(), ImportOptions((str(path),), concurrency=2)) == 0
        server.assert_each_stored_once(texts(150))
    told = [line for line in capsys.readouterr().err.splitlines() if "429" in line or "waiting" in line]
    assert len(told) == 2
    assert all(re.fullmatch(r"waiting for the 2-an-hour window, opens in .*", line) for line in told)
    assert re.search(r"opens in (59:\d\d|1:00:0\d), 50 of 150 facts, done about \d\d:\d\d$", told[0])
    # The last batch of the window may still be on the wire when the next one begins to wait.
    assert re.search(r", (75|100) of 150 facts, done about ", told[1])


@pytest.mark.virtual_clock
async def test_single_facts_go_meanwhile_if_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_facts(tmp_path / "facts.jsonl", 60)
    async with serving(monkeypatch, HOURLY) as server:
        assert await import_all(Common(), ImportOptions((str(path),), concurrency=2, lanes="both")) == 0
        singles = [record for record in server.requests if record.kind == "create"]
        assert 10 <= len(singles) <= 35
        server.assert_each_stored_once(texts(60))


def test_the_lanes_are_handed_on(monkeypatch: pytest.MonkeyPatch, omi: Omi, tmp_path: Path) -> None:
    seen = []

    async def import_all(_common: Common, options: ImportOptions) -> int:
        seen.append(options.lanes)
        return 0

    monkeypatch.setattr("omi_async.cli.imports.run.import_all", import_all)
    write_facts(tmp_path / "facts.jsonl", 1)
    for words in ([], ["--lanes", "both"], ["--lanes", "batch"]):
        assert omi("import", "facts.jsonl", *words).code == 0
    assert seen == ["batch", "both", "batch"]
    assert omi("import", "facts.jsonl", "--lanes", "none").code == 1


# The forecast


async def foreseen(facts: int, *quotas: QuotaPolicy, pace: float = 0.0) -> Forecast:
    async with Session("omi_dev_any", base_url="http://127.0.0.1:1", quotas=quotas) as session:
        return foresee(session.pacing, facts, pace)


def seconds_until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("facts", "calls", "wait", "windows"),
    [(0, 0, 0, 0), (-5, 0, 0, 0), (1, 1, 0, 0), (375, 15, 0, 0), (376, 16, 3600, 1), (1125, 45, 7200, 2)],
)
async def test_the_forecast_counts_calls_and_windows(
    facts: int, calls: int, wait: float, windows: int
) -> None:
    made = await foreseen(facts, QuotaPolicy(15, 3600, kinds=["batch"]))
    assert (made.calls, made.windows) == (calls, windows)
    assert made.wait == pytest.approx(wait, abs=5)
    assert seconds_until(made.done_at) == pytest.approx(wait, abs=6)


async def test_the_forecast_takes_the_pace_of_calls_into_account() -> None:
    policy = QuotaPolicy(10, 3600)
    assert seconds_until((await foreseen(250, pace=2.0)).done_at) == pytest.approx(20, abs=1)
    made = await foreseen(375, policy, pace=2.0)
    assert seconds_until(made.done_at) == pytest.approx(3610, abs=5)  # five calls after the opening
    assert seconds_until((await foreseen(375, policy, pace=1000.0)).done_at) == pytest.approx(15_000, abs=5)


async def test_a_forecast_of_many_windows_is_near_and_never_too_far() -> None:
    made = await foreseen(25 * 15 * 1000, QuotaPolicy(15, 3600))
    assert made.windows == pytest.approx(999, abs=2)
    assert (await foreseen(10**12, QuotaPolicy(1, 86_400))).done_at.year < 2200


@pytest.mark.virtual_clock
async def test_an_importer_foresees_its_end() -> None:
    foretold: list[tuple[float, Forecast]] = []
    async with LocalServer(quotas=[Quota("batches", 5, 3600, ("batch",))], clock=time.time) as server:
        server.faults.add(Fault.slow(20), on="batch", times=FOREVER)
        async with Session(server.api_key, base_url=server.url) as session:
            importer = session.memories.importer(
                texts(25 * 18),
                concurrency=1,
                on_progress=lambda report: foretold.append(
                    (time.time(), importer.forecast(25 * 18 - report.settled))
                ),
            )
            assert importer.forecast(25 * 18).calls == 18
            began = time.time()
            await importer.run()
            ended_at = time.time()
    assert ended_at - began == pytest.approx(3 * 3600 + 60, rel=0.02)
    assert foretold[0][1].done_at.timestamp() - foretold[0][0] == pytest.approx(17 * 20, rel=0.1)
    informed = [forecast for now, forecast in foretold if now > began + 110]  # the limit is known by now
    assert len(informed) > 10
    for forecast in informed:
        assert forecast.done_at.timestamp() == pytest.approx(ended_at, abs=150)
    assert max(forecast.windows for _, forecast in foretold) == 3
    assert (foretold[-1][1].calls, foretold[-1][1].windows) == (0, 0)


# The bill


def bill(omi: Omi, *words: object) -> str:
    done = omi("import", "facts.jsonl", "--dry-run", *words)
    assert done.code == 0
    return done.out.splitlines()[1]


def test_the_bill_of_an_unknown_server(
    omi: Omi, served: ThreadedServer, tmp_path: Path, ledger: Path
) -> None:
    write_facts(tmp_path / "facts.jsonl", 100)
    assert bill(omi) == f"4 batch calls: no limits of {served.url} are known yet"
    write_facts(tmp_path / "facts.jsonl", 1000)
    assert "are known yet; 2 h 0 min if your key is held to 15 batch calls an hour" in bill(omi)
    assert bill(omi, "--local") == "40 batch calls"
    event = omi("import", "facts.jsonl", "--dry-run", "--json").event
    assert (event["limits"], event["quotas"], event["seconds_to_wait"]) == ("unknown", [], None)
    assert not served.requests
    assert not ledger.exists()


def test_the_bill_knows_what_earlier_commands_have_met(
    omi: Omi, served: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.quotas.replace(HOURLY)
    write_facts(tmp_path / "facts.jsonl", 150)
    assert omi("import", "facts.jsonl", "--max-wait", 0, "--concurrency", 1, "--no-journal").code == 4
    made = len(served.requests)
    words = bill(omi)
    assert re.fullmatch(
        r"6 batch calls: 3 quota windows to wait for, done about \d\d:\d\d "
        r"\(known of your key: 2-an-hour, opens at \d\d:\d\d\)",
        words,
    )
    event = omi("import", "facts.jsonl", "--dry-run", "--json").event
    assert (event["limits"], event["windows_to_wait_for"]) == ("seen", 3)
    assert event["seconds_to_wait"] == pytest.approx(3 * 3600, abs=60)
    assert event["quotas"][0]["limit"] == 2
    assert len(served.requests) == made
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    assert "are known yet" in bill(omi)
    monkeypatch.delenv("OMI_API_KEY")
    assert "are known yet" in bill(omi)


def test_a_bill_within_the_quotas_that_were_met(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    served.quotas.replace(Quota("batches", 100, 3600, ("batch",), announced=True))
    write_facts(tmp_path / "facts.jsonl", 100)
    assert omi("import", "facts.jsonl", "--no-journal").code == 0
    assert re.fullmatch(
        r"4 batch calls: no quota window has to be waited for \(known of your key: 100-\S+, 4 used\)",
        bill(omi),
    )


def test_a_window_of_unknown_length_is_billed_as_such(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.quotas.replace(Quota("odd", 2, 1800, ("batch",)))
    served.faults.add(Fault.rate_limited(1000), on="batch")
    write_facts(tmp_path / "facts.jsonl", 150)
    assert omi("import", "facts.jsonl", "--max-wait", 0, "--concurrency", 1, "--no-journal").code == 4
    assert "at least 1 quota window to wait for, not done before " in bill(omi)


# --max-wait, from end to end


@pytest.mark.slow
def test_the_same_command_goes_on_when_the_window_is_open(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start("serve", "--port", 0, "--quota", "2/2:batch", "--quota", "1000/60")
    assert server.stdout is not None
    for word in shlex.split(server.stdout.readline())[1:]:
        monkeypatch.setenv(*word.split("=", 1))
    write_facts(tmp_path / "facts.jsonl", 100)
    first = ended(start("import", "facts.jsonl", "--max-wait", 0))
    assert first.code == 4
    assert re.search(
        r"Out of quota until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d, in \d s\. Come back then\.", first.err
    )
    assert "The same command goes on: the journal facts.jsonl.journal" in first.err
    codes = [first.code]

    def again() -> bool:
        codes.append(ended(start("import", "facts.jsonl", "--max-wait", 0)).code)
        return codes[-1] == 0

    until(again)
    assert set(codes) == {0, 4}
    assert ended(start("list", "--limit", 200)).out.count("User likes number") == 100
    server.send_signal(signal.SIGTERM)
    done = ended(server)
    answers = re.findall(r"batch\D*(\d+)", done.err)
    assert answers.count("200") == 4, done.err
    assert answers.count("429") <= 4 * len(codes) - 4


@pytest.mark.parametrize("words", ["15", "15/x", "x/3600", "15/3600:nothing", "-1/60", "1/0"])
def test_a_quota_that_is_none_exits_1(omi: Omi, words: str) -> None:
    done = omi("serve", "--port", 0, "--quota", words)
    assert done.code == 1
    assert "15/3600:batch" in done.err


def test_the_help_tells_where_the_ledger_is(omi: Omi) -> None:
    assert "OMI_LEDGER" in omi("--help").out
    assert "spend the quota of your other" in " ".join(omi("import", "--help").out.split())


# What is known of quotas


def test_quotas_shows_what_was_learned_and_forgets_it(omi: Omi, served: ThreadedServer, ledger: Path) -> None:
    served.quotas.replace(Quota("creates", 1, 3600, ("create",)))
    assert omi("quotas").err == f"Nothing is known of quotas yet ({ledger}).\n"
    omi("create", "one", "--category", "system")
    assert omi("create", "two", "--category", "system").code == 4
    served.quotas.replace()
    made = len(served.requests)
    shown = omi("quotas")
    assert shown.code == 0
    assert re.search(rf"^{served.url}, your key, learned at \d\d:\d\d:$", shown.out, re.MULTILINE)
    assert re.search(
        r"^  1-a-window \(create, delete, update\): used up, opens in (60 min|1 h 0 min), at ",
        shown.out,
        re.MULTILINE,
    )
    [row] = omi("quotas", "--json").events
    assert (row["server"], row["yours"]) == (served.url, True)
    assert row["quotas"][0]["opens_at"]
    assert omi("create", "two", "--category", "system").code == 4  # it is believed
    assert len(served.requests) == made
    assert omi("quotas", "--forget").out == "The quotas of 1 key forgotten.\n"
    assert omi("create", "two", "--category", "system").code == 0


def test_quotas_of_other_keys_and_servers_are_told_apart(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.quotas.replace(Quota("lists", 1, 3600, ("list",)))
    for _ in range(2):
        omi("list")
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    assert "another key (" in omi("quotas").out
    assert omi("quotas", "--base-url", "https://api.omi.me").out == ""
    assert omi("quotas", "--base-url", f"{served.url}/", "--json").event["yours"] is False
    assert (
        omi("quotas", "--forget", "--base-url", "https://api.omi.me").out
        == "The quotas of 0 keys forgotten.\n"
    )
    monkeypatch.delenv("OMI_API_KEY")
    assert omi("quotas").code == 0  # no key is needed


def test_quotas_without_a_file(omi: Omi, monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    ledger.write_text("this is no database, " * 100)
    done = omi("quotas")
    assert done.code == 1
    assert str(ledger) in done.err
    monkeypatch.setenv("OMI_LEDGER", "")
    assert "an empty OMI_LEDGER" in omi("quotas").err
