"""What several processes make of one ledger: whose turn it is, and what time it is then."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from omi_async import OmiError
from omi_async._api.headers import RateLimitHeaders
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacer import Pacer
from omi_async._quota.policy import QuotaPolicy
from omi_async._quota.store import LedgerFile
from tests.clock import VirtualClockLoop
from tests.quotas.model import EPOCH
from tests.quotas.test_ledger_file import HOUR, file, refuse, spend

T = TypeVar("T")


def test_the_first_call_through_an_opening_goes_alone_among_all_processes(tmp_path: Path) -> None:
    # Catches: a process that sends all of its calls after another's first one, which came too early.
    one, other = file(tmp_path / "x"), file(tmp_path / "x")
    ledger, another = Ledger([HOUR]), Ledger([HOUR])
    for _ in range(5):
        spend(one, ledger)
    now = EPOCH + 3606
    first = one.within(ledger, lambda: now, lambda: ledger.spend("batch", now))
    assert 0 < spend(other, another, now + 0.1) <= 1
    one.within(ledger, lambda: now + 0.2, lambda: ledger.answered(first, now + 0.2))
    assert spend(other, another, now + 0.2) == 0


def test_all_processes_know_that_an_end_was_rounded_down(tmp_path: Path) -> None:
    # Catches: many short waits in one process for the second that another's refusal has told of.
    one, other = file(tmp_path / "x"), file(tmp_path / "x")
    ledger, another = Ledger([HOUR]), Ledger([HOUR])
    refuse(one, ledger, EPOCH, RateLimitHeaders(5, 0, 300.0))
    assert other.within(another, lambda: EPOCH, lambda: another.wait("batch", EPOCH, live=False)) == 301
    refuse(other, another, EPOCH + 300, RateLimitHeaders(5, 0, 0.0))
    assert spend(one, ledger, EPOCH + 300) == pytest.approx(1)


def is_held(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def test_the_time_is_read_once_the_file_is_ours(tmp_path: Path) -> None:
    # Catches: what others wrote while we waited for them taken for the future, and moved to be the past.
    one, other = file(tmp_path / "x"), file(tmp_path / "x")
    ledger, another = Ledger([HOUR]), Ledger([HOUR])
    waits = [spend(one, ledger) for _ in range(6)]
    wait = other.within(
        another,
        lambda: EPOCH if is_held(tmp_path / "x") else EPOCH - 100,
        lambda: another.wait("batch", EPOCH),
    )
    assert wait == waits[-1] > 3600
    one.close()
    other.close()


class HeldByOthers(LedgerFile):
    """A file that somebody else holds for a second each time."""

    def within(self, ledger: Ledger, clock: Callable[[], float], work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        loop.now += 1
        return super().within(ledger, clock, work)


@pytest.mark.virtual_clock
async def test_a_call_leaves_when_the_file_was_had(tmp_path: Path) -> None:
    # Catches: a window that we believe to end before the server's, by as long as we waited for the file.
    ledger = Ledger([QuotaPolicy(1, 60)])
    pacer = Pacer(ledger, 8, HeldByOthers(tmp_path / "x", "a", "http://x"))
    assert pacer.try_acquire("batch") is not None
    assert ledger.wait("batch", pacer.clock.now()) >= 60
    pacer.close(OmiError)
