"""The pacer: first come, first served, through windows, cancellations and closings, on a virtual clock."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_async import ConfigurationError, RateLimitError
from omi_async._api.messages import Kind, Response
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacer import Pacer
from omi_async._quota.policy import QuotaPolicy, QuotaState
from omi_async._quota.store import LedgerFile
from tests.clock import VirtualClockLoop, elapsed, run

BATCH = frozenset({"batch"})


class CallGroup:
    """An import's calls, as the pacer sees them."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.out = 0
        self.parks: list[tuple[str, float, QuotaState | None]] = []
        self.when_told_to_wait: Callable[[], Any] = lambda: None

    @property
    def free(self) -> bool:
        return self.out < self.most

    def begin(self) -> None:
        self.out += 1

    def end(self) -> None:
        self.out -= 1
        assert self.out >= 0

    def on_quota_wait(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        self.parks.append((kind, wait, state))
        self.when_told_to_wait()


def pacer(*policies: QuotaPolicy, connections: int = 100, **options: Any) -> Pacer:
    return Pacer(Ledger(policies, **options), connections)


def batches(limit: int, window: float) -> QuotaPolicy:
    return QuotaPolicy(limit, window, kinds=BATCH)


async def call(
    pacer: Pacer, calls: list[tuple[float, int]], number: int, took: float = 0.05, **options: Any
) -> None:
    permit = await pacer.acquire("batch", **options)
    try:
        calls.append((asyncio.get_running_loop().time(), number))
        await asyncio.sleep(took)
        permit.answered(Response(200))
    except asyncio.CancelledError as error:
        permit.failed(error)
        raise


def in_windows(moments: list[float], length: float, limit: int) -> None:
    """Assert that a server with such a window, opened by its first call, would refuse none."""
    opened, count = -math.inf, 0
    for moment in sorted(moments):
        if moment >= opened + length:
            opened, count = moment, 0
        count += 1
        assert count <= limit, moments


@pytest.mark.virtual_clock
async def test_first_come_first_served_over_windows() -> None:
    # Catches: a heap of timers instead of a queue; those who come late pass those who wait.
    it, calls = pacer(batches(5, 60)), list[tuple[float, int]]()
    async with asyncio.TaskGroup() as tasks:
        for number in range(16):
            tasks.create_task(call(it, calls, number))
            await asyncio.sleep(0.01)
        await asyncio.sleep(70)
        for number in range(16, 20):
            tasks.create_task(call(it, calls, number))
    assert [number for _, number in calls] == [*range(20)]
    in_windows([moment for moment, _ in calls], 60, 5)
    assert calls[-1][0] - calls[0][0] < 182


@pytest.mark.virtual_clock
async def test_through_an_opening_one_call_goes_alone() -> None:
    # Catches: a thundering herd at a window that turns out to be shut.
    it, calls = pacer(batches(16, 3600)), list[tuple[float, int]]()
    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(call(it, calls, number, took=0.3))
    moments = [moment for moment, _ in calls]
    assert moments[:16] == moments[:1] * 16
    assert moments[17] - moments[16] == pytest.approx(0.3)
    assert moments[17:32] == moments[17:18] * 15
    calls.clear()
    async with asyncio.TaskGroup() as tasks:
        for number in range(24):
            tasks.create_task(call(it, calls, number, took=30))
    moments = [moment for moment, _ in calls]
    opening = next(n for n, (a, b) in enumerate(pairwise(moments), 1) if b - a > 1000)
    assert moments[opening + 1] - moments[opening] == pytest.approx(
        1, abs=0.01
    )  # whose answer takes too long


@settings(max_examples=40, deadline=None)
@given(
    limit=st.integers(1, 7),
    window=st.sampled_from([1.0, 10.0, 60.0]),
    connections=st.integers(1, 20),
    groups=st.lists(st.booleans(), min_size=16, max_size=16),
    cancelled=st.dictionaries(st.integers(0, 15), st.floats(0, 150)),
    together=st.booleans(),
)
def test_sixteen_callers_of_whom_some_are_cancelled(
    *,
    limit: int,
    window: float,
    connections: int,
    groups: list[bool],
    cancelled: dict[int, float],
    together: bool,
) -> None:
    # Catches: a permit granted to a caller who is gone, a place on the wire or in a window lost with it.
    async def main() -> None:
        it, group = pacer(batches(limit, window), connections=connections), CallGroup(3)
        calls: list[tuple[float, int]] = []
        loop = asyncio.get_running_loop()
        tasks = {}
        for number in range(16):
            options = {"group": group} if groups[number] else {}
            tasks[number] = asyncio.create_task(call(it, calls, number, took=0.02, **options))
            if number in cancelled:
                loop.call_later(cancelled[number], tasks[number].cancel)
            if not together:
                await asyncio.sleep(0.3)
        await asyncio.wait(tasks.values())
        for number, task in tasks.items():
            assert task.cancelled() if number in cancelled and task.cancelled() else task.exception() is None
        made = [number for _, number in calls]
        assert len(made) == len({*made})
        assert {*made} >= {*range(16)} - {*cancelled}
        in_windows([moment for moment, _ in calls], window, limit)
        assert (it._free, group.out, it._queues) == (connections, 0, {})
        # Afterwards all of the window, and of the connections, is there.
        await asyncio.sleep(2 * window)
        permits = [await it.acquire("batch", patience=2) for _ in range(min(limit, connections))]
        for permit in permits:
            permit.give_back()

    run(main())


@pytest.mark.virtual_clock
async def test_another_kind_is_not_held_back_by_one_that_waits() -> None:
    it, calls = pacer(batches(1, 3600)), list[tuple[float, int]]()
    before = asyncio.get_running_loop().time()
    waiting = [asyncio.create_task(call(it, calls, number)) for number in range(3)]
    await asyncio.sleep(1)
    for _ in range(50):
        (await it.acquire("create", patience=0)).answered(Response(200))
    assert elapsed(before) < 2
    await asyncio.wait(waiting)
    assert elapsed(before) == pytest.approx(7200, abs=4)


@pytest.mark.virtual_clock
async def test_who_waits_for_longer_than_his_patience_is_sent_away_at_once_and_counts_for_nothing() -> None:
    it, calls = pacer(batches(2, 100)), list[tuple[float, int]]()
    for number in range(2):
        await call(it, calls, number)
    before = asyncio.get_running_loop().time()
    with pytest.raises(RateLimitError, match="2-in-100-s quota is used up") as caught:
        await it.acquire("batch", patience=60)
    assert elapsed(before) == 0
    assert caught.value.retry_after == pytest.approx(100, abs=1.1)
    assert not caught.value.maybe_applied
    await asyncio.sleep(50)
    await call(it, calls, 2, patience=60)
    assert len(calls) == 3
    assert it._queues == {}


@pytest.mark.virtual_clock
async def test_a_queue_longer_than_the_next_window_sends_the_last_ones_away_when_that_is_clear() -> None:
    it, calls = pacer(batches(2, 50)), list[tuple[float, int]]()
    results = await asyncio.gather(
        *[call(it, calls, number, patience=60) for number in range(6)], return_exceptions=True
    )
    assert [number for _, number in calls] == [0, 1, 2, 3]
    assert [type(result) for result in results[4:]] == [RateLimitError] * 2


@pytest.mark.virtual_clock
async def test_the_head_start_of_the_first_call_is_no_wait_for_quotas() -> None:
    # Catches: a call with max_wait=0 refused, or an import stopped, while the window is open.
    it, calls, group = pacer(batches(4, 3600)), list[tuple[float, int]](), CallGroup()
    for number in range(4):
        await call(it, calls, number)
    await asyncio.sleep(3700)
    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            options = {"group": group} if number % 2 else {"patience": 0}
            tasks.create_task(call(it, calls, number, **options))
    assert len(calls) == 8
    assert group.parks == []


@pytest.mark.virtual_clock
async def test_an_import_leaves_a_reserve_to_live_calls() -> None:
    it, calls, group = pacer(batches(10, 3600), reserve=0.3), list[tuple[float, int]](), CallGroup(8)
    importing = [asyncio.create_task(call(it, calls, number, group=group)) for number in range(12)]
    await asyncio.sleep(10)
    assert len(calls) == 7
    for number in range(100, 103):
        await call(it, calls, number, patience=0)
    with pytest.raises(RateLimitError):
        await it.acquire("batch", patience=0)
    await asyncio.wait(importing)
    assert len(calls) == 15


@pytest.mark.virtual_clock
async def test_closing_sends_all_away_and_lets_no_caller_wait_any_more() -> None:
    # Catches: a worker that comes back after the closing, and waits an hour for a window.
    it, calls, group = pacer(batches(1, 3600)), list[tuple[float, int]](), CallGroup()
    await call(it, calls, 0)
    waiting = [asyncio.create_task(it.acquire("batch", group=group if n % 2 else None)) for n in range(4)]
    await asyncio.sleep(1)
    before = asyncio.get_running_loop().time()
    it.close(lambda: ConfigurationError("closed"))
    results = await asyncio.gather(*waiting, it.acquire("batch"), it.acquire("list"), return_exceptions=True)
    assert [type(result) for result in results] == [ConfigurationError] * 6
    assert len({id(result) for result in results}) == 6
    assert elapsed(before) == 0
    assert (it._queues, it._timer) == ({}, None)


@pytest.mark.virtual_clock
async def test_those_who_were_cancelled_leave_nothing_behind() -> None:
    it, calls = pacer(batches(1, 3600)), list[tuple[float, int]]()
    await call(it, calls, 0)
    waiting = [asyncio.create_task(it.acquire("batch")) for _ in range(5)]
    await asyncio.sleep(1)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (it._queues, it._timer) == ({}, None)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    del waiting, task
    gc.collect()


@pytest.mark.virtual_clock
async def test_an_import_that_ends_since_it_has_to_wait_takes_no_other_with_it() -> None:
    # Catches: an assertion in the midst of the dispatching, which a timer or a live call's answer ran into.
    policies = [QuotaPolicy(1, 3600, kinds=frozenset({kind})) for kind in ("batch", "list", "create")]
    it, group = pacer(*policies), CallGroup()
    for kind in ("batch", "list", "create"):
        (await it.acquire(kind)).answered(Response(200))
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    tasks = [asyncio.create_task(it.acquire(kind, group=group)) for kind in ("batch", "list", "create")]
    await asyncio.sleep(1)
    group.when_told_to_wait = lambda: [task.cancel() for task in tasks]
    live = await it.acquire("delete")
    live.answered(Response(200))  # looks again who may go
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert failures == []
    assert it._queues == {}


@pytest.mark.virtual_clock
@pytest.mark.parametrize("jump", [-86_400.0, -5.0, 5.0, 3600.0, 86_400.0])
async def test_a_jump_of_the_clock_on_the_wall_makes_no_caller_wait_longer(jump: float) -> None:
    it, calls = pacer(batches(1, 600)), list[tuple[float, int]]()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    before = loop.time()
    await call(it, calls, 0)
    waiting = asyncio.create_task(call(it, calls, 1))
    await asyncio.sleep(100)
    loop.wall_at_zero += jump
    await waiting
    assert elapsed(before) <= 601
    if jump > 600:  # the machine may have slept: this is looked at within half a minute
        assert elapsed(before) <= 131
    await asyncio.wait_for(call(it, calls, 2), 602)


@pytest.mark.virtual_clock
async def test_a_permit_granted_to_a_caller_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    it, group = pacer(batches(3, 3600), connections=1), CallGroup(1)
    first = await it.acquire("batch")
    gone = asyncio.create_task(it.acquire("batch", group=group))
    after = asyncio.create_task(it.acquire("batch"))
    await asyncio.sleep(1)
    first.answered(Response(200))  # grants the next one
    gone.cancel()
    await asyncio.wait({gone, after})
    assert gone.cancelled()
    assert group.out == 0
    after.result().answered(Response(200))
    assert it.states()[0].used == 2


@pytest.mark.virtual_clock
async def test_nobody_goes_before_it_is_read_what_others_have_spent(tmp_path: Path) -> None:
    # Catches: an import that changes its mind meanwhile, and lets the others through with it.
    for number in range(2):
        it = pacer(batches(1, 3600))
        it.keep(LedgerFile(tmp_path / "x", "a", "http://x"))
        calling = asyncio.create_task(it.acquire("batch", patience=0))
        await asyncio.sleep(0)
        it.reconsider()
        if number == 0:
            (await calling).answered(Response(200))
            await it.save()
    with pytest.raises(RateLimitError):
        await calling
