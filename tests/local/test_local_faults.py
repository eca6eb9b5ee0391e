"""Every fault, over real HTTP."""

import asyncio
import errno
from collections import Counter
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_async.local import FOREVER, KINDS, Chaos, Fault, Faults, LocalServer
from omi_async.local.faults import Sleep, Work
from omi_async.local.messages import Reply
from omi_async.local.plan import MENU
from tests.local.local_client import BATCH, MEMORIES, Clock, serving, stored

TEXTS = [f"fact {n}" for n in range(5)]


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault.answer(503, "Rate limiter unavailable"), 503, b'{"detail":"Rate limiter unavailable"}'),
        (Fault.answer(401, "Invalid API Key"), 401, b'{"detail":"Invalid API Key"}'),
        (Fault.answer(402, "pay"), 402, b'{"detail":"pay"}'),
        (Fault.answer(403, {"enabled": False}), 403, b'{"detail":{"enabled":false}}'),
        (Fault.answer(500), 500, b'{"detail":null}'),
        (
            Fault.html(503),
            503,
            b"<html><head><title>503</title></head><body><h1>Error 503</h1></body></html>",
        ),
        (Fault.empty(), 504, b""),
        (Fault.garbage(b"{", stored=False), 200, b"{"),
        (Fault.rate_limited(), 429, b'{"detail":"Rate limit exceeded."}'),
    ],
)
async def test_an_answer_instead_of_the_work(fault: Any, status: Any, body: Any) -> None:
    async with serving(faults=[fault]) as (server, client):
        answer = await client.batch(*TEXTS)
        assert (answer.status, answer.body) == (status, body)
        assert stored(server) == []
        assert (await client.batch(*TEXTS)).status == 200
        assert len(server.faults) == 0


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.answer(500, "x", stored=True), 500),
        (Fault.after_all(status=503), 503),
        (Fault.html(stored=True), 502),
        (Fault.empty(stored=True), 504),
        (Fault.garbage(), 200),
    ],
)
async def test_an_answer_after_the_work(fault: Any, status: Any) -> None:
    async with serving(faults=[fault]) as (server, client):
        assert (await client.batch(*TEXTS)).status == status
        server.assert_each_stored_once(TEXTS)


async def test_an_answer_has_the_headers_that_it_is_given() -> None:
    fault = Fault.answer(
        302, body=b"", headers={"Location": "http://127.0.0.1:1/", "Content-Type": "text/plain"}
    )
    async with serving(faults=[fault, Fault.rate_limited("1.5", limit=15)]) as (_, client):
        redirect, limited = await client.listed(), await client.listed()
    assert (redirect.status, redirect.headers["Location"]) == (302, "http://127.0.0.1:1/")
    assert redirect.headers["Content-Type"] == "text/plain"
    assert (limited.headers["Retry-After"], limited.headers["X-RateLimit-Limit"]) == ("1.5", "15")
    assert limited.detail == "Rate limit exceeded. Try again in 1.5s."


@pytest.mark.parametrize("count", [0, 3, 5, 25])
async def test_a_batch_breaks_down_after_a_prefix(count: Any) -> None:
    async with serving(faults=[Fault.after_prefix(count, status=503)]) as (server, client):
        answer = await client.batch(*TEXTS)
        assert (answer.status, answer.body) == (503, b"Internal Server Error")
        assert stored(server) == TEXTS[:count]


@pytest.mark.parametrize("after", [False, True])
async def test_a_reset_connection(after: Any) -> None:
    async with serving(faults=[Fault.reset(stored=after)]) as (server, client):
        with pytest.raises(aiohttp.ClientOSError) as error:
            await client.batch(*TEXTS)
        assert error.value.errno == errno.ECONNRESET
        assert stored(server) == (TEXTS if after else [])
        (record,) = server.requests
    assert (record.kind, record.status, record.items) == ("batch", None, 5)


async def test_half_a_body() -> None:
    async with serving(faults=[Fault.half_body()]) as (server, client):
        with pytest.raises(aiohttp.ClientPayloadError, match="not completed"):
            await client.batch(*TEXTS)
        assert stored(server) == TEXTS
        assert server.requests[0].status == 200


