"""Who works on a job: seats that are taken, left, and found empty after a kill."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omi_async.jobs.files import JobFiles
from omi_async.jobs.seats import Seat
from tests.jobs.test_jobs import app, facts, kept


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    seat = Seat(tmp_path / "jobs")
    seat.take()
    yield seat
    seat.leave()


def job(tmp_path: Path, seat: Seat, name: str = "one") -> JobFiles:
    return JobFiles(tmp_path / "jobs" / name, seat)


def test_each_takes_a_seat_of_its_own_and_an_empty_one_is_taken_again(tmp_path: Path, seat: Seat) -> None:
    other, third = Seat(tmp_path / "jobs"), Seat(tmp_path / "jobs")
    other.take()
    assert (seat.number, other.number) == ("0", "1")
    assert (seat.is_taken("1"), other.is_taken("0"), seat.is_taken("2")) == (True, True, False)
    other.leave()
    other.leave()
    assert not seat.is_taken("1")
    third.take()
    assert third.number == "1"
    third.leave()
    with pytest.raises(RuntimeError, match="async with"):
        third.number  # noqa: B018  # it raises


def test_looking_at_a_seat_takes_it_from_nobody(tmp_path: Path, seat: Seat) -> None:
    # Catches: POSIX locks end when the process closes any descriptor of the file, and not only their own.
    other = Seat(tmp_path / "jobs")
    other.take()
    for _ in range(3):
        assert other.is_taken(seat.number)
    look = (
        "import sys; from pathlib import Path; from omi_async.jobs.seats import Seat; "
        "print(Seat(Path(sys.argv[1])).is_taken('0'))"
    )
    command = [sys.executable, "-c", look, str(tmp_path / "jobs")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
    other.leave()


def test_a_job_has_one_who_works_on_it(tmp_path: Path, seat: Seat) -> None:
    other = Seat(tmp_path / "jobs")
    other.take()
    ours, theirs = job(tmp_path, seat), job(tmp_path, other)
    assert ours.make()
    assert (theirs.make(), theirs.lock(), ours.lock()) == (False, False, True)
    theirs.unlock()  # of no effect: it is not theirs
    theirs.remove()
    assert not theirs.lock()
    ours.unlock()
    assert (theirs.lock(), ours.lock()) == (True, False)
    theirs.remove()
    assert (ours.lock(), theirs.lock()) == (False, False)
    assert kept(tmp_path / "jobs") == set()
    other.leave()


def test_of_many_that_find_an_empty_seat_one_takes_the_job_over(tmp_path: Path, seat: Seat) -> None:
    dead = Seat(tmp_path / "jobs")
    dead.take()
    assert job(tmp_path, dead).make()
    seats = [Seat(tmp_path / "jobs") for _ in range(8)]
    for each in seats:
        each.take()
    dead.leave()  # as a kill does, without unlocking anything
    start = threading.Barrier(len(seats))
    won: list[str] = []

    def take_over(taker: Seat) -> None:
        start.wait()
        if job(tmp_path, taker).lock():
            won.append(taker.number)

    threads = [threading.Thread(target=take_over, args=(each,)) for each in seats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    for each in seats:
        each.leave()


def test_the_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        seat = Seat(tmp_path / "jobs")
        seat.take()
        assert job(tmp_path, seat).make()
    finally:
        os.umask(before)
    paths = [tmp_path / "jobs", *(tmp_path / "jobs").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
    seat.leave()


def test_a_source_that_goes_on_in_its_thread_makes_no_folder_again(tmp_path: Path) -> None:
    # Catches: half a job, which the next request with its id takes for one that another process is copying.
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[str]:
        entered.set()
        go_on.wait()
        yield "too late"

    async def leave() -> None:
        async with app(tmp_path) as it:
            async with it.jobs() as jobs:
                starting = asyncio.create_task(jobs.start("dana", slow(), "mine"))
                await asyncio.to_thread(entered.wait)
            with pytest.raises(RuntimeError, match="the app ends"):
                await starting
            go_on.set()

    async def come_back() -> None:
        async with app(tmp_path) as it, it.jobs() as jobs:
            assert kept(it.folder) == set()
            assert (await (await jobs.start("dana", facts(1), "mine")).result()).created == 1

    asyncio.run(leave())  # which waits for the thread
    asyncio.run(come_back())
