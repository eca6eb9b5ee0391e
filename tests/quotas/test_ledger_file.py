"""The ledger's file: several processes, restarts, crashes, and files that are none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from omi_async import RateLimitError, Session
from omi_async._api.headers import RateLimitHeaders
from omi_async._quota.ledger import Ledger
from omi_async._quota.policy import QuotaPolicy
from omi_async._quota.store import FORGOTTEN_AFTER, LedgerFile, fingerprint
from omi_async.local import LocalServer, Quota
from tests.importing.helpers import serving
from tests.quotas.model import EPOCH

KEY = "omi_dev_0123456789abcdef"
HOUR = QuotaPolicy(5, 3600)


def file(path: Path, account: str = "a") -> LedgerFile:
    return LedgerFile(path, account, "http://x")


def spend(file: LedgerFile, ledger: Ledger, now: float = EPOCH) -> float:
    """Make a call, as the pacer does; return how long it would have to wait, where it must."""

    def work() -> float:
        wait = ledger.wait("batch", now)
        if not wait:
            ledger.answered(ledger.spend("batch", now), now)
        return wait

    return file.within(ledger, lambda: now, work)


def refuse(file: LedgerFile, ledger: Ledger, now: float, signs: RateLimitHeaders) -> None:
    file.within(ledger, lambda: now, lambda: ledger.refused(ledger.spend("batch", now), now, signs))


def test_processes_and_later_ones_spend_one_window_together(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "ledger"
    pairs = [(file(path), Ledger([HOUR])) for _ in range(3)]
    waits = [spend(*pairs[number % 3]) for number in range(7)]
    assert [wait > 0 for wait in waits] == [False] * 5 + [True] * 2
    for each, _ in pairs:
        each.close()
    assert spend(file(path), Ledger([HOUR]), EPOCH + 600) == pytest.approx(3000, abs=2)
    assert spend(file(path, "another"), Ledger([HOUR])) == 0
    if os.name == "posix":
        assert path.parent.stat().st_mode & 0o077 == 0


def test_what_one_process_learns_all_know(tmp_path: Path) -> None:
    one, other = file(tmp_path / "x"), file(tmp_path / "x")
    ledger, another = Ledger(), Ledger()
    spend(other, another)
    refuse(one, ledger, EPOCH, RateLimitHeaders(15, 0, 1000.0))
    assert spend(other, another) == pytest.approx(1000, abs=2)


def test_the_key_is_not_in_the_file(tmp_path: Path) -> None:
    each = LedgerFile(tmp_path / "x", fingerprint(KEY), "http://x")
    spend(each, Ledger([HOUR]))
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert fingerprint(KEY).encode() in held
    assert KEY.encode() not in held
    assert KEY[8:].encode() not in held
    each.close()


def test_a_key_that_made_no_call_for_long_is_forgotten(tmp_path: Path) -> None:
    first = file(tmp_path / "x")
    spend(first, Ledger([HOUR]))
    first.close()
    later = file(tmp_path / "x", "b")
    spend(later, Ledger([HOUR]), EPOCH + FORGOTTEN_AFTER + 1)
    later.close()
    with closing(sqlite3.connect(tmp_path / "x")) as connection:
        rows = connection.execute("SELECT account FROM ledgers").fetchall()
    assert rows == [("b",)]


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def other_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE ledgers (a, b)")


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
    each, ledger = file(path), Ledger([HOUR])
    waits = [spend(each, ledger) for _ in range(7)]
    assert [wait > 0 for wait in waits] == [False] * 5 + [True] * 2
    assert len(caplog.records) == 1
    assert "cannot be used" in caplog.text
    each.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "garbage"), ("state", "[]"), ("state", '{"edge": NaN, "windows": {}}'), ("state", b"\xff"),
        ("state", "[" * 100_000), ("state", '{"edge": 0, "windows": {"x": {"ends": 1e999}}}'),
        ("version", "x"), ("version", -(2**63)), ("updated", "x"), ("updated", b""),
    ],
)  # fmt: skip  # a table
def test_a_row_that_is_garbage_is_replaced(tmp_path: Path, column: str, value: Any) -> None:
    # Catches: an error out of the file that breaks each call of the Session.
    first = file(tmp_path / "x")
    spend(first, Ledger([HOUR]))
    first.close()
    with closing(sqlite3.connect(tmp_path / "x")) as connection, connection:
        connection.execute(f"UPDATE ledgers SET {column} = ?", (value,))
    connection.close()
    each, ledger = file(tmp_path / "x"), Ledger([HOUR])
    assert [spend(each, ledger) > 0 for _ in range(6)][-1] or column != "state"
    assert spend(file(tmp_path / "x"), Ledger([HOUR])) > 0
    each.close()


def test_a_file_that_another_process_holds_is_waited_for_once_and_then_left_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Catches: a second of standstill of the whole loop for each call, as long as somebody holds the file.
    monkeypatch.setattr("omi_async._quota.store.PATIENCE", 0.1)
    each, ledger = file(tmp_path / "x"), Ledger([HOUR])
    spend(each, ledger)
    holder = sqlite3.connect(tmp_path / "x", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    for _ in range(30):
        spend(each, ledger)
    assert time.monotonic() - began < 1.5
    assert caplog.text.count("locked") == 1
    holder.execute("ROLLBACK")
    holder.close()
    spend(each, ledger, EPOCH + 100)
    assert spend(file(tmp_path / "x"), Ledger([HOUR]), EPOCH + 100) > 0  # what was spent alone is known again
    each.close()


def test_a_file_that_is_locked_when_it_is_opened_is_used_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Catches: a connection kept although its table was never made.
    monkeypatch.setattr("omi_async._quota.store.PATIENCE", 0.05)
    holder = sqlite3.connect(tmp_path / "x", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    each, ledger = file(tmp_path / "x"), Ledger([HOUR])
    spend(each, ledger)
    holder.execute("ROLLBACK")
    holder.close()
    spend(each, ledger, EPOCH + 61)
    each.close()
    connection = sqlite3.connect(tmp_path / "x")
    assert connection.execute("SELECT count(*) FROM ledgers").fetchone() == (1,)
    connection.close()


def test_what_could_not_be_written_is_not_taken_for_known(tmp_path: Path) -> None:
    # Catches: a count of ours lost, or one of another process not read, since the numbers of both agree.
    one, other = file(tmp_path / "x"), file(tmp_path / "x")
    ledger, another = Ledger([HOUR]), Ledger([HOUR])
    spend(one, ledger)
    spend(other, another)
    connection = one._connection
    assert connection is not None
    connection.execute("PRAGMA query_only = ON")
    spend(one, ledger)  # cannot be written: from now on it goes alone
    for _ in range(3):
        assert spend(other, another) == 0
    assert spend(other, another) > 0
    one.close()
    other.close()


def test_threads_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    failures: list[Any] = []

    def work() -> None:
        each, ledger = file(tmp_path / "x"), Ledger([QuotaPolicy(1000, 3600)])
        for _ in range(20):
            spend(each, ledger)
        if not each._usable:
            failures.append(each)
        each.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    counted = Ledger([QuotaPolicy(1000, 3600)])
    spend(file(tmp_path / "x"), counted)
    assert counted.states(EPOCH)[0].used == 6 * 20 + 1


# Real processes

CHILD = """
import asyncio, sys
from omi_async import RateLimitError, Session
from omi_async._quota import store as _ledger_file
from omi_async._quota.policy import QuotaPolicy
_ledger_file.PATIENCE = 60.0  # on a busy machine the other may be put to sleep in the middle of a transaction
async def main(url, key, ledger, name):
    quotas = [QuotaPolicy(20, 3600)]
    async with Session(key, base_url=url, ledger=ledger, quotas=quotas, max_wait=0) as session:
        print("ready", flush=True)
        sys.stdin.readline()
        calls = [session.memories.create(f"{name} {number}") for number in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(not isinstance(result, Exception) or type(result) is RateLimitError for result in results)
asyncio.run(main(*sys.argv[1:]))
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_with_one_ledger_stay_within_the_window(tmp_path: Path) -> None:
    # Catches: each process spending the whole window, a call that is counted by one and not by the other.
    with LocalServer.in_thread(quotas=[Quota("twenty", 20, 3600)]) as server:
        processes = [child(CHILD, server.url, server.api_key, str(tmp_path / "x"), name) for name in "ab"]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        assert [record.status for record in server.requests] == [200] * 20


KILLED = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from tests.quotas.test_ledger_file import EPOCH, HOUR, Ledger, file, spend
each, ledger = file(Path(sys.argv[1])), Ledger([HOUR])
spend(each, ledger)
spend(each, ledger)
work = lambda: (ledger.spend("batch", EPOCH), os.kill(os.getpid(), signal.SIGKILL))
each.within(ledger, lambda: EPOCH, work)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_process_that_is_killed_in_a_transaction_does_no_harm(tmp_path: Path) -> None:
    process = child(KILLED, str(tmp_path / "x"))
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    each, ledger = file(tmp_path / "x"), Ledger([HOUR])
    assert [spend(each, ledger) > 0 for _ in range(4)] == [False] * 3 + [True]
    each.close()


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
        async with Session(server.api_key, base_url=server.url, **options) as again:
            assert [(it.limit, it.window) for it in again.quotas] == [(2, 3600)]
            with pytest.raises(RateLimitError) as caught:
                await again.memories.list()
            assert caught.value.retry_after == pytest.approx(3600, abs=5)
        assert len(server.requests) == 3
        async with Session(server.add_key(), base_url=server.url, **options) as stranger:
            assert stranger.quotas == ()
            await stranger.memories.list()


async def test_a_session_whose_ledger_cannot_be_used_works(
    server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrupt(tmp_path / "x")
    async with Session(server.api_key, base_url=server.url, ledger=tmp_path / "x") as session:
        await asyncio.gather(*[session.memories.list() for _ in range(5)])
    assert caplog.text.count("cannot be used") == 1


def test_what_is_kept_is_json_that_anybody_can_read(tmp_path: Path) -> None:
    spend(each := file(tmp_path / "x"), Ledger([HOUR]))
    each.close()
    connection = sqlite3.connect(tmp_path / "x")
    [(state,)] = connection.execute("SELECT state FROM ledgers").fetchall()
    connection.close()
    assert json.loads(state)["windows"]