async def test_half_an_empty_body_is_no_body() -> None:
    async with serving() as (server, client):
        server.faults.add(Fault.half_body())
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.listed()


@pytest.mark.parametrize(
    ("fault", "named"),
    [(Fault.names_only(2), TEXTS[:2]), (Fault.names_only(0), []), (Fault.reordered(), TEXTS[::-1])],
)
async def test_an_answer_that_is_not_all_there_or_not_in_order(fault: Any, named: Any) -> None:
    async with serving(faults=[fault]) as (server, client):
        answer = await client.batch(*TEXTS)
        assert stored(server) == TEXTS
    assert [memory["content"] for memory in answer.json["memories"]] == named
    assert answer.json["created_count"] == len(named)


async def test_a_list_can_be_rearranged_and_a_refusal_is_left_alone() -> None:
    async with serving() as (server, client):
        server.add("a", "b", "c")
        server.faults.add(Fault.reordered(), Fault.names_only(1), on="list")
        assert [await client.texts(), await client.texts(), await client.texts()] == [
            list("abc"),
            ["c"],
            list("cba"),
        ]
        server.faults.add(Fault.reordered(), on="batch")
        assert (await client.batch("")).status == 422


async def test_the_answer_to_a_single_memory_has_nothing_to_rearrange() -> None:
    async with serving() as (server, client):
        server.faults.add(Fault.names_only(0), on="create")
        answer = await client.create("one")
        assert (answer.status, answer.json["content"]) == (200, "one")
        assert stored(server) == ["one"]


async def test_delay_before_and_after_the_work() -> None:
    seen: list[tuple[float, list[str]]] = []

    async def sleep(seconds: Any) -> None:
        seen.append((seconds, stored(server)))

    async with serving(faults=[Fault.slow(2.5), Fault.slow(7, stored=True)], sleep=sleep) as (server, client):
        assert (await client.create("a")).status == (await client.create("b")).status == 200
    assert seen == [(2.5, []), (7, ["a", "b"])]


async def test_the_list_lags_behind_by_the_clock() -> None:
    async with serving(clock=(clock := Clock())) as (server, client):
        await client.create("old")
        server.faults.add(Fault.list_lag(5))
        clock.now += 4
        await client.create("new")
        assert await client.texts() == []
        clock.now += 1
        assert await client.texts() == ["old"]
        clock.now += 4
        assert await client.texts() == ["new", "old"]
        assert len(server.faults) == 1


async def test_a_lag_can_be_over_after_some_calls() -> None:
    async with serving() as (server, client):
        server.add("a")
        server.faults.add(Fault.list_lag(3600), times=2)
        assert [await client.texts(), await client.texts(), await client.texts()] == [[], [], ["a"]]


async def test_poison_names_the_memory_in_a_batch_and_in_a_single_write() -> None:
    async with serving(faults=[Fault.poison("bad")]) as (server, client):
        (good,) = server.add("good")
        batch = await client.batch("a", "so bad", "bad too")
        single = await client.create("bad")
        patch = await client.patch(good["id"], content="bad")
        assert (await client.patch(good["id"], tags=["bad"])).status == 200
        assert (await client.batch("a", "b")).status == 200
        assert stored(server) == ["good", "a", "b"]
    assert [answer.status for answer in (batch, single, patch)] == [422, 422, 422]
    assert [problem["loc"] for problem in batch.detail] == [["body", "memories", 1, "content"]]
    assert single.detail[0]["loc"] == patch.detail[0]["loc"] == ["body", "content"]
    assert single.detail[0]["type"] == "value_error"


@pytest.mark.parametrize(
    ("options", "status", "body"),
    [
        ({"loc": False}, 422, b'{"detail":"This memory cannot be stored"}'),
        ({"status": 413}, 413, b'{"detail":"This memory cannot be stored"}'),
        ({"status": 500}, 500, b"Internal Server Error"),
    ],
)
async def test_poison_without_a_place(options: Any, status: Any, body: Any) -> None:
    async with serving(faults=[Fault.poison(lambda text: text == "fact 3", **options)]) as (server, client):
        answer = await client.batch(*TEXTS)
        assert (answer.status, answer.body) == (status, body)
        assert stored(server) == []


