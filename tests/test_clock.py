"""The clock that jumps: hours in no time, and nothing of it outside of the loop that it belongs to."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.clock import VirtualClockLoop, run

NEW_YEAR = 1_767_225_600


async def test_the_clock_on_the_wall_is_the_real_one_on_a_real_loop() -> None:
    assert time.time.__module__ == "time"
    assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)


def test_hours_pass_for_a_virtual_loop_and_for_nothing_else() -> None:
    elsewhere: list[float] = []

    async def three_hours() -> float:
        began = time.time()
        await asyncio.sleep(3 * 3600)
        beside = threading.Thread(target=lambda: elsewhere.append(time.time()))
        beside.start()
        beside.join()
        return time.time() - began

    before, clock = time.time(), time.time
    assert run(three_hours()) == pytest.approx(3 * 3600, abs=1)
    assert time.time is clock
    assert elsewhere[0] - before < 3000
    assert time.time() - before < 3000


def test_two_threads_have_a_virtual_loop_each_and_the_last_one_puts_the_clock_back() -> None:
    clock, meeting, found = time.time, threading.Barrier(2), dict[float, float]()

    async def sleep(hours: float) -> None:
        began = time.time()
        await asyncio.to_thread(meeting.wait)
        await asyncio.sleep(hours * 3600)
        await asyncio.to_thread(meeting.wait)
        found[hours] = time.time() - began

    threads = [threading.Thread(target=run, args=(sleep(hours),)) for hours in (1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: pytest.approx(3600, abs=1), 5: pytest.approx(5 * 3600, abs=1)}
    assert time.time is clock


@pytest.mark.virtual_clock
async def test_a_test_can_set_the_clock_on_the_wall() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    ticks = loop.time()
    loop.wall_at_zero += NEW_YEAR - time.time()
    assert time.time() == pytest.approx(NEW_YEAR)
    assert loop.time() == ticks
