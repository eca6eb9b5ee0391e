"""What servers say of their quotas, and what a Session makes of it: over real HTTP, on a virtual clock."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from omi_async import ConfigurationError, ConnectError, RateLimitError, Retry, Session
from omi_async._quota.policy import QuotaPolicy
from omi_async.local import DOCUMENTED_QUOTAS, FOREVER, REAL_QUOTAS, Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.importing.helpers import facts, serving, virtual_clock

KEY = "omi_dev_0123456789abcdef"

pytestmark = pytest.mark.virtual_clock


class Moments(Fault):
    """Notes when calls come, by the loop's clock, and answers with what it is given, then as always."""

    def __init__(self, *answers: Fault) -> None:
        self.answers = [*answers]
        self.moments: list[float] = []

    async def happen(self, work: Any, sleep: Any) -> Any:
        self.moments.append(asyncio.get_running_loop().time())
        return await self.answers.pop(0).happen(work, sleep) if self.answers else await work()


@asynccontextmanager
async def answering(*answers: Fault, **options: Any) -> AsyncIterator[tuple[Session, list[float]]]:
    async with serving(session=options) as (server, session):
        moments = Moments(*answers)
        server.faults.add(moments, times=FOREVER)
        yield session, moments.moments


def refusal(**headers: str) -> Fault:
    return Fault.answer(
        429, "Rate limit exceeded.", headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def both(session: Session, kind: str) -> None:
    if kind == "list":
        await session.memories.list()
    else:
        await session.memories.create("x")


SAID = {
    "seconds": ({"Retry_After": "7"}, 7),
    "a fraction": ({"Retry_After": "1.5"}, 1.5),
    "spaces": ({"Retry_After": " 7 "}, 7),
    "a date": (
        {"Retry_After": formatdate(1.8e9 + 30, usegmt=True), "Date": formatdate(1.8e9, usegmt=True)},
        30,
    ),
    "a date gone by": (
        {"Retry_After": formatdate(1.8e9 - 30, usegmt=True), "Date": formatdate(1.8e9, usegmt=True)},
        0.05,
    ),
    "zero": ({"Retry_After": "0"}, 0.05),
    "a reset": ({"X_RateLimit_Limit": "100", "X_RateLimit_Reset": "12"}, 12),
    "a moment": (
        {"X_RateLimit_Limit": "9", "X_RateLimit_Reset": "1800000012", "Date": formatdate(1.8e9, usegmt=True)},
        12,
    ),
}
UNSAID = {
    "nothing": {},
    "no number": {"Retry_After": "soon"},
    "nan": {"Retry_After": "nan"},
    "infinite": {"Retry_After": "inf"},
    "negative": {"Retry_After": "-5"},
    "milliseconds since 1970": {"Retry_After": "1790000000000"},
    "a limit without a time": {"X_RateLimit_Limit": "15"},
    "a limit that is none": {"X_RateLimit_Limit": "many", "X_RateLimit_Reset": "5"},
}


@pytest.mark.parametrize("kind", ["list", "create"])
@pytest.mark.parametrize(("headers", "wait"), SAID.values(), ids=SAID.keys())
async def test_a_wait_that_is_named_is_kept_and_no_longer(
    kind: str, headers: dict[str, str], wait: float
) -> None:
    async with answering(refusal(**headers)) as (session, moments):
        await both(session, kind)
        assert moments[1] - moments[0] == pytest.approx(wait, abs=0.02)


@pytest.mark.parametrize("headers", UNSAID.values(), ids=UNSAID.keys())
async def test_if_none_is_named_the_waits_grow_with_jitter(headers: dict[str, str]) -> None:
    async with answering(*[refusal(**headers)] * 5, retry=Retry(attempts=6)) as (session, moments):
        await session.memories.list()
        waits = [after - before for before, after in pairwise(moments)]
        for number, wait in enumerate(waits):
            longest = min(0.5 * 2**number, 8.0)
            assert longest / 2 - 0.01 <= wait <= longest + 0.02
        assert len({round(wait / min(0.5 * 2**n, 8.0), 4) for n, wait in enumerate(waits)}) > 2


async def test_a_page_of_the_load_balancers_holds_all_calls_back_and_no_window() -> None:
    # Catches: the hourly window shut by, or spent on, what the service itself has never seen.
    policies = [QuotaPolicy(3, 3600)]
    async with answering(Fault.html(429), quotas=policies) as (session, moments):
        before = asyncio.get_running_loop().time()
        first = asyncio.create_task(session.memories.list())
        await asyncio.sleep(0.1)
        await session.memories.create("x")  # another kind waits too
        await first
        assert 0.2 < moments[1] - moments[0] <= 0.52
        [state] = session.quotas
        assert (state.used, state.opens_at) == (2, None)
        await session.memories.list(limit=1)
        assert elapsed(before) < 1
        assert session.quotas[0].used == 3


async def test_a_live_call_gets_through_the_second_that_was_rounded_down() -> None:
    # Catches: all attempts of a call spent within the last second before the opening.
    async with serving(quotas=[Quota("one", 1, 30.9)]) as (server, session):
        await session.memories.list()
        await session.memories.list()
        await asyncio.sleep(30)
        await session.memories.list()
        assert sum(record.status == 429 for record in server.requests) <= 5
    for zeros in (1, 2, 3):
        async with answering(*[refusal(Retry_After="0", X_RateLimit_Limit="5")] * zeros) as (
            session,
            moments,
        ):
            await session.memories.list()
            assert moments[-1] - moments[0] < 1.1
    assert moments[-1] - moments[0] > 1


async def test_several_pages_at_once_are_one_lesson() -> None:
    async with answering(*[Fault.html(429)] * 8) as (session, moments):
        await asyncio.gather(*[session.memories.list() for _ in range(8)])
        assert len(moments) == 16
        assert moments[15] - moments[0] < 0.6


async def test_a_short_wait_is_waited_and_a_long_one_raised_without_another_call() -> None:
    async with answering(refusal(Retry_After="3000", X_RateLimit_Limit="5")) as (session, moments):
        before = asyncio.get_running_loop().time()
        for _ in range(3):
            with pytest.raises(RateLimitError) as caught:
                await session.memories.list()
        assert caught.value.retry_after == pytest.approx(3000, abs=2)
        assert len(moments) == 1
        assert elapsed(before) < 1
        await session.memories.create("x")
        await asyncio.sleep(3001)
        await session.memories.list()
        assert len(moments) == 3


@pytest.mark.parametrize(("max_wait", "waits"), [(0, False), (19, False), (22, True)])
async def test_max_wait_is_for_all_waits_of_a_call(max_wait: float, *, waits: bool) -> None:
    refusals = [refusal(Retry_After="10", X_RateLimit_Limit="5")] * 2
    async with answering(*refusals, max_wait=max_wait) as (session, moments):
        if waits:
            await session.memories.list()
            assert len(moments) == 3
        else:
            with pytest.raises(RateLimitError):
                await session.memories.list()
            assert len(moments) == (1 if max_wait < 10 else 2)


# What is known beforehand


def test_documented_limits_are_assumed_of_the_official_service_alone() -> None:
    def limits(**options: Any) -> Any:
        return [(it.limit, it.window, it.used, it.source) for it in Session(KEY, **options).quotas]

    documented = [(100, 60, 0, "documented"), (10_000, 86_400, 0, "documented")]
    assert limits() == limits(base_url="https://api.omi.me/") == documented
    assert limits(base_url="https://omi.example") == []
    assert limits(base_url="http://localhost:1") == []
    assert limits(quotas=()) == []
    assert limits(quotas=[QuotaPolicy(5, 10)]) == [(5, 10, 0, "given")]


def test_policies_of_one_size_for_different_calls_need_no_names() -> None:
    # Catches: the service's own policies (120 an hour for reads, and for writes) refused as equal.
    policies = [
        QuotaPolicy(120, 3600, kinds=frozenset({"list"})),
        QuotaPolicy(120, 3600, kinds=frozenset({"create", "update", "delete"})),
    ]
    assert len(Session(KEY, quotas=policies).quotas) == 2


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1.5}, {"window": 0}, {"window": float("inf")}])
def test_a_policy_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        QuotaPolicy(**{"limit": 1, "window": 1, **wrong})