async def test_poison_may_leave_a_prefix_stored() -> None:
    async with serving(faults=[Fault.poison("fact 3", status=500, stored_prefix=True)]) as (server, client):
        assert (await client.batch(*TEXTS)).status == 500
        assert stored(server) == TEXTS[:3]


async def test_two_poisons_and_a_scripted_fault_work_side_by_side() -> None:
    async with serving(faults=[Fault.poison("p"), Fault.poison("q", status=413)]) as (server, client):
        server.faults.add(Fault.after_all(), on="batch", times=2)
        assert (await client.batch("a", "b")).status == 500
        assert stored(server) == ["a", "b"]
        assert (await client.batch("c", "q", "p")).status == 500
        assert stored(server) == ["a", "b"]
        assert [(await client.batch(text)).status for text in ("q p", "q", "c")] == [422, 413, 200]


async def test_poison_is_found_after_the_key_and_the_schema() -> None:
    async with serving(faults=[Fault.poison("bad")]) as (_, client):
        stranger = await client.call(
            "POST", MEMORIES, json={"content": "bad"}, headers={"Authorization": "Bearer x"}
        )
        invalid = await client.batch("bad", "")
        odd = await client.call("POST", BATCH, json={"memories": ["bad", {"content": 3}]})
    assert (stranger.status, invalid.detail[0]["type"]) == (401, "string_too_short")
    assert odd.detail[0]["type"] == "model_attributes_type"


async def test_faults_happen_in_order_each_to_the_calls_it_is_for() -> None:
    async with serving() as (server, client):
        faults = server.faults
        faults.add(Fault.answer(501), on="list")
        faults.add(Fault.answer(502), on=("create", "delete"), times=2)
        faults.add(Fault.answer(503), on="any")
        assert list(faults) == [Fault.answer(501), Fault.answer(502), Fault.answer(503)]
        assert (await client.batch("a")).status == 503
        assert [(await client.create("a")).status, (await client.delete("a")).status] == [502, 502]
        assert [(await client.listed()).status, (await client.listed()).status] == [501, 200]
        assert (await client.create("a")).status == 200


async def test_a_fault_forever_lasts_until_it_is_cleared() -> None:
    async with serving(chaos=Chaos(1, rate=1)) as (server, client):
        server.faults.add(Fault.answer(503), times=FOREVER)
        assert {(await client.listed()).status for _ in range(20)} == {503}
        server.faults.clear()
        assert (await client.listed()).status == 200
        assert server.faults.chaos is None


async def test_a_request_without_a_route_meets_no_fault() -> None:
    async with serving(faults=[Fault.answer(503)], chaos=Chaos(1, rate=1)) as (_, client):
        assert (await client.call("GET", "/nope")).status == 404


async def test_calls_at_once_are_counted_while_they_wait() -> None:
    gate, arrived = asyncio.Event(), asyncio.Semaphore(0)

    async def sleep(_seconds: Any) -> None:
        arrived.release()
        await gate.wait()

    async with serving(sleep=sleep) as (server, client), asyncio.TaskGroup() as group:
        server.faults.add(Fault.slow(1), times=5)
        for n in range(3):
            group.create_task(client.create(str(n)))
        for _ in range(2):
            group.create_task(client.listed())
        for _ in range(5):
            await arrived.acquire()
        gate.set()
    assert server.max_in_flight == 5
    assert server.max_in_flight_by_kind == {"create": 3, "list": 2}
    assert server.max_in_flight_by_kind["batch"] == 0


async def _statuses(seed: Any, *, rate: Any = 0.5) -> Any:
    statuses: list[Any] = []
    async with serving(chaos=Chaos(seed, rate=rate)) as (server, client):
        for n in range(60):
            try:
                answer = await client.batch(f"{n}") if n % 3 else await client.listed()
                statuses.append(answer.status)
            except aiohttp.ClientError as error:
                statuses.append(type(error).__name__)
        return statuses, stored(server)


async def test_chaos_is_the_same_for_the_same_seed() -> None:
    first, again, other = await _statuses(7), await _statuses(7), await _statuses(8)
    assert first == again
    assert first != other
    assert set(first[0]) > {200, "ClientPayloadError"}


