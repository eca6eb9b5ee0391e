"""What is tried again, when, and what never is: counted at the server."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from omi_async import (
    APIError,
    AuthenticationError,
    ConnectError,
    InvalidRequestError,
    Memory,
    NotFoundError,
    OmiError,
    RateLimitError,
    ResponseFormatError,
    ResponseLostError,
    Retry,
    ServerError,
    Session,
)
from omi_async._api.endpoints import list_memories
from omi_async.local import Fault, LocalServer
from tests.clock import elapsed
from tests.raw_server import Call, raw_server

KEY = "omi_dev_0123456789abcdef"

pytestmark = pytest.mark.virtual_clock

Operation = Callable[[Session, str], Awaitable[Any]]

READ: dict[str, Operation] = {"list": lambda session, _: session.memories.list()}
IDEMPOTENT: dict[str, Operation] = {**READ, "delete": lambda session, it: session.memories.delete(it)}
WRITES: dict[str, Operation] = {
    "create": lambda session, _: session.memories.create("a"),
    "batch": lambda session, _: session.memories.create_batch(["a", "b"]),
    "update": lambda session, it: session.memories.update(it, content="a"),
}
ALL = {**IDEMPOTENT, **WRITES}


def of(operations: dict[str, Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "call"), operations.items(), ids=operations.keys())


@pytest.fixture
def memory_id(server: LocalServer) -> str:
    stored: str = server.add("something that was there before")[0]["id"]
    return stored


def now() -> float:
    return asyncio.get_running_loop().time()


BEFORE_THE_WORK = {
    "429": Fault.rate_limited(retry_after=1),
    "limiter down": Fault.answer(503, "Rate limiter unavailable"),
    "writes paused": Fault.answer(503, "Memory writes are globally paused"),
    "421": Fault.answer(421, "not me"),
    "423": Fault.answer(423, "locked"),
    "425": Fault.answer(425, "too early"),
}
PERHAPS_AFTER_THE_WORK = {
    "500": Fault.answer(500, "Internal Server Error"),
    "500, stored": Fault.answer(500, "Internal Server Error", stored=True),
    "502": Fault.html(502),
    "503": Fault.answer(503, "Canonical memory unavailable"),
    "504": Fault.empty(504),
    "599": Fault.answer(599),
    "408": Fault.answer(408, "too slow"),
    "499": Fault.answer(499, stored=True),
    "reset": Fault.reset(),
    "reset, stored": Fault.reset(stored=True),
    "half a body": Fault.half_body(),
    "slow": Fault.slow(1000.0),
    "slow, stored": Fault.slow(1000.0, stored=True),
}
REFUSALS = {
    "400": Fault.answer(400, "no"),
    "401": Fault.answer(401, "no"),
    "402": Fault.answer(402, "no"),
    "403": Fault.answer(403, {"code": "migration_maintenance", "retryable": True}),
    "404": Fault.answer(404, "no"),
    "409": Fault.answer(409, "no"),
    "413": Fault.answer(413, "no"),
    "418": Fault.answer(418, "no"),
    "422": Fault.answer(422, []),
    "302": Fault.answer(302, headers={"Location": "/x"}),
    "garbage": Fault.garbage(),
}


def a(faults: dict[str, Fault]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults.values(), ids=faults.keys())


@of(ALL)
@a(BEFORE_THE_WORK)
async def test_what_was_certainly_not_applied_is_tried_again(
    server: LocalServer, session: Session, memory_id: str, *, name: str, call: Operation, fault: Fault
) -> None:
    server.faults.add(fault, fault, fault, on=name)
    await call(session, memory_id)
    assert [record.kind for record in server.requests] == [name] * 4


@of(IDEMPOTENT)
@a(PERHAPS_AFTER_THE_WORK)
async def test_what_is_idempotent_is_tried_again_whatever_became_of_it(
    server: LocalServer, session: Session, memory_id: str, *, name: str, call: Operation, fault: Fault
) -> None:
    server.faults.add(fault, fault, on=name)
    await call(session, memory_id)
    await asyncio.sleep(2000)  # the server's records of slow calls come late
    assert [record.kind for record in server.requests] == [name] * 3
    assert (name == "delete") is (server.memories() == [])


@of(WRITES)
@a(PERHAPS_AFTER_THE_WORK)
async def test_a_post_or_patch_that_may_have_been_applied_is_never_made_again(
    server: LocalServer, session: Session, memory_id: str, *, name: str, call: Operation, fault: Fault
) -> None:
    server.faults.add(fault, on=name)
    with pytest.raises((ServerError, ResponseLostError)) as caught:
        await call(session, memory_id)
    assert caught.value.maybe_applied
    await asyncio.sleep(2000)  # the server's records of slow calls come late
    assert [record.kind for record in server.requests] == [name]


@of(ALL)
@a(REFUSALS)
async def test_what_will_be_refused_again_is_not_tried_again(
    server: LocalServer, session: Session, memory_id: str, *, name: str, call: Operation, fault: Fault
) -> None:
    server.faults.add(fault, on=name)
    with pytest.raises(OmiError) as caught:
        await call(session, memory_id)
    assert isinstance(caught.value, APIError | ResponseFormatError)
    assert len(server.requests) == 1


async def test_a_post_that_failed_before_the_work_and_then_perhaps_in_it_is_not_made_a_third_time(
    server: LocalServer, session: Session
) -> None:
    server.faults.add(Fault.rate_limited(retry_after=0), Fault.after_all(), on="create")
    with pytest.raises(ServerError):
        await session.memories.create("a")
    assert len(server.requests) == 2


async def test_a_server_that_comes_up_meanwhile_is_reached() -> None:
    async def handle(call: Call) -> None:
        await call.answer(body={"id": "1"})

    async with raw_server(handle) as gone:
        pass
    port = int(gone.url.rpartition(":")[2])
    async with Session(KEY, base_url=gone.url) as session:
        with pytest.raises(ConnectError):
            await session.memories.create("a")
        call = asyncio.create_task(session.memories.create("a"))
        await asyncio.sleep(0.1)
        async with LocalServer(port=port, api_key=KEY):
            assert (await call).content == "a"


# Attempts and waits


@pytest.mark.parametrize("attempts", [1, 2, 4, 7])
async def test_there_are_as_many_attempts_as_the_retry_says(server: LocalServer, attempts: int) -> None:
    server.faults.add(Fault.answer(500), times=100)
    async with Session(server.api_key, base_url=server.url, retry=Retry(attempts=attempts)) as session:
        with pytest.raises(ServerError):
            await session.memories.list()
    assert len(server.requests) == attempts


@pytest.mark.parametrize("attempts", [0, 1, 3])
async def test_a_request_may_have_a_number_of_its_own(
    server: LocalServer, session: Session, attempts: int
) -> None:
    server.faults.add(Fault.answer(500), times=100)
    request = list_memories()
    object.__setattr__(request, "attempts", attempts)
    with pytest.raises(ServerError):
        await session.send(request)
    assert len(server.requests) == max(attempts, 1)


@pytest.mark.parametrize(("chance", "waits"), [(0.0, 0.25 + 0.5 + 1.0), (1.0, 0.5 + 1.0 + 2.0)])
async def test_waits_double_with_jitter(
    server: LocalServer, session: Session, monkeypatch: pytest.MonkeyPatch, chance: float, waits: float
) -> None:
    monkeypatch.setattr(random, "random", lambda: chance)
    server.faults.add(Fault.answer(500), times=3)
    started = now()
    await session.memories.list()
    assert elapsed(started) == pytest.approx(waits, abs=0.1)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "least"),
    [
        ("1", 1.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("0.3", 0.3),
        ("0", 0.05),
        ("3600", 3600.0),
        ("Sun, 22 Nov 2026 12:10:00 GMT", 600.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.05),
    ],
)
async def test_a_retry_after_is_kept_in_full_and_never_early(status: int, said: str, least: float) -> None:
    async def handle(call: Call) -> None:
        arrived.append(now())
        if call.number < 3:
            headers = {"Retry-After": said, "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}
            await call.answer(status, {"detail": "no"}, headers=headers)
        else:
            await call.answer(body=[])

    arrived: list[float] = []
    async with raw_server(handle) as raw, Session(KEY, base_url=raw.url, max_wait=7200) as session:
        await session.memories.list()
    first, second, third = arrived
    assert least <= round(second - first, 6) < least + 0.5
    assert least <= round(third - second, 6) < least + 0.5


@pytest.mark.parametrize("said", ["", "soon", "nan", "inf", "-5", "1e9", "9" * 400])
async def test_an_unreadable_retry_after_counts_as_none(
    session: Session, server: LocalServer, said: str
) -> None:
    server.faults.add(Fault.rate_limited(retry_after=said), times=2)
    started = now()
    await session.memories.list()
    assert 0.25 + 0.5 <= elapsed(started) <= 0.5 + 1.0 + 0.1


async def test_a_429_uses_up_the_attempts_and_tells_when_to_come_back(
    server: LocalServer, session: Session
) -> None:
    server.faults.add(Fault.rate_limited(retry_after=7), times=9)
    started = now()
    with pytest.raises(RateLimitError) as caught:
        await session.memories.create("a")
    assert caught.value.retry_after == 7.0
    assert not caught.value.maybe_applied
    assert len(server.requests) == 4
    assert elapsed(started) == pytest.approx(21, abs=0.5)


async def test_a_call_that_waits_before_its_next_try_holds_no_turn(server: LocalServer) -> None:
    server.faults.add(Fault.rate_limited(retry_after=3600), on="create")
    async with Session(server.api_key, base_url=server.url, connections=1, max_wait=3600) as session:
        waiting = asyncio.create_task(session.memories.create("a"))
        await asyncio.sleep(1)
        assert await session.memories.list() == []
        assert not waiting.done()
        assert (await waiting).content == "a"


async def test_callers_wait_each_for_themselves(server: LocalServer, session: Session) -> None:
    server.faults.add(*(Fault.answer(500) for _ in range(4)), on="list")
    results = await asyncio.gather(*(session.memories.list() for _ in range(4)))
    assert results == [[]] * 4
    assert len(server.requests) == 8


async def test_a_cancelled_wait_ends_at_once(server: LocalServer, session: Session) -> None:
    server.faults.add(Fault.rate_limited(retry_after=60))
    call = asyncio.create_task(session.memories.list())
    await asyncio.sleep(1)
    started = now()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert elapsed(started) < 1


# DELETE and its 404


@pytest.mark.parametrize("fault", [Fault.reset(stored=True), Fault.after_all(), Fault.half_body()], ids=repr)
async def test_a_404_after_an_own_lost_delete_is_success(
    server: LocalServer, session: Session, memory_id: str, fault: Fault
) -> None:
    # The newest server answers another delete with 200, those before it with a 404.
    server.faults.add(fault, Fault.answer(404, "Memory not found"), on="delete")
    await session.memories.delete(memory_id)
    assert [record.status for record in server.requests][-1] == 404
    assert server.memories() == []


async def test_a_first_404_is_not_success(server: LocalServer, session: Session) -> None:
    with pytest.raises(NotFoundError, match="cannot delete a memory: 404 Not Found: Memory not found"):
        await session.memories.delete("nothing")
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", list(BEFORE_THE_WORK.values()), ids=BEFORE_THE_WORK)
async def test_a_404_after_a_delete_that_was_certainly_not_applied_is_not_success(
    server: LocalServer, session: Session, fault: Fault
) -> None:
    server.faults.add(fault, on="delete")
    with pytest.raises(NotFoundError):
        await session.memories.delete("nothing")
    assert len(server.requests) == 2


@pytest.mark.parametrize("borrowed", [False, True])
async def test_aiohttp_makes_no_delete_a_second_time_behind_our_back(borrowed: bool) -> None:
    async def handle(call: Call) -> None:
        if call.method == "GET":
            await call.answer(body=[])
        elif sum(other.method == "DELETE" for other in server.calls) == 1:
            call.drop()  # done, and the connection, which was kept alive, is gone
        else:
            await call.answer(404, {"detail": "Memory not found"})

    async with raw_server(handle) as server, aiohttp.ClientSession() as client:
        settings: dict[str, Any] = {"client": client} if borrowed else {}
        async with Session(KEY, base_url=server.url, retry=Retry(attempts=1), **settings) as session:
            await session.memories.list()
            with pytest.raises(ResponseLostError):  # and not a NotFoundError, which would be a lie
                await session.memories.delete("a")
            assert server.sent[1:] == ["DELETE /v1/dev/user/memories/a"]
        server.calls.clear()
        async with Session(KEY, base_url=server.url, **settings) as session:
            await session.memories.list()
            await session.memories.delete("a")
            assert server.sent[1:] == ["DELETE /v1/dev/user/memories/a"] * 2


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("name", IDEMPOTENT)
async def test_each_attempt_is_one_call_on_the_wire(name: str, attempts: int) -> None:
    async def handle(call: Call) -> None:
        call.drop()

    async with raw_server(handle) as server:
        async with Session(KEY, base_url=server.url, retry=Retry(attempts=attempts)) as session:
            with pytest.raises(ResponseLostError):
                await IDEMPOTENT[name](session, "a")
        assert len(server.calls) == attempts


async def test_a_post_on_a_dropped_connection_is_not_made_again() -> None:
    async def handle(call: Call) -> None:
        if call.method == "GET":
            await call.answer(body=[])
        else:
            call.drop()

    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        for write in (session.memories.create("a"), session.memories.update("a", content="b")):
            server.calls.clear()
            await session.memories.list()
            with pytest.raises(ResponseLostError):
                await write
            assert len(server.calls) == 2


async def test_a_borrowed_client_s_middleware_may_ask_twice(server: LocalServer, memory_id: str) -> None:
    async def twice(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        refused = await handler(request)
        refused.release()
        return await handler(request)

    server.faults.add(Fault.answer(401, "no"), on="delete")
    async with (
        aiohttp.ClientSession(middlewares=(twice,)) as client,
        Session(server.api_key, base_url=server.url, client=client) as session,
    ):
        await session.memories.delete(memory_id)
    assert [record.status for record in server.requests] == [401, 200]


# The last error is the one that is raised


async def test_a_refusal_after_a_failure_is_raised(server: LocalServer, session: Session) -> None:
    server.faults.add(Fault.answer(500), Fault.answer(401, "no"))
    with pytest.raises(AuthenticationError) as caught:
        await session.memories.list()
    assert caught.value.__context__ is None
    server.faults.add(Fault.answer(503, "Rate limiter unavailable"), Fault.answer(422, "no"), on="create")
    with pytest.raises(InvalidRequestError):
        await session.memories.create("a")


async def test_a_failure_leaves_no_cycle_that_keeps_it_alive(server: LocalServer) -> None:
    session = Session(server.api_key, base_url=server.url, retry=Retry(attempts=1))
    server.faults.add(Fault.reset())
    gc.disable()
    try:
        error: OmiError | None = None
        try:
            await session.memories.create("a")
        except ResponseLostError as lost:
            error = lost
        assert error is not None
        dead = weakref.ref(error)
        del error
        assert dead() is None
    finally:
        gc.enable()
        await session.close()


async def test_a_result_is_what_was_asked_for(server: LocalServer, session: Session) -> None:
    memory = await session.memories.create("a")
    assert isinstance(memory, Memory)
    assert [listed.id for listed in (await session.send(list_memories())).memories] == [memory.id]