async def test_what_is_given_is_never_exceeded() -> None:
    policies = [QuotaPolicy(5, 10), QuotaPolicy(12, 60, kinds=frozenset({"create"}))]
    async with serving(session={"quotas": policies, "max_wait": 1000}) as (server, session):
        records = Moments()
        server.faults.add(records, times=FOREVER)
        before = asyncio.get_running_loop().time()
        await asyncio.gather(*[session.memories.create(f"fact {n}") for n in range(30)])
        for first in records.moments:
            assert sum(first <= moment < first + 10 for moment in records.moments) <= 2 * 5
        assert 120 <= elapsed(before) <= 124 + 12
        assert len(records.moments) == 30


async def test_what_is_announced_is_obeyed_before_anything_is_refused() -> None:
    async with serving(quotas=DOCUMENTED_QUOTAS, session={"max_wait": 1000}) as (server, session):
        before = asyncio.get_running_loop().time()
        await session.memories.list()
        await asyncio.gather(*[session.memories.create(f"fact {n}") for n in range(350)])
        assert [record.status for record in server.requests if record.status == 429] == []
        assert elapsed(before) == pytest.approx(180, abs=6)


async def test_sixteen_live_callers_learn_the_services_real_limits_once() -> None:
    async with serving(quotas=REAL_QUOTAS, session={"max_wait": 1e6, "connections": 16}) as (server, session):
        before = asyncio.get_running_loop().time()
        await asyncio.gather(*[session.memories.create(f"fact {n}") for n in range(300)])
        refused = [record for record in server.requests if record.status == 429]
        assert len(refused) <= 2 * 16 + 4  # two policies; and the seconds that are rounded down
        assert elapsed(before) == pytest.approx(2 * 3600 + 60, rel=0.02)


