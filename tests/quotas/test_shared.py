"""Quotas that processes share: windows are spent exactly, learned once, and waited for together."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from omi_async._quota.policy import QuotaPolicy
from tests.clock import elapsed, run
from tests.quotas.model import Call, Policy, Server, Words, jitter
from tests.quotas.processes import Import, MemoryStore, Process

BATCH = frozenset({"batch"})
HOUR = 3600.0

many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refused(processes: list[Process]) -> list[Call]:
    return [call for process in processes for call in process.calls if call.status == 429]


def refusals_by_window(processes: list[Process]) -> Counter[float]:
    return Counter(call.blamed[1] for call in refused(processes) if call.blamed is not None)


async def spend_all(processes: list[Process], calls: int, **options: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(calls):
            tasks.create_task(processes[number % len(processes)].until_through(**options))


@many
@given(
    count=st.integers(1, 4),
    limit=st.integers(1, 40),
    length=st.sampled_from([60.0, HOUR, 86_400.0]),
    form=st.sampled_from(["int", "fraction"]),
    windows=st.floats(0.1, 3),
    connections=st.sampled_from([1, 4, 8]),
    trip=st.sampled_from([0.002, 0.05]),
    way=st.sampled_from([0.0001, 0.002, 0.02]),
    known=st.booleans(),
    imports=st.booleans(),
    seed=st.integers(0, 2**32),
)
@example(
    count=3, limit=15, length=HOUR, form="int", windows=2.5, connections=4, trip=0.05, way=0.0005,
    known=False, imports=True, seed=0,
)  # fmt: skip
def test_windows_are_spent_exactly_and_learned_once_between_all(
    *,
    count: int,
    limit: int,
    length: float,
    form: Any,
    windows: float,
    connections: int,
    trip: float,
    way: float,
    known: bool,
    imports: bool,
    seed: int,
) -> None:
    # Catches: a window overrun since each process counts alone, a limit that each of them has to learn, a
    # call of a window that nobody spends.
    async def main() -> None:
        policy = Policy(limit, length, BATCH)
        server = Server([policy], Words(form=form))
        store = MemoryStore(jitter(seed, way / 2, way))
        policies = [QuotaPolicy(limit, length, kinds=BATCH)] if known else []
        processes = [
            Process(store, server, *policies, connections=connections, trip=jitter(seed, trip / 2, trip))
            for _ in range(count)
        ]
        calls = max(1, int(limit * windows))
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            groups = [Import(connections) if imports else None for _ in processes]
            for number in range(calls):
                process, group = processes[number % count], groups[number % count]
                tasks.create_task(process.until_through(group=group))
        by_window = refusals_by_window(processes)
        if known:
            assert by_window == {}
        else:
            assert len(by_window) <= 1
            assert len(refused(processes)) <= count * connections
        openings = math.ceil(calls / limit) - 1
        late = elapsed(began) - openings * length
        assert late <= openings * (0.02 * length + 3) + calls * (trip + 8 * count * way) + 3
        for process in processes:
            await process.close()
            assert process.pacer._free == connections
            assert (process.pacer._queues, process.pacer._asks) == ({}, {})
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
