"""Quotas that processes share: windows are spent exactly, learned once, and waited for together."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from omi_async import ConfigurationError, RateLimitError, Session
from omi_async._quota.policy import QuotaPolicy
from omi_async._quota.storekeeper import AGAIN, IMPORTS_WAIT, PATIENCE
from omi_async.local import Quota
from tests.clock import elapsed, run
from tests.importing.helpers import facts, serving
from tests.quotas.model import Call, Policy, Server, Words, jitter
from tests.quotas.processes import Import, MemoryStore, Outage, Process

KEY = "omi_dev_0123456789abcdef"
BATCH = frozenset({"batch"})
HOUR = 3600.0

many = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


def hour(limit: int, *kinds: str) -> tuple[Policy, QuotaPolicy]:
    """A window of the server's, and what a Session is told of it."""
    names: Any = kinds or ("batch",)
    return Policy(limit, HOUR, frozenset(names)), QuotaPolicy(limit, HOUR, kinds=frozenset(names))


def processes_of(
    store: MemoryStore, server: Server, count: int, *policies: QuotaPolicy, **options: Any
) -> list[Process]:
    return [Process(store, server, *policies, **options) for _ in range(count)]


async def settled() -> None:
    """Let everybody tell the store what has become of calls."""
    await asyncio.sleep(0.1)


def sent_by_all(processes: list[Process]) -> list[float]:
    return sorted(call.sent for process in processes for call in process.calls)


@pytest.mark.virtual_clock
async def test_when_a_window_opens_one_call_goes_alone_whatever_the_number_of_processes() -> None:
    # Catches: a probe for each process, so that a window that opens later than we think refuses as many.
    policy, known = hour(9)
    server, store = Server([policy], Words(form="fraction")), MemoryStore()
    processes = processes_of(store, server, 3, known)
    server.take("batch", asyncio.get_running_loop().time())
    policy.opened_at += 2.5  # as if the first call had been slow on its way, and not to come back
    policy.count = 0
    await spend_all(processes, 9)
    await spend_all(processes, 9)
    assert len(refused(processes)) == 1
    first, second, *others = [it - sent_by_all(processes)[0] for it in sent_by_all(processes)[9:]]
    assert second - first > 0.5
    assert others[0] - second > 0.02  # the next probe
    assert others[-1] < HOUR + 8


@pytest.mark.virtual_clock
async def test_the_probe_of_one_process_is_the_probe_of_all() -> None:
    # Catches: processes that send a probe each, one after the other.
    policy, known = hour(9)
    server, store = Server([policy], Words()), MemoryStore()
    processes = processes_of(store, server, 3, known, connections=9, trip=lambda: 0.3)
    await spend_all(processes, 18)
    assert refused(processes) == []
    probe, *others = sent_by_all(processes)[9:]
    assert 0.5 < others[0] - probe < 0.7  # those of its own process know when it is back
    assert others[-1] - probe < 1.1


@pytest.mark.virtual_clock
async def test_a_reserve_is_left_to_live_calls_of_other_processes() -> None:
    policy, known = hour(10)
    server, store = Server([policy], Words()), MemoryStore()
    worker, web = processes_of(store, server, 2, known, reserve=0.3)
    importing = [asyncio.create_task(worker.until_through(group=Import())) for _ in range(12)]
    await asyncio.sleep(60)
    assert len(worker.calls) == 7
    for _ in range(3):
        assert await web.call(patience=0)
    with pytest.raises(RateLimitError):
        await web.call(patience=0)
    await asyncio.wait(importing)
    assert refused([worker, web]) == []


@pytest.mark.virtual_clock
async def test_who_would_wait_too_long_for_what_others_have_spent_is_told_at_once() -> None:
    policy, known = hour(4)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    await other.pacer.open()  # it knows that nothing is spent
    await spend_all([one], 4)
    before = asyncio.get_running_loop().time()
    with pytest.raises(RateLimitError, match="4-an-hour quota is used up") as told:
        await other.call(patience=60)
    assert elapsed(before) < 0.1
    assert told.value.retry_after == pytest.approx(HOUR, abs=2)
    assert other.calls == []
    assert (other.pacer._asks, other.pacer._queues, other.pacer._free) == ({}, {}, 4)


