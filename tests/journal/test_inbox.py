"""Facts one by one: when they leave, what is told of them, and that none is lost, doubled or swallowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from omi_async import (
    ConfigurationError,
    Fact,
    FactInbox,
    FactOutcome,
    Journal,
    JournalError,
    JournalInUseError,
    Session,
)
from omi_async.local import Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.importing.helpers import assert_no_task_left, virtual_clock
from tests.journal.helpers import OPEN, begun, end, items, ran, sending, sent, stored, texts

pytestmark = pytest.mark.virtual_clock

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.journal"


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer(text_identity=False, clock=virtual_clock()) as server:
        yield server


@asynccontextmanager
async def opened(server: LocalServer, path: Path | Journal, **options: Any) -> AsyncIterator[FactInbox]:
    async with Session(server.api_key, base_url=server.url) as session:
        before = asyncio.all_tasks()
        async with session.memories.inbox(journal=path, **options) as inbox:
            yield inbox
        assert_no_task_left(before)


async def put_all(inbox: FactInbox, facts: Any, **options: Any) -> list[FactOutcome]:
    return await asyncio.gather(*(inbox.put(fact, **options) for fact in facts))


def batches(server: LocalServer) -> list[int]:
    return [record.items for record in server.requests if record.kind == "batch"]


# When a fact leaves


async def test_a_fact_leaves_when_it_has_waited_long_enough(server: LocalServer, path: Path) -> None:
    async with opened(server, path, flush_after=2.0) as inbox:
        began = asyncio.get_running_loop().time()
        outcome = await inbox.put("User likes tea")
        assert 2.0 <= elapsed(began) < 2.5
        assert (outcome.state, outcome.memory_id) == ("created", stored(server)["User likes tea"])
        await asyncio.sleep(1000)  # the next one waits as long, however long nothing came
        began = asyncio.get_running_loop().time()
        await inbox.put("User likes coffee")
        assert 2.0 <= elapsed(began) < 2.5
    assert batches(server) == [1, 1]


async def test_a_full_batch_waits_for_nothing_and_the_rest_for_its_oldest_fact(
    server: LocalServer, path: Path
) -> None:
    async with opened(server, path, flush_after=5.0) as inbox:
        began = asyncio.get_running_loop().time()
        early = [await inbox.submit(fact) for fact in texts(range(3))]
        await asyncio.sleep(3)
        late = [await inbox.submit(fact) for fact in texts(range(3, 30))]
        await asyncio.wait(early)
        assert elapsed(began) < 3.5  # with the full batch
        await asyncio.gather(*late)
        assert 8.0 <= elapsed(began) < 8.5  # those that were left had waited since then
    assert batches(server) == [25, 5]


async def test_without_a_time_only_full_batches_leave_until_the_end(server: LocalServer, path: Path) -> None:
    async with opened(server, path, flush_after=None) as inbox:
        futures = [await inbox.submit(fact) for fact in texts(range(30))]
        await asyncio.sleep(10_000)
        assert sum(future.done() for future in futures) == 25
    assert all(future.result().state == "created" for future in futures)
    assert batches(server) == [25, 5]


async def test_many_at_once_go_in_full_batches_in_parallel(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(1), on="batch", times=100)
    async with opened(server, path, concurrency=4) as inbox:
        outcomes = await put_all(inbox, texts(range(800)))
    assert {outcome.state for outcome in outcomes} == {"created"}
    assert [outcome.index for outcome in outcomes] == list(range(800))
    assert batches(server) == [25] * 32
    server.assert_each_stored_once(texts(range(800)))


async def test_submit_waits_only_for_room(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(600), on="batch")
    async with opened(server, path) as inbox:
        began = asyncio.get_running_loop().time()
        futures = [await inbox.submit(fact) for fact in texts(range(1000))]
        assert elapsed(began) == 0
        futures.append(await inbox.submit("one more"))
        assert elapsed(began) > 100
        await asyncio.gather(*futures)
    server.assert_each_stored_once([*texts(range(1000)), "one more"])


# What is told


async def test_each_fact_has_the_outcome_of_its_own(server: LocalServer, path: Path) -> None:
    server.add("old")
    server.faults.add(Fault.poison("bad"), times=10)
    await asyncio.sleep(100)
    async with opened(server, path, flush_after=0) as inbox:
        fact = Fact("good", category="hobbies", origin="mail 7")
        outcomes = await put_all(inbox, [fact, "bad", "", {"content": "mapping", "tags": ["a"]}, 7])
    assert [outcome.state for outcome in outcomes] == ["created", "rejected", "invalid", "created", "invalid"]
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert (outcomes[0].fact, outcomes[0].origin) == (fact, "mail 7")
    assert "this memory cannot be stored" in str(outcomes[1].error)


async def test_equal_texts_are_one_memory_and_each_is_told_when_it_is_stored(
    server: LocalServer, path: Path
) -> None:
    server.faults.add(Fault.slow(60), on="batch")
    async with opened(server, path) as inbox:
        first = await inbox.submit("User likes tea")
        second = await inbox.submit(" User likes tea ")
        await asyncio.sleep(30)  # the first is on its way: acknowledged now, it would be lost with it
        third = await inbox.submit("User likes tea")
        await asyncio.sleep(20)
        assert not any(future.done() for future in (first, second, third))
        outcomes = await asyncio.gather(first, second, third)
    assert [outcome.state for outcome in outcomes] == ["created"] * 3
    assert len({outcome.memory_id for outcome in outcomes}) == 1
    assert len(server.memories()) == 1


async def test_what_is_in_doubt_is_looked_for_and_told_when_it_is_certain(
    server: LocalServer, path: Path
) -> None:
    server.faults.add(Fault.reset(stored=True), Fault.after_prefix(3), on="batch")
    async with opened(server, path) as inbox:
        outcomes = await put_all(inbox, texts(range(10)))
        outcomes += await put_all(inbox, texts(range(10, 20)))
    assert {outcome.state for outcome in outcomes} == {"created"}
    server.assert_each_stored_once(texts(range(20)))


async def test_a_quota_is_waited_for_and_nothing_is_lost(path: Path) -> None:
    clock = virtual_clock()
    async with LocalServer(
        text_identity=False, clock=clock, quotas=[Quota("batches", 2, 3600, ("batch",))]
    ) as server:
        async with opened(server, path) as inbox:
            outcomes = await put_all(inbox, texts(range(150)))
        assert {outcome.state for outcome in outcomes} == {"created"}
        server.assert_each_stored_once(texts(range(150)))


async def test_a_key_that_is_refused_costs_its_round_and_not_the_inbox(
    server: LocalServer, path: Path
) -> None:
    async with opened(server, path) as inbox:
        server.revoke_key(server.api_key)
        outcome = await inbox.put("User likes tea")
        assert (outcome.state, outcome.memory_id) == ("not_sent", None)
        assert "401" in str(outcome.error) or "key" in str(outcome.error)
        server.add_key(server.api_key)
        assert (await inbox.put("User likes tea")).state == "created"


# Redelivery


async def test_what_was_settled_costs_no_call_when_it_is_delivered_again(
    server: LocalServer, path: Path
) -> None:
    async with opened(server, path) as inbox:
        first = await put_all(inbox, texts(range(30)))
    before = len(server.requests)
    for _ in range(2):  # by the next process, and again
        async with opened(server, path) as inbox:
            again = await put_all(inbox, reversed(texts(range(30))))
        assert [outcome.memory_id for outcome in reversed(again)] == [o.memory_id for o in first]
    assert len(server.requests) == before


async def test_what_was_on_its_way_at_a_crash_is_looked_for(server: LocalServer, path: Path) -> None:
    facts = texts(range(20))
    journal = begun(path, server.url)
    sending(journal, items(*facts))
    end(journal)
    server.add(*facts[:7])
    async with opened(server, path) as inbox:
        outcomes = await put_all(inbox, facts)
    assert {outcome.state for outcome in outcomes} == {"created"}
    assert sent(server) == 13
    server.assert_each_stored_once(facts)


async def test_what_another_worker_may_have_sent_is_looked_for_although_this_journal_knows_nothing(
    server: LocalServer, path: Path
) -> None:
    server.add("stored by the worker that died")
    await asyncio.sleep(3 * DAY)
    facts = ["stored by the worker that died", "not stored", "new"]
    async with opened(server, path) as inbox:
        outcomes = await asyncio.gather(
            *(inbox.put(fact, redelivered=True) for fact in facts[:2]), inbox.put(facts[2])
        )
    assert [outcome.state for outcome in outcomes] == ["existing", "created", "created"]
    assert sent(server) == 2
    server.assert_each_stored_once(facts)


async def test_a_redelivered_fact_is_looked_for_although_an_equal_new_one_came_before_it(
    server: LocalServer, path: Path
) -> None:
    # Catches: the first of equal texts, which is new, sent for both without a look.
    server.add("stored by the worker that died")
    await asyncio.sleep(3 * DAY)
    async with opened(server, path) as inbox:
        outcomes = await asyncio.gather(
            inbox.put("stored by the worker that died"),
            inbox.put("stored by the worker that died", redelivered=True),
        )
    assert {outcome.state for outcome in outcomes} == {"existing"}
    assert sent(server) == 0


# What is forgotten


async def test_a_memory_that_was_deleted_and_is_said_again_next_week_is_stored_again(
    server: LocalServer, path: Path
) -> None:
    async with opened(server, path) as inbox:
        first = await inbox.put("User likes jazz")
        async with Session(server.api_key, base_url=server.url) as session:
            await session.memories.delete(first.memory_id or "")
        assert await inbox.put("User likes jazz") == FactOutcome(  # a redelivery is not told from it
            1, first.fact, "created", first.memory_id
        )
        await asyncio.sleep(7 * DAY)
        again = await inbox.put("User likes jazz")
    assert (again.state, stored(server)["User likes jazz"]) == ("created", again.memory_id)
    assert again.memory_id != first.memory_id


async def test_what_is_in_doubt_is_never_forgotten(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.reset(stored=True), on="batch")
    server.faults.add(Fault.answer(500, "down"), on="list", times=1000)
    async with opened(server, path, remember=60) as inbox:
        outcome = await inbox.put("User likes jazz")
        assert outcome.state == "unknown"
        server.faults.clear()
        await asyncio.sleep(7 * DAY)
        assert (await inbox.put("User likes jazz")).state == "created"
    server.assert_each_stored_once(["User likes jazz"])


async def test_neither_file_nor_memory_grows_with_the_facts(server: LocalServer, path: Path) -> None:
    sizes, places = list[int](), list[int]()
    with Journal(path) as journal:
        async with opened(server, journal, remember=3600) as inbox:
            for hour in range(40):
                await put_all(inbox, texts(range(hour * 250, hour * 250 + 250)))
                await asyncio.sleep(3700)
                sizes.append(path.stat().st_size)  # noqa: ASYNC240  # no caller waits for the loop
                places.append(len(journal._index))
    assert max(places) <= 500
    assert max(sizes[20:]) <= max(sizes[:20]) < 300_000


# Endings


async def test_leaving_the_block_waits_until_all_is_settled(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(100), on="batch")
    async with opened(server, path, flush_after=3600) as inbox:
        futures = [await inbox.submit(fact) for fact in texts(range(60))]
    assert all(future.result().state == "created" for future in futures)
    assert ran(OPEN, path) == (0, "opened")  # it let go of the journal


async def test_stop_ends_at_once_if_there_is_nothing_to_give(server: LocalServer, path: Path) -> None:
    async with opened(server, path, flush_after=3600) as inbox:
        waiting = await inbox.submit("never sent")
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        inbox.stop()
        outcome = await waiting
        assert elapsed(began) == 0
        assert (outcome.state, str(outcome.error)) == ("not_sent", "not sent: the inbox was stopped first")
        with pytest.raises(ConfigurationError, match="was stopped"):
            await inbox.put("too late")
    assert elapsed(began) == 0
    assert server.memories() == []


async def test_stop_lets_the_call_on_the_wire_land(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(10), on="batch", times=9)
    async with opened(server, path, concurrency=1) as inbox:
        futures = [await inbox.submit(fact) for fact in texts(range(100))]
        await asyncio.sleep(5)
        inbox.stop()
    states = [future.result().state for future in futures]
    assert states == ["created"] * 25 + ["not_sent"] * 75
    server.assert_each_stored_once(texts(range(25)))


async def test_whoever_waits_for_room_is_told_of_the_end(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(1000), on="batch", times=9)
    async with opened(server, path, drain_timeout=0) as inbox:
        putting = [asyncio.create_task(inbox.put(fact)) for fact in texts(range(1010))]
        await asyncio.sleep(5)
        inbox.stop()
        states = {outcome.state for outcome in await asyncio.gather(*putting)}
    assert states == {"not_sent", "unknown"}


async def test_cancelling_ends_at_once_and_leaves_nothing_running(server: LocalServer, path: Path) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with opened(server, path) as inbox:
            entered.set()
            await inbox.put("a fact")
            await asyncio.sleep(1e6)

    task = asyncio.create_task(work())
    await entered.wait()
    await asyncio.sleep(10)
    began = asyncio.get_running_loop().time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert elapsed(began) == 0
    assert ran(OPEN, path) == (0, "opened")


async def test_a_put_that_is_cancelled_takes_its_fact_back(server: LocalServer, path: Path) -> None:
    async with opened(server, path) as inbox:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await inbox.put("taken back")
        assert (await inbox.put("sent")).state == "created"
    assert set(stored(server)) == {"sent"}


async def test_a_put_that_is_cancelled_on_its_way_harms_no_other(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(10), on="batch")
    async with opened(server, path) as inbox:
        other = await inbox.submit("other")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await inbox.put("on its way")
        assert (await other).state == "created"
        assert (await inbox.put("on its way")).state == "created"
    server.assert_each_stored_once(["other", "on its way"])


# The journal


async def test_an_inbox_has_its_journal_for_itself(server: LocalServer, path: Path) -> None:
    async with opened(server, path):
        with pytest.raises(JournalInUseError):
            async with opened(server, path):
                pass
    async with opened(server, path) as inbox:
        assert (await inbox.put("a fact")).state == "created"


async def test_a_journal_that_cannot_begin_is_told_to_whoever_waits(server: LocalServer, path: Path) -> None:
    with Journal(path) as journal:
        async with opened(server, journal) as inbox:
            journal.close()
            path.write_bytes(b"something else")  # noqa: ASYNC240  # likewise
            with pytest.raises(JournalError, match="no journal of omi_async"):
                await inbox.put("a fact")
    assert server.memories() == []


async def test_an_open_journal_stays_open(server: LocalServer, path: Path) -> None:
    with Journal(path) as journal:
        async with opened(server, journal) as inbox:
            await inbox.put("a fact")
        assert journal.is_open


async def test_what_cannot_be_is_refused(server: LocalServer, path: Path) -> None:
    async with Session(server.api_key, base_url=server.url) as session:
        inbox = session.memories.inbox(journal=path)
        with pytest.raises(ConfigurationError, match="inside its `async with` block"):
            await inbox.put("a fact")
        async with inbox:
            pass
        with pytest.raises(ConfigurationError, match="opened once"):
            await inbox.__aenter__()
        with pytest.raises(ConfigurationError, match="another event loop"):
            async with session.memories.inbox(journal=path) as inbox:
                await asyncio.to_thread(lambda: asyncio.run(inbox.put("a fact")))
        wrong: list[dict[str, Any]] = [{"flush_after": -1}, {"remember": -1}, {"concurrency": 0}]
        for options in wrong:
            with pytest.raises(ValueError, match="at least"):
                session.memories.inbox(journal=path, **options)


# Cancelled again at every turn of the loop, as anyio's scopes do it


async def cancel_by_level(task: asyncio.Task[None]) -> int:
    """Cancel a task until it ends; return the turns that it took."""
    turns = 0
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.01)
        turns += 1
    return turns


async def test_cancelling_by_level_lets_the_call_on_the_wire_land(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(0.3), on="batch")
    entered = asyncio.Event()
    futures: list[asyncio.Future[FactOutcome]] = []

    async def work() -> None:
        async with opened(server, path) as inbox:
            futures.extend([await inbox.submit(fact) for fact in texts(range(30))])
            entered.set()
            await asyncio.sleep(1e6)

    task = asyncio.create_task(work())
    await entered.wait()
    await asyncio.sleep(0.1)
    assert await cancel_by_level(task) < 100
    assert [future.result().state for future in futures] == ["created"] * 25 + ["not_sent"] * 5
    server.assert_each_stored_once(texts(range(25)))
    assert ran(OPEN, path) == (0, "opened")


async def test_another_cancellation_ends_it_at_once(server: LocalServer, path: Path) -> None:
    server.faults.add(Fault.slow(1000), on="batch")
    entered = asyncio.Event()
    futures: list[asyncio.Future[FactOutcome]] = []

    async def work() -> None:
        async with opened(server, path, drain_timeout=500) as inbox:
            futures.append(await inbox.submit("on its way"))
            entered.set()
            await asyncio.sleep(1e6)

    task = asyncio.create_task(work())
    await entered.wait()
    await asyncio.sleep(10)
    began = asyncio.get_running_loop().time()
    task.cancel()
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert elapsed(began) < 6
    assert futures[0].result().state == "unknown"  # it is looked for when it comes again
    async with opened(server, path) as inbox:
        assert (await inbox.put("on its way")).state == "created"
    server.assert_each_stored_once(["on its way"])
