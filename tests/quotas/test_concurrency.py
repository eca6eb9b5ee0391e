"""How many calls of an import are on the wire: rules alone, without a network."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from omi_async._api.messages import Kind
from omi_async.importing.concurrency import HEAD_START, Concurrency
from tests.clock import elapsed

pytestmark = pytest.mark.virtual_clock


class Driver:
    """Calls of so many seconds, as many at a time as are allowed."""

    def __init__(self, most: int) -> None:
        self.it = Concurrency(most, on_park=lambda *_: None, reconsider=lambda: None)
        self.most = most
        self.highest = 0

    async def calls(self, count: int, took: Any, *, kind: Kind = "batch") -> None:
        now = asyncio.get_running_loop().time
        out: set[asyncio.Task[None]] = set()

        async def one() -> None:
            began = now()
            seconds = took(self.out) if callable(took) else took
            await asyncio.sleep(abs(seconds))
            self.it.end()
            if seconds < 0:
                self.it.contended(began, now())
            else:
                self.it.answered(kind, began, now())

        for _ in range(count):
            while not self.it.free:
                _, out = await asyncio.wait(out, return_when=asyncio.FIRST_COMPLETED)
            self.it.begin()
            out.add(asyncio.create_task(one()))
            self.highest = max(self.highest, self.it._out)
            assert self.it._out <= self.most
            assert 1 <= self.it.limit <= self.most
        await asyncio.wait(out)

    @property
    def out(self) -> int:
        return self.it._out


@pytest.mark.parametrize("most", [1, 4, 16])
async def test_the_first_call_goes_alone_and_then_all(most: int) -> None:
    driver = Driver(most)
    assert driver.it.limit == 1
    await driver.calls(1, 0.1)
    assert driver.it.limit == most


async def test_a_first_call_that_takes_its_time_does_not_hold_the_others_for_long() -> None:
    driver = Driver(4)
    before = asyncio.get_running_loop().time()
    driver.it.begin()
    assert driver.it.limit == 1
    await asyncio.sleep(HEAD_START + 0.01)
    assert driver.it.limit == 4
    assert elapsed(before) < 2


async def test_one_burst_of_contention_halves_once() -> None:
    # Catches: 16 answers of one moment that halve it 16 times, down to 1.
    driver = Driver(16)
    await driver.calls(1, 0.1)
    await driver.calls(16, -1.0)
    assert driver.it.limit == 8
    await driver.calls(8, -1.0)
    assert driver.it.limit == 4
    for _ in range(8):
        await driver.calls(driver.it.limit, -1.0)
    assert driver.it.limit == 1


async def test_success_brings_it_back_and_not_above() -> None:
    driver = Driver(8)
    await driver.calls(1, 0.1)
    for _ in range(5):
        await driver.calls(8, -0.1)
    assert driver.it.limit == 1
    await driver.calls(200, 0.1)
    assert driver.it.limit == 8


async def test_a_server_that_queues_gets_fewer() -> None:
    driver = Driver(16)
    await driver.calls(64, 0.3)
    assert driver.it.limit == 16
    await driver.calls(48, lambda out: 0.3 * out)  # one at a time
    assert driver.it.limit < 16


async def test_a_server_that_has_become_slower_for_good_is_believed_in_the_end() -> None:
    driver = Driver(8)
    await driver.calls(64, 0.3)
    await driver.calls(4000, 2.0)
    assert driver.it.limit == 8


async def test_noise_of_milliseconds_lowers_nothing() -> None:
    chance = random.Random(5)
    driver = Driver(16)
    await driver.calls(16, 0.001)
    await driver.calls(500, lambda _: chance.choice([0.001, 0.002, 0.01, 0.05, 0.2, 0.4]))
    assert driver.it.limit == 16


async def test_calls_of_one_kind_are_not_measured_by_those_of_another() -> None:
    # Catches: single facts of a tenth of a second that make batches of three seconds look like congestion.
    driver = Driver(8)
    for _ in range(10):
        await driver.calls(40, 0.1, kind="create")
        await driver.calls(40, 3.0, kind="batch")
        assert driver.it.limit == 8
