"""Quotas: fixed windows on a clock that stands still until it is moved."""

from typing import Any

import pytest

from omi_async.local import DOCUMENTED_QUOTAS, REAL_QUOTAS, Fault, Quota, Quotas
from tests.local.local_client import MEMORIES, SEARCH, Client, Clock, client_of, serving

TWO = Quota("two", 2, 60, ("create", "delete"))


def _limits(answer: Any) -> Any:
    names = ("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    return {name: answer.headers[name] for name in names if name in answer.headers}


async def test_no_quota_unless_asked_for() -> None:
    async with serving() as (server, client):
        statuses = {(await client.create("a")).status for _ in range(150)}
        assert list(server.quotas) == []
    assert statuses == {200}


async def test_a_refusal_says_when_to_come_back_and_nothing_else_says_anything() -> None:
    async with serving(quotas=[TWO], clock=(clock := Clock())) as (_, client):
        first = await client.create("a")
        clock.now += 20.5
        await client.create("b")
        refused = await client.create("c")
        assert (await client.listed()).status == 200
    assert _limits(first) == {}
    assert refused.status == 429
    assert refused.detail == "Rate limit exceeded. Try again in 39s."
    assert _limits(refused) == {"Retry-After": "39", "X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0"}


async def test_the_window_begins_with_its_first_call_and_refused_calls_do_not_extend_it() -> None:
    async with serving(quotas=[TWO], clock=(clock := Clock())) as (_, client):
        for moment in (0, 30, 40, 50, 59.9):
            clock.now = Clock().now + moment
            answer = await client.create("a")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "0")
        clock.now = Clock().now + 60
        assert (await client.create("a")).status == 200


async def test_operations_of_one_quota_share_it() -> None:
    async with serving(quotas=[TWO]) as (_, client):
        await client.create("a")
        assert (await client.delete("nope")).status == 404
        assert (await client.create("b")).status == 429


async def test_what_spends_quota_and_what_does_not() -> None:
    async with serving(quotas=[Quota("two", 2, 60, ("create",))], scopes=["memories:write"]) as (
        server,
        client,
    ):
        broken = await client.call("POST", MEMORIES, data=b"{", headers={"Content-Type": "application/json"})
        stranger = await client.call("POST", MEMORIES, json={}, headers={"Authorization": "Bearer x"})
        reader = server.add_key(scopes=["memories:read"])
        forbidden = await client.call(
            "POST", MEMORIES, json={}, headers={"Authorization": f"Bearer {reader}"}
        )
        invalid = await client.create("")
        blank = await client.create(" ")
        refused = await client.create("a")
    statuses = [answer.status for answer in (broken, stranger, forbidden, invalid, blank, refused)]
    assert statuses == [422, 401, 403, 422, 422, 429]


async def test_two_keys_have_separate_counts_unless_the_quota_is_the_users() -> None:
    quotas = [Quota("key", 1, 60, ("list",)), Quota("user", 1, 60, ("create",), per="user")]
    async with serving(quotas=quotas) as (server, client), client_of(server, server.add_key()) as http:
        other = Client(http)
        assert [(await each.listed()).status for each in (client, other)] == [200, 200]
        assert [(await each.create("a")).status for each in (client, other)] == [200, 429]


async def test_the_documented_quotas_speak_on_every_answer() -> None:
    async with serving(quotas=DOCUMENTED_QUOTAS, clock=(clock := Clock())) as (_, client):
        answers = [await client.listed() for _ in range(101)]
        invalid_after_a_minute = clock.now = clock.now + 60
        invalid = await client.create("")
    reset = str(int(Clock().now) + 60)
    for number in (0, 99):
        expected = {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": str(99 - number),
            "X-RateLimit-Reset": reset,
        }
        assert _limits(answers[number]) == expected
    assert answers[100].status == 429
    assert _limits(answers[100]) == expected | {"Retry-After": "60"}
    assert invalid_after_a_minute + 60 == float(invalid.headers["X-RateLimit-Reset"])
    assert invalid.headers["X-RateLimit-Remaining"] == "99"


async def test_the_documented_day_is_what_is_left_at_its_end() -> None:
    quotas = [DOCUMENTED_QUOTAS[0], Quota("day", 3, 86_400, per="user", announced=True)]
    async with serving(quotas=quotas) as (_, client):
        answers = [await client.listed() for _ in range(4)]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[3].headers["Retry-After"] in {"86399", "86400"}


@pytest.mark.parametrize(
    ("operation", "limit"),
    [("list", 120), ("search", 120), ("delete", 120), ("batch", 15), ("create", 30), ("key", 200)],
)
async def test_the_real_quotas(operation: Any, limit: Any) -> None:
    calls = {
        "list": ("GET", MEMORIES),
        "search": ("GET", f"{SEARCH}?query=a"),
        "delete": ("DELETE", f"{MEMORIES}/1"),
        "batch": ("POST", f"{MEMORIES}/batch"),
        "create": ("POST", MEMORIES),
        "key": ("GET", "/v1/dev/key"),
    }
    async with serving(quotas=REAL_QUOTAS, clock=Clock()) as (_, client):
        statuses = [(await client.call(*calls[operation])).status for _ in range(200)]
    assert statuses.count(429) == 200 - limit
    assert 429 not in statuses[:limit]


async def test_the_write_burst_passes_but_the_hour_does_not() -> None:
    async with serving(quotas=REAL_QUOTAS, clock=(clock := Clock())) as (_, client):
        for _ in range(4):
            assert [(await client.create("a")).status for _ in range(30)] == [200] * 30
            clock.now += 60
        assert (await client.create("a")).headers["Retry-After"] == str(3600 - 240)


async def test_limits_can_be_changed_while_the_server_runs() -> None:
    async with serving(quotas=[TWO]) as (server, client):
        assert [(await client.create("a")).status for _ in range(3)] == [200, 200, 429]
        server.quotas.change("two", limit=4)
        assert [(await client.create("a")).status for _ in range(2)] == [200, 429]
        server.quotas.forget()
        assert (await client.create("a")).status == 200
        server.quotas.replace(Quota("none", 0, 60, "create"))
        assert (await client.create("a")).status == 429
        server.quotas.replace()
        assert (await client.create("a")).status == 200


async def test_a_call_that_a_fault_answers_before_the_work_spends_nothing() -> None:
    async with serving(quotas=[TWO]) as (server, client):
        server.faults.add(Fault.answer(503, "Rate limiter unavailable"), times=5)
        assert [(await client.create("a")).status for _ in range(8)] == [503] * 5 + [200, 200, 429]


def test_quotas_are_checked_when_they_are_made() -> None:
    quotas = Quotas([TWO], clock=Clock())
    with pytest.raises(ValueError, match="no such kind of call: nonsense"):
        Quota("a", 1, 60, ("nonsense",))
    with pytest.raises(ValueError, match="window"):
        Quota("a", 1, 0)
    with pytest.raises(ValueError, match="limit"):
        Quota("a", -1, 1)
    with pytest.raises(ValueError, match="same name"):
        quotas.replace(TWO, TWO)
    with pytest.raises(KeyError, match="nonsense"):
        quotas.change("nonsense", limit=1)
    quotas.change("two", window=5)
    assert repr(quotas) == f"Quotas({Quota('two', 2, 5, ('create', 'delete'))!r},)"