@pytest.mark.parametrize(("rate", "expected"), [(0, 0), (1, 500)])
def test_the_rate_of_chaos(rate: Any, expected: Any) -> None:
    chaos = Chaos(3, rate=rate)
    assert sum(chaos.draw("batch") is not None for _ in range(500)) == expected
    assert repr(chaos) == f"Chaos(3, rate={rate})"


def test_chaos_draws_only_what_fits_the_call_and_from_its_menu() -> None:
    chaos = Chaos(3, rate=1, menu=[Fault.after_prefix(1)])
    assert chaos.draw("list") is None
    assert chaos.draw("batch") == Fault.after_prefix(1)
    assert {fault for _ in range(2000) if (fault := Chaos(_, rate=1).draw("batch"))} == set(MENU)
    with pytest.raises(ValueError, match="rate"):
        Chaos(1, rate=2)


async def test_chaos_may_draw_conditions() -> None:
    menu = [Fault.poison("bad"), Fault.list_lag(3600)]
    async with serving(chaos=Chaos(1, rate=1, menu=menu)) as (_, client):
        assert [(await client.create(text)).status for text in ("good", "bad")] == [200, 422]
        assert await client.texts() == []


def test_faults_are_plain_values() -> None:
    assert Fault.after_prefix(3) == Fault.after_prefix(3) != Fault.after_prefix(4)
    assert len({Fault.reset(), Fault.reset(stored=True), Fault.reset()}) == 2
    assert repr(Fault.after_prefix(3)).startswith("Fault.after_prefix(kinds=('batch',), twist=Twist(")
    assert repr(Fault.slow(3)) == "Fault.slow(delay=3)"
    assert "text='bad'" in repr(Fault.poison("bad"))
    assert repr(Faults(Chaos(1))) == "Faults([], chaos=Chaos(1, rate=0.1))"


def test_a_plan_that_cannot_be_is_refused() -> None:
    faults = Faults()
    with pytest.raises(ValueError, match="no such kind of call: nonsense"):
        faults.add(Fault.reset(), on="nonsense")
    with pytest.raises(ValueError, match="0 times"):
        faults.add(Fault.reset(), times=0)
    with pytest.raises(ValueError, match="number"):
        Fault.after_prefix(-1)
    assert len(faults) == 0


plans = st.lists(
    st.one_of(
        st.sampled_from(MENU),
        st.builds(Fault.after_prefix, st.integers(0, 25)),
        st.builds(Fault.names_only, st.integers(0, 25)),
        st.builds(Fault.poison, st.text(min_size=1)),
    ),
    max_size=8,
)


@given(plans, st.lists(st.sampled_from(KINDS), max_size=20))
def test_a_planned_fault_happens_once_or_waits_and_a_call_has_one_at_most(plan: Any, operations: Any) -> None:
    faults = Faults()
    faults.add(*plan)
    taken = [(operation, fault) for operation in operations for fault in faults.take(operation, list)]
    assert Counter(fault for _, fault in taken) + Counter(faults) == Counter(plan)
    assert len(taken) <= len(operations)
    assert all(operation in fault.kinds for operation, fault in taken)


def test_the_server_is_made_without_faults() -> None:
    assert LocalServer().faults.chaos is None
    assert list(LocalServer().faults) == []


async def test_an_answer_may_close_its_connection_without_saying_so() -> None:
    async with serving() as (server, client):
        assert (await client.listed()).status == 200
        server.faults.add(Fault.answer(500, "oops", closes=True))
        answer = await client.listed()
        assert (answer.status, answer.detail) == (500, "oops")
        assert "Connection" not in answer.headers
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await client.batch("a")  # aiohttp repeats a GET by itself
        assert (await client.batch("a")).status == 200


async def test_a_fault_with_code_of_its_own() -> None:
    class Shouting(Fault):
        kinds = ("list",)

        async def happen(self, work: Work, sleep: Sleep) -> Reply:
            reply = await work()
            return Reply(200, reply.body.upper())

    async with serving(faults=[Shouting()]) as (_, client):
        await client.create("quiet")
        assert b"QUIET" in (await client.listed()).body
        assert await client.texts() == ["quiet"]
