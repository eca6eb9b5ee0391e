"""The clock of a pacer: over the sleep of a machine, and in agreement with a store's."""

from __future__ import annotations

import asyncio

import pytest

from omi_async._quota.clock import Clock
from tests.clock import VirtualClockLoop

pytestmark = pytest.mark.virtual_clock


def the_loop() -> VirtualClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    return loop


async def test_it_agrees_with_another_clock_and_does_not_follow_what_the_way_has_taken() -> None:
    # Catches: a clock that jumps with each answer, so that an opener seems to be later than who came after.
    clock = Clock()
    since = clock.now()
    await asyncio.sleep(0.4)
    turned = clock.agree(since + 3600.1, since)
    assert turned == pytest.approx(3599.7)
    for after in (0.0, 0.1, 0.399):
        since = clock.now()
        await asyncio.sleep(0.4)
        assert clock.agree(since + after, since) == 0
    since = clock.now()
    assert clock.agree(since - 7, since) == pytest.approx(-7)
    assert clock.now() == pytest.approx(since - 7)


async def test_what_is_measured_here_alone_does_not_jump() -> None:
    clock = Clock()
    before = clock.steady()
    clock.agree(clock.now() - 1_000_000, clock.now())
    await asyncio.sleep(5)
    assert clock.steady() - before == pytest.approx(5)
    assert clock.wall() == pytest.approx(clock.now())


async def test_once_it_agrees_the_wall_may_show_what_it_likes() -> None:
    # Catches: a user who sets the clock, and calls that are counted in an hour that has not come.
    clock = Clock()
    clock.agree(clock.now() + 50, clock.now())
    before = clock.now()
    the_loop().wall_at_zero += 3600
    assert clock.now() == pytest.approx(before)


async def test_until_then_a_sleep_of_the_machine_is_noticed() -> None:
    clock = Clock()
    before = clock.now()
    the_loop().wall_at_zero += 3600
    assert clock.now() == pytest.approx(before + 3600)
    the_loop().wall_at_zero -= 7200
    assert clock.now() == pytest.approx(before + 3600)
