"""The ledger's file: restarts, several processes, kills, files that are held, and files that are none."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from omi_async import ConfigurationError, RateLimitError, Session
from omi_async._api.headers import RateLimitHeaders
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaPolicy
from omi_async._quota.store import FORGOTTEN_AFTER, LedgerFile, fingerprint, forget, kept
from omi_async.local import LocalServer, Quota
from tests.importing.helpers import serving
from tests.quotas.model import EPOCH

KEY = "omi_dev_0123456789abcdef"
HOUR = QuotaPolicy(5, 3600)

posix = pytest.mark.skipif(os.name != "posix", reason="files have no modes, processes no SIGKILL")


class Process:
    """A process with a ledger of its own, and the file."""

    def __init__(self, path: Path, *policies: QuotaPolicy, account: str = "a") -> None:
        self.ledger = Ledger(policies)
        self.file = LedgerFile(path, account, "http://x")
        self.now = EPOCH

    def calls(self, count: int) -> float:
        """Make calls; return how long the last one would have to wait instead, if it must."""
        for _ in range(count):
            if wait := self.ledger.wait("batch", self.now):
                return wait
            self.ledger.answered(self.ledger.spend("batch", self.now), self.now)
        return 0.0

    def refused(self, limit: int, left: float, kind: Any = "batch") -> None:
        headers = RateLimitHeaders(limit, 0, left)
        self.ledger.refused(self.ledger.spend(kind, self.now), self.now, headers)

    def exchange(self) -> Process:
        asyncio.run(self.file.exchange(self.ledger, lambda: self.now))
        return self


def rows(path: Path, column: str = "account") -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute(f"SELECT {column} FROM quotas")]


# What is told, and to whom


def test_later_processes_know_what_was_spent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "ledger"
    first = Process(path, HOUR)
    first.calls(3)
    first.exchange()
    later = Process(path, HOUR).exchange()
    assert later.calls(2) == 0
    assert later.calls(1) > 3500
    later.exchange()
    last = Process(path, HOUR)
    last.now += 600
    assert last.exchange().calls(1) == pytest.approx(3000, abs=2)
    assert Process(path, HOUR, account="another").exchange().calls(5) == 0


def test_what_one_process_learns_another_knows_once_it_is_refused_itself(tmp_path: Path) -> None:
    one, other = Process(tmp_path / "x"), Process(tmp_path / "x").exchange()
    one.refused(15, 1000.0)
    one.exchange()
    assert other.ledger.wait("batch", EPOCH) == 0
    other.refused(120, 3000.0, kind="list")
    other.exchange()
    assert other.ledger.wait("batch", EPOCH) == pytest.approx(1000, abs=2)
    assert other.ledger.wait("list", EPOCH) == pytest.approx(3000, abs=2)


def test_processes_that_write_in_turn_lose_nothing_of_each_other(tmp_path: Path) -> None:
    # Catches: the row of one process replaced by that of another, which has not seen it.
    one, other = Process(tmp_path / "x").exchange(), Process(tmp_path / "x").exchange()
    one.refused(15, 1000.0)
    other.refused(120, 3000.0, kind="list")
    one.exchange()
    other.exchange()
    third = Process(tmp_path / "x").exchange()
    assert third.ledger.wait("batch", EPOCH) > 900
    assert third.ledger.wait("list", EPOCH) > 2900


def test_of_two_accounts_of_one_window_the_one_that_shut_it_stays(tmp_path: Path) -> None:
    # Catches: what was spent early, and is written late, over the refusal that came between.
    one, other = Process(tmp_path / "x", HOUR).exchange(), Process(tmp_path / "x", HOUR).exchange()
    one.calls(2)
    other.calls(3)
    other.refused(5, 3599.0)
    other.exchange()
    one.exchange()
    assert one.calls(1) > 3500
    assert Process(tmp_path / "x", HOUR).exchange().calls(1) > 3500


def test_nothing_is_written_if_there_is_nothing_to_tell(tmp_path: Path) -> None:
    Process(tmp_path / "x").exchange()
    Process(tmp_path / "x", HOUR).exchange()
    assert [*tmp_path.iterdir()] == []


def test_the_key_is_not_in_the_file(tmp_path: Path) -> None:
    process = Process(tmp_path / "x", HOUR, account=fingerprint(KEY))
    process.calls(1)
    process.exchange()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert fingerprint(KEY).encode() in held
    assert KEY.encode() not in held
    assert KEY[8:].encode() not in held


@posix
def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        process = Process(tmp_path / "state" / "x", HOUR)
        process.calls(1)
        process.exchange()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state" / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["x"]


def test_a_key_that_made_no_call_for_long_is_forgotten(tmp_path: Path) -> None:
    first, later = Process(tmp_path / "x", HOUR), Process(tmp_path / "x", HOUR, account="b")
    first.calls(1)
    first.exchange()
    later.now += FORGOTTEN_AFTER + 1
    later.calls(1)
    later.exchange()
    assert rows(tmp_path / "x") == ["b"]


def test_what_is_kept_is_json_that_anybody_can_read(tmp_path: Path) -> None:
    process = Process(tmp_path / "x")
    process.refused(15, 1000.0)
    process.exchange()
    [windows] = map(json.loads, rows(tmp_path / "x", "windows"))
    assert [(it["limit"], it["state"], it["kinds"]) for it in windows.values()] == [(15, "shut", ["batch"])]


# What a person is told


def test_what_a_file_holds_is_listed_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for number, account in enumerate("ab"):
        process = Process(path, HOUR, account=account)
        process.now += number
        process.calls(2)
        process.refused(7, 1000.0, kind="list")
        process.exchange()
    first, second = kept(path, EPOCH + 1)
    assert [(it.account, it.server, it.updated.timestamp()) for it in (first, second)] == [
        ("b", "http://x", EPOCH + 1),
        ("a", "http://x", EPOCH),
    ]
    assert {(state.policy, state.used, state.source) for state in first.quotas} == {
        ("5-an-hour", 2, "given"),
        ("7-a-window", 7, "learned"),
    }
    assert forget(path, account="c") == 0
    assert forget(path, account="a", server="http://y") == 0
    assert forget(path, account="a") == 1
    assert [it.account for it in kept(path, EPOCH)] == ["b"]
    assert forget(path) == 1
    assert kept(path, EPOCH) == ()


def test_what_is_forgotten_binds_no_later_process(tmp_path: Path) -> None:
    process = Process(tmp_path / "x")
    process.refused(7, 1000.0)
    process.exchange()
    forget(tmp_path / "x", server="http://x")
    assert Process(tmp_path / "x").exchange().calls(1) == 0
    process.exchange()  # who has known it all along does not tell it again
    assert kept(tmp_path / "x", EPOCH) == ()


def test_to_look_at_a_file_makes_none_and_waits_for_no_writer(tmp_path: Path) -> None:
    assert kept(tmp_path / "x", EPOCH) == ()
    assert forget(tmp_path / "x") == 0
    assert [*tmp_path.iterdir()] == []
    process = Process(tmp_path / "x", HOUR)
    process.calls(1)
    process.exchange()
    with closing(sqlite3.connect(tmp_path / "x", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert len(kept(tmp_path / "x", EPOCH)) == 1


@pytest.mark.parametrize("spoil", ["corrupt", "other_table"])
def test_a_file_that_is_none_of_quotas_is_named(tmp_path: Path, spoil: str) -> None:
    globals()[spoil](tmp_path / "x")
    with pytest.raises(ConfigurationError, match="is no file of quotas"):
        kept(tmp_path / "x", EPOCH)
    with pytest.raises(ConfigurationError, match="is no file of quotas"):
        forget(tmp_path / "x")


def test_a_row_that_is_garbage_is_listed_without_quotas(tmp_path: Path) -> None:
    process = Process(tmp_path / "x", HOUR)
    process.calls(1)
    process.exchange()
    with closing(sqlite3.connect(tmp_path / "x")) as connection, connection:
        connection.execute("UPDATE quotas SET windows = 'garbage', updated = 1e300")
    [row] = kept(tmp_path / "x", EPOCH)
    assert (row.account, row.quotas) == ("a", ())


# Files that are none, and garbage


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def other_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE quotas (a, b)")


def directory(path: Path) -> None:
    path.mkdir()


def under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize("spoil", [corrupt, other_table, directory, under_a_file])
def test_a_file_that_cannot_be_used_is_warned_of_once_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    path = tmp_path / "sub" / "ledger"
    path.parent.mkdir()
    spoil(path)
    process = Process(path, HOUR)
    for _ in range(3):
        process.calls(1)
        process.exchange()
    assert process.calls(3) > 0
    assert len(caplog.records) == 1
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("windows", "garbage"), ("windows", "[]"), ("windows", '{"x": NaN}'), ("windows", b"\xff"),
        ("windows", "[" * 100_000), ("windows", '{"x": {"ends": 1e999}}'), ("windows", '{"x": {}}'),
        ("updated", "x"), ("updated", b""),
    ],
)  # fmt: skip  # a table
def test_a_row_that_is_garbage_is_replaced(tmp_path: Path, column: str, value: Any) -> None:
    # Catches: an error out of the file that breaks each call of the Session; garbage that is kept forever.
    first = Process(tmp_path / "x", HOUR)
    first.calls(1)
    first.exchange()
    with closing(sqlite3.connect(tmp_path / "x")) as connection, connection:
        connection.execute(f"UPDATE quotas SET {column} = ?", (value,))
    second = Process(tmp_path / "x", HOUR).exchange()
    second.calls(5)
    second.exchange()
    assert Process(tmp_path / "x", HOUR).exchange().calls(1) > 0


def test_threads_that_make_a_new_file_at_once_all_get_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def work(number: int) -> None:
        process = Process(tmp_path / "x", HOUR, account=str(number))
        for _ in range(5):
            process.calls(1)
            process.exchange()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caplog.records == []
    assert sorted(rows(tmp_path / "x")) == [*"012345"]


# Through Sessions


@pytest.mark.virtual_clock
async def test_a_restart_does_not_spend_the_window_again(tmp_path: Path) -> None:
    ledger = tmp_path / "state" / "ledger"
    options: dict[str, Any] = {"ledger": ledger, "max_wait": 0}
    async with serving(quotas=[Quota("two", 2, 3600)], session=options) as (server, session):
        for _ in range(2):
            await session.memories.list()
        with pytest.raises(RateLimitError):
            await session.memories.list()
        assert len(server.requests) == 3
        await session.close()
        async with Session(server.api_key, base_url=server.url, **options) as again:
            assert [(it.limit, it.window) for it in again.quotas] == [(2, 3600)]
            with pytest.raises(RateLimitError) as caught:
                await again.memories.list()
            assert caught.value.retry_after == pytest.approx(3600, abs=5)
        unopened = Session(server.api_key, base_url=server.url, **options)
        with pytest.raises(RateLimitError):
            await unopened.memories.list()
        await unopened.close()
        assert len(server.requests) == 3
        async with Session(server.add_key(), base_url=server.url, **options) as stranger:
            assert stranger.quotas == ()
            await stranger.memories.list()


async def test_what_is_spent_is_written_when_a_session_is_closed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ledger": tmp_path / "x", "quotas": [QuotaPolicy(5, 3600)], "max_wait": 0}
    async with serving(session=options) as (server, session):
        for _ in range(3):
            await session.memories.list()
        await session.close()
        async with Session(server.api_key, base_url=server.url, **options) as again:
            assert [state.used for state in again.quotas] == [3]


async def test_a_session_whose_ledger_cannot_be_used_works(
    server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrupt(tmp_path / "x")
    async with Session(server.api_key, base_url=server.url, ledger=tmp_path / "x") as session:
        await asyncio.gather(*[session.memories.list() for _ in range(5)])
    assert caplog.text.count("cannot be used") == 1


async def test_a_file_that_another_process_holds_stops_no_event_loop(
    server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Catches: a second of standstill of the whole program, as long as another process holds the file.
    options: dict[str, Any] = {"ledger": tmp_path / "x", "quotas": [QuotaPolicy(50, 3600)]}
    async with Session(server.api_key, base_url=server.url, **options) as session:
        await session.memories.list()
    with closing(sqlite3.connect(tmp_path / "x", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        longest = await longest_standstill(use_a_session(server, options))
        assert longest < 0.4
        assert caplog.text.count("locked") == 1
        holder.execute("ROLLBACK")
    async with Session(server.api_key, base_url=server.url, **options) as session:
        assert session.quotas[0].used == 1  # what was spent meanwhile could not be told


async def use_a_session(server: LocalServer, options: dict[str, Any]) -> None:
    async with Session(server.api_key, base_url=server.url, **options) as session:
        for _ in range(5):
            await session.memories.list()


async def longest_standstill(work: Any) -> float:
    """Return the seconds for which the loop stood still at most, while some work was done."""
    loop, longest = asyncio.get_running_loop(), 0.0
    task = asyncio.ensure_future(work)
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.01)
        longest = max(longest, loop.time() - before - 0.01)
    task.result()
    return longest


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors cannot be counted here")
async def test_five_hundred_sessions_with_one_ledger_hold_no_file(
    server: LocalServer, tmp_path: Path
) -> None:
    # Catches: a connection to the file for each Session, which ends a web app at 1,024 descriptors.
    options: dict[str, Any] = {"ledger": tmp_path / "x", "quotas": [HOUR]}
    async with AsyncExitStack() as stack:
        keys = [server.add_key() for _ in range(500)]
        sessions = [Session(key, base_url=server.url, **options) for key in keys]
        for session in sessions:
            await stack.enter_async_context(session)
        await sessions[0].memories.list()
        assert [name for name in open_files() if str(tmp_path) in name] == []
    assert len(rows(tmp_path / "x")) == 1


def open_files() -> list[str]:
    names = []
    for name in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            names.append(str(name.readlink()))
    return names


# Real processes

CHILD = """
import asyncio, sys
from omi_async import QuotaPolicy, RateLimitError, Session
async def main(url, key, ledger, name):
    async with Session(key, base_url=url, ledger=ledger, max_wait=0) as session:
        print("ready", flush=True)
        sys.stdin.readline()
        calls = [session.memories.create(f"{name} {number}") for number in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(not isinstance(it, Exception) or type(it) is RateLimitError for it in results), results
        await asyncio.sleep(0.3)
        print("done", flush=True)
        sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def told(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_with_one_ledger_spend_one_window_and_learn_its_end_once_each(tmp_path: Path) -> None:
    # Catches: a process that goes on asking, though it and another were refused.
    with LocalServer.in_thread(quotas=[Quota("twenty", 20, 3600)]) as server:
        processes = [child(CHILD, server.url, server.api_key, str(tmp_path / "x"), name) for name in "ab"]
        for process in processes:
            assert heard(process) == "ready\n"
        for process in processes:
            told(process)
        for process in processes:
            assert heard(process) == "done\n"
        for process in processes:
            process.communicate("go\n", timeout=60)
            assert process.returncode == 0
        statuses = [record.status for record in server.requests]
        assert statuses.count(200) == 20
        assert statuses.count(429) <= 2 * 8  # what each had on the wire when it was refused
        third = child(CHILD, server.url, server.api_key, str(tmp_path / "x"), "c")
        third.communicate("go\ngo\n", timeout=60)
        assert third.returncode == 0
        assert len(server.requests) == len(statuses)


@posix
def test_what_a_process_had_learned_before_it_was_killed_is_known(tmp_path: Path) -> None:
    # Catches: a refusal that is written at the end only, which a kill -9 is not.
    with LocalServer.in_thread(quotas=[Quota("ten", 10, 3600)]) as server:
        process = child(CHILD, server.url, server.api_key, str(tmp_path / "x"), "a")
        told(process)
        assert [heard(process), heard(process)] == ["ready\n", "done\n"]
        process.kill()
        process.communicate(timeout=20)
        before = len(server.requests)
        assert before > 10
        second = child(CHILD, server.url, server.api_key, str(tmp_path / "x"), "b")
        second.communicate("go\ngo\n", timeout=60)
        assert second.returncode == 0
        assert len(server.requests) == before