@pytest.mark.virtual_clock
async def test_those_who_were_overtaken_by_another_process_keep_their_order() -> None:
    # Catches: callers who were put back behind those who came after them.
    policy, known = hour(6)
    server, store = Server([policy], Words()), MemoryStore(lambda: 0.05)
    one, other = processes_of(store, server, 2, known, connections=8)
    order: list[int] = []

    async def call(number: int) -> None:
        permit = await one.pacer.acquire("batch")
        order.append(number)
        await asyncio.sleep(0.3)
        permit.answered(server.take("batch", asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(call(number))
            if number % 2:
                tasks.create_task(other.until_through())
            await asyncio.sleep(0.01)
    assert order == [*range(20)]


@pytest.mark.virtual_clock
async def test_a_process_that_died_with_calls_out_blocks_no_window_for_longer_than_its_length() -> None:
    policy, known = Policy(3, 60.0, BATCH), QuotaPolicy(3, 60, kinds=BATCH)
    server, store = Server([policy], Words()), MemoryStore()
    dying, other = processes_of(store, server, 2, known)
    permits = [await dying.pacer.acquire("batch") for _ in range(3)]
    await settled()  # and it is never heard of again
    before = asyncio.get_running_loop().time()
    await spend_all([other], 6)
    assert refused([other]) == []
    assert elapsed(before) == pytest.approx(2 * 60, abs=3)
    del permits


@pytest.mark.virtual_clock
async def test_the_death_of_a_process_in_a_long_window_costs_the_next_one_nothing() -> None:
    # Catches: calls of the dead that are counted in each window that opens afterwards.
    policy, known = hour(5)
    server, store = Server([policy], Words()), MemoryStore()
    dying, other = processes_of(store, server, 2, known)
    await other.call()
    await asyncio.sleep(HOUR - 400)
    permits = [await dying.pacer.acquire("batch") for _ in range(2)]
    await settled()
    await spend_all([other], 2 + 5)
    assert refused([other]) == []
    assert len({math.floor((it - sent_by_all([other])[0]) / HOUR) for it in sent_by_all([other])}) == 2
    del permits


# The store has troubles


@pytest.mark.virtual_clock
@pytest.mark.parametrize("outage", [Outage(), Outage(hangs=True), Outage(done=True), Outage(True, True)])
async def test_live_calls_go_on_while_the_store_is_away_and_are_told_to_it_afterwards(outage: Outage) -> None:
    policy, known = hour(10)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    await spend_all([one, other], 2)
    store.outage = outage
    before = asyncio.get_running_loop().time()
    for _ in range(4):
        assert await one.call()
    assert elapsed(before) < PATIENCE + 1  # the first of them has waited for the store, and no other
    store.outage = None
    await asyncio.sleep(AGAIN + PATIENCE + 1)
    assert [state.used for state in Process(store, server, known).pacer.states()] == [0]
    await other.call()
    assert other.pacer.states()[0].used == 7
    await spend_all([one, other], 3)
    with pytest.raises(RateLimitError):
        await other.call(patience=0)
    assert refused([one, other]) == []


@pytest.mark.virtual_clock
@pytest.mark.parametrize("at_first", [Outage(), Outage(done=True)])
async def test_a_call_that_the_store_has_counted_unheard_is_counted_once(at_first: Outage) -> None:
    # Catches: what was told again since the answer was lost, and counts twice.
    policy, known = hour(3)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    await one.pacer.open()
    store.outage = at_first
    slow = await one.pacer.acquire("batch")
    store.outage = Outage(done=True)
    await asyncio.sleep(5)
    store.outage = None
    await asyncio.sleep(5)
    assert one.pacer.states()[0].used == 1
    slow.answered(server.take("batch", asyncio.get_running_loop().time()))
    await settled()
    assert [await other.call(patience=0) for _ in range(2)] == [True, True]
    with pytest.raises(RateLimitError):
        await other.call(patience=0)


@pytest.mark.virtual_clock
async def test_what_was_spent_before_the_store_was_first_heard_of_is_told_by_its_clock() -> None:
    # Catches: moments by a machine's clock in the store, whose windows end in another year for all others.
    policy, known = hour(1)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    store.outage = Outage()
    assert await one.call()
    store.outage = None
    await asyncio.sleep(5)
    for process in (one, other):
        with pytest.raises(RateLimitError) as told:
            await process.call(patience=0)
        assert told.value.retry_after == pytest.approx(HOUR - 5, abs=2)


@pytest.mark.virtual_clock
async def test_a_clock_of_the_store_that_is_set_back_shuts_nobody_out() -> None:
    policy, known = hour(1)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    assert await one.call()
    await settled()
    store.ahead -= 86_400
    await asyncio.sleep(HOUR + 1)
    await other.pacer.open()
    assert await other.call(patience=1)
    await asyncio.sleep(HOUR + 1)
    assert await one.call(patience=1)


@pytest.mark.virtual_clock
async def test_imports_wait_for_the_store_but_not_forever() -> None:
    policy, known = hour(10)
    server, store = Server([policy], Words()), MemoryStore()
    [one] = processes_of(store, server, 1, known)
    group = Import()
    store.outage = Outage()
    importing = [asyncio.create_task(one.call(group=group)) for _ in range(3)]
    await asyncio.sleep(20)
    assert (one.calls, group.out) == ([], 0)
    assert await one.call()  # a live one goes past it
    store.outage = None
    await asyncio.wait(importing)
    assert len(one.calls) == 4
    store.outage = Outage()
    before = asyncio.get_running_loop().time()
    await one.call(group=group)
    assert IMPORTS_WAIT <= elapsed(before) < IMPORTS_WAIT + 10


@pytest.mark.virtual_clock
async def test_a_store_that_forgot_is_told_again_by_who_knows() -> None:
    policy, known = hour(5)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    await spend_all([one], 3)
    await settled()
    store.texts.clear()
    assert await one.call()
    assert await other.call()
    with pytest.raises(RateLimitError):
        await other.call(patience=0)


@pytest.mark.virtual_clock
async def test_what_cannot_be_read_is_replaced_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    policy, known = hour(5)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = processes_of(store, server, 2, known)
    await spend_all([one], 3)
    await settled()
    [name] = store.texts
    store.texts[name] = ("x", b'{"windows": [{}]}')
    assert await one.call()
    assert [record.levelname for record in caplog.records if hasattr(record, "omi_ledger")] == ["WARNING"]
    assert await other.call()
    with pytest.raises(RateLimitError):
        await other.call(patience=0)


# Ends


@pytest.mark.virtual_clock
async def test_who_was_cancelled_while_the_store_was_asked_has_spent_nothing() -> None:
    policy, known = hour(2)
    server, store = Server([policy], Words()), MemoryStore(lambda: 0.5)
    one, other = processes_of(store, server, 2, known)
    await one.pacer.open()
    group = Import()
    asking = [asyncio.create_task(one.call(group=group if n else None)) for n in range(2)]
    await asyncio.sleep(0.3)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    await asyncio.sleep(5)
    assert (one.pacer._free, group.out, one.pacer._queues, one.pacer._asks) == (4, 0, {}, {})
    assert await other.call(patience=0)
    assert await other.call(patience=0)


@pytest.mark.virtual_clock
@pytest.mark.parametrize("outage", [None, Outage(), Outage(hangs=True)])
async def test_closing_tells_what_is_known_and_leaves_nothing_behind(outage: Outage | None) -> None:
    policy, known = hour(2)
    server, store = Server([policy], Words()), MemoryStore(lambda: 0.01)
    one, other = processes_of(store, server, 2, known)
    asking = [asyncio.create_task(one.call()) for _ in range(4)]
    await asyncio.sleep(0.05)
    store.outage = outage
    await asyncio.sleep(10)
    before = asyncio.get_running_loop().time()
    await one.close()
    assert elapsed(before) < 2 * PATIENCE + 0.1
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results].count(bool) == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
    store.outage = None
    with pytest.raises(RateLimitError):
        await other.call(patience=0)


@pytest.mark.virtual_clock
async def test_closing_sends_those_away_who_asked_the_store_and_they_have_spent_nothing() -> None:
    policy, known = hour(2)
    server, store = Server([policy], Words()), MemoryStore(lambda: 0.5)
    one, other = processes_of(store, server, 2, known)
    await one.pacer.open()
    asking = [asyncio.create_task(one.call()) for _ in range(2)]
    await asyncio.sleep(0.3)
    before = asyncio.get_running_loop().time()
    one.pacer.close(lambda: ConfigurationError("closed"))
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [ConfigurationError] * 2
    assert elapsed(before) == 0
    await one.pacer.save()
    assert one.pacer._free == 4
    assert [await other.call(patience=0) for _ in range(2)] == [True, True]


@pytest.mark.virtual_clock
async def test_under_level_cancellation_nothing_is_lost_and_nothing_hangs() -> None:
    # Catches: an await in a clean-up, which is cancelled at every turn of the loop until its scope is left.
    policy, known = hour(2)
    server, store = Server([policy], Words()), MemoryStore(lambda: 0.2)
    one, other = processes_of(store, server, 2, known)
    with anyio.move_on_after(1.3):
        try:
            await one.call()
            await asyncio.sleep(60)
        finally:
            await one.close()
    with anyio.move_on_after(0.5):
        await other.call()
    await asyncio.sleep(5)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await other.call(patience=0)
    with pytest.raises(RateLimitError):
        await other.call(patience=0)


# Who shares what


@pytest.mark.virtual_clock
async def test_a_ledger_that_was_used_before_is_told_to_the_store() -> None:
    policy, known = hour(4)
    server, store = Server([policy], Words()), MemoryStore()
    one, other = Process(None, server, known), Process(store, server, known)
    await one.call()
    out = await one.pacer.acquire("batch")
    one.pacer.share(store.quotas_of("a", "http://x"))
    one.pacer.share(MemoryStore().quotas_of("a", "http://x"))  # it has one
    await one.call()
    out.answered(server.take("batch", asyncio.get_running_loop().time()))
    await settled()
    assert await other.call()
    assert refused([one, other]) == []
    with pytest.raises(RateLimitError):
        await other.call(patience=0)


@pytest.mark.virtual_clock
async def test_a_policy_that_one_process_was_given_binds_the_others_until_its_window_ends() -> None:
    server, store = Server([], Words()), MemoryStore()
    strict, free = (
        Process(store, server, QuotaPolicy(2, HOUR, kinds=BATCH, name="ours")),
        Process(store, server),
    )
    await strict.call()
    assert await free.call()
    with pytest.raises(RateLimitError):
        await free.call(patience=0)
    await asyncio.sleep(HOUR + 2)
    for _ in range(9):
        assert await free.call(patience=0)
    lax = Process(store, server, QuotaPolicy(5, HOUR, kinds=BATCH, name="ours"))
    await strict.call()
    for _ in range(4):
        assert await lax.call(patience=0)  # its own number holds; what is spent is spent by all
    with pytest.raises(RateLimitError):
        await lax.call(patience=0)


async def test_a_ledger_in_a_file_stays_where_it_is(tmp_path: Path) -> None:
    store = MemoryStore()
    async with Session(KEY, base_url="http://localhost:1", ledger=tmp_path / "x") as session:
        session.share_quotas(store)
    assert store.commands == 0


@pytest.mark.virtual_clock
async def test_an_import_without_patience_spends_what_it_was_counted_for() -> None:
    # Catches: calls that the store has counted, dropped since others of the import are told to wait.
    store = MemoryStore(jitter(1, 0.005, 0.03))
    options = {"ledger": store, "quotas": [QuotaPolicy(15, HOUR, kinds=BATCH)]}
    async with serving(quotas=[Quota("hour", 15, HOUR, ("batch",))], session=options) as (server, session):
        report = await session.memories.import_facts(facts(25 * 30), max_wait=0)
        assert (report.created, report.not_sent > 0, report.resume_at is not None) == (25 * 15, True, True)
        report = await session.memories.import_facts(facts(25 * 30), max_wait=3 * HOUR)
        assert report.ok
        assert 429 not in [record.status for record in server.requests]
        [state] = session.quotas
        assert (state.used, state.limit) == (15, 15)


# Laws of all that together


@many
@given(
    count=st.integers(1, 3),
    limit=st.integers(1, 12),
    connections=st.sampled_from([1, 4]),
    groups=st.lists(st.booleans(), min_size=18, max_size=18),
    cancelled=st.dictionaries(st.integers(0, 17), st.floats(0, 130), max_size=6),
    outages=st.lists(
        st.tuples(st.floats(0, 100), st.floats(0.1, 90), st.booleans(), st.booleans()), max_size=2
    ),
    dead=st.integers(0, 2),
)
def test_whatever_happens_each_caller_has_an_end_and_the_window_is_there_afterwards(
    *,
    count: int,
    limit: int,
    connections: int,
    groups: list[bool],
    cancelled: dict[int, float],
    outages: list[tuple[float, float, bool, bool]],
    dead: int,
) -> None:
    # Catches: a caller whom nobody wakes, a permit, a connection or a call of a window that is lost.
    async def main() -> None:
        policy, known = Policy(limit, 60.0, BATCH), QuotaPolicy(limit, 60, kinds=BATCH)
        server, store = Server([policy], Words()), MemoryStore()
        loop = asyncio.get_running_loop()
        processes = processes_of(store, server, count, known, connections=connections)
        victims = processes_of(store, server, dead, known)
        lost = [await victim.pacer.acquire("batch") for victim in victims]  # and never ended
        await settled()
        for begins, lasts, done, hangs in outages:
            loop.call_later(begins, setattr, store, "outage", Outage(done, hangs))
            loop.call_later(begins + lasts, setattr, store, "outage", None)
        imports = [Import(3) for _ in processes]
        tasks = []
        for number in range(18):
            group = imports[number % count] if groups[number] else None
            call = processes[number % count].until_through(group=group)
            tasks.append(asyncio.create_task(call))
            if number in cancelled:
                loop.call_later(cancelled[number], tasks[-1].cancel)
            await asyncio.sleep(0.2)
        async with asyncio.timeout(60 * (18 / limit + 4) + IMPORTS_WAIT + sum(it[1] for it in outages)):
            await asyncio.wait(tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        if not outages:
            assert refused(processes) == []
        await asyncio.sleep(300)  # nothing is on the wire, no window is open
        for process, group in zip(processes, imports, strict=True):
            assert (process.pacer._free, process.pacer._queues, process.pacer._asks) == (connections, {}, {})
            assert group.out == 0
        assert len(lost) == dead
        made = [await processes[0].call(patience=1) for _ in range(limit)]
        assert made == [True] * limit
        for process in processes:
            await process.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