async def test_a_call_that_reached_no_server_has_spent_nothing() -> None:
    async with LocalServer(clock=virtual_clock()) as server:
        url = server.url
    policies = [QuotaPolicy(3, 3600)]
    async with Session(KEY, base_url=url, quotas=policies) as session:
        with pytest.raises(ConnectError):
            await session.memories.list()
        assert [state.used for state in session.quotas] == [0]


async def test_a_lost_call_is_counted() -> None:
    async with serving(session={"quotas": [QuotaPolicy(9, 3600)]}) as (server, session):
        server.faults.add(Fault.reset(), Fault.answer(500), on="list")
        await session.memories.list()
        assert [state.used for state in session.quotas] == [3]


async def test_closing_a_session_sends_those_away_who_wait_for_a_window() -> None:
    async with serving(session={"quotas": [QuotaPolicy(1, 30)], "max_wait": 600}) as (_, session):
        await session.memories.list()
        waiting = [asyncio.create_task(session.memories.list()) for _ in range(3)]
        await asyncio.sleep(1)
        await session.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ConfigurationError] * 3


async def test_who_has_too_many_before_him_is_told_at_once() -> None:
    # Catches: finding out only when the window opens that another program was first.
    async with serving(session={"quotas": [QuotaPolicy(1, 50)]}) as (server, session):
        await session.memories.list()
        before = asyncio.get_running_loop().time()
        first = asyncio.create_task(session.memories.list())
        await asyncio.sleep(1)
        with pytest.raises(RateLimitError) as told:
            await session.memories.list()
        assert elapsed(before) < 2
        assert told.value.retry_after == pytest.approx(99, abs=2)
        await first
        assert len(server.requests) == 2


async def test_a_given_policy_is_not_raised_by_what_the_server_announces() -> None:
    # Catches: the user's own limit replaced by the server's.
    async with serving(quotas=DOCUMENTED_QUOTAS, session={"quotas": [QuotaPolicy(5, 60)]}) as (_, session):
        before = asyncio.get_running_loop().time()
        await session.memories.import_facts(facts(25 * 20))
        assert elapsed(before) >= 180
        assert [state.limit for state in session.quotas if state.source == "given"] == [5]


async def test_more_remaining_than_the_limit_is_no_credit() -> None:
    # Catches: a negative count, which no other process would take over.
    async with serving(session={"quotas": ()}) as (server, session):
        headers = {"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "10", "X-RateLimit-Reset": "60"}
        server.faults.add(Fault.answer(200, body=b"[]", headers=headers), on="list")
        await session.memories.list()
        assert [state.used for state in session.quotas] == [0]


async def test_the_wait_is_told_if_only_a_reset_told_it() -> None:
    async with serving(session={"quotas": (), "max_wait": 5}) as (server, session):
        headers = {"X-RateLimit-Limit": "5", "X-RateLimit-Reset": "3600"}
        server.faults.add(Fault.answer(429, "no", headers=headers), on="list")
        with pytest.raises(RateLimitError) as told:
            await session.memories.list()
        assert told.value.retry_after == pytest.approx(3600, abs=2)


async def test_the_services_own_words_name_the_wait_if_the_header_was_lost() -> None:
    # Catches: a load balancer that strips headers, and a client that then asks every few seconds for an hour.
    async with serving(session={"quotas": (), "max_wait": 100}) as (server, session):
        server.faults.add(Fault.answer(429, "Rate limit exceeded. Try again in 77s."), on="list")
        before = asyncio.get_running_loop().time()
        await session.memories.list()
        assert elapsed(before) == pytest.approx(77, abs=0.1)
        assert len(server.requests) == 2


async def test_states_may_be_read_from_another_thread(tmp_path: Path) -> None:
    # Catches: the ledger file's connection used by two threads at once, which SQLite answers with a crash.
    async with serving(session={"quotas": [QuotaPolicy(500, 60)], "ledger": tmp_path / "x"}) as (_, session):
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                assert session.quotas[0].limit == 500

        reading = asyncio.get_running_loop().run_in_executor(None, read)
        for _number in range(100):
            await session.memories.list()
        done.set()
        await reading


async def test_the_time_at_which_a_window_opens_is_told() -> None:
    async with serving(quotas=[Quota("two", 2, 3600)]) as (_, session):
        await session.memories.list()
        await session.memories.list()
        with pytest.raises(RateLimitError):
            await session.memories.list()
        [state] = session.quotas
        assert (state.limit, state.window, state.source, state.policy) == (2, 3600, "learned", "2-an-hour")
        assert state.opens_at is not None
        assert state.opens_at.timestamp() - time.time() == pytest.approx(3600, abs=5)
