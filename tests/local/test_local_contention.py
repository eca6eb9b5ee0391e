"""Parallel writes of one account: how often they fail, and what a failed one leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from omi_async.local import LocalServer
from tests.local.local_client import Answer, Client, client_of, serving, stored

pytestmark = pytest.mark.virtual_clock

Call = Callable[[int], Coroutine[Any, Any, Answer]]


@contextlib.asynccontextmanager
async def contended(seconds: float | bool = 0.01) -> AsyncIterator[tuple[LocalServer, Client]]:
    """Yield a server, and a client with a new connection for each call: after a 500 the old one is dead."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with LocalServer(contended=seconds) as server, client_of(server, connector=connector) as http:
        yield server, Client(http)


async def statuses_of(streams: int, calls: int, call: Call) -> list[int]:
    """Make so many calls in so many streams, each one after the other; return the statuses."""

    async def stream(first: int) -> list[int]:
        return [(await call(number)).status for number in range(first, first + calls)]

    found = await asyncio.gather(*(stream(number * calls) for number in range(streams)))
    return [status for statuses in found for status in statuses]


def batches(client: Client) -> Call:
    return lambda number: client.batch(*(f"fact {number} {item}" for item in range(25)))


def singles(client: Client) -> Call:
    return lambda number: client.create(f"fact {number}")


@pytest.mark.parametrize(
    ("streams", "calls", "make", "fewest", "most"),
    [
        (1, 4, batches, 4, 4),
        (1, 20, singles, 20, 20),
        (2, 4, batches, 6, 8),
        (4, 4, batches, 2, 9),
        (4, 20, singles, 40, 60),
        (8, 10, singles, 20, 42),
        (24, 1, singles, 4, 10),
    ],
)
async def test_parallel_writes_fail_about_as_often_as_the_backends(
    streams: int, calls: int, make: Callable[[Client], Call], fewest: int, most: int
) -> None:
    async with contended() as (_, client):
        statuses = await statuses_of(streams, calls, make(client))
    assert set(statuses) <= {200, 500}
    assert fewest <= statuses.count(200) <= most


async def test_updates_race_too_and_deletes_are_repeated_until_they_are_done() -> None:
    async with contended() as (server, client):
        ids = [memory["id"] for memory in server.add(*(f"fact {number}" for number in range(24)))]
        updates = await statuses_of(24, 1, lambda number: client.patch(ids[number], content=f"new {number}"))
        assert 4 <= updates.count(200) <= 10
        assert sum(text.startswith("new") for text in stored(server)) == updates.count(200)
        deletes = await statuses_of(24, 1, lambda number: client.delete(ids[number]))
        assert (deletes, stored(server)) == ([200] * 24, [])


async def test_a_failed_batch_is_a_plain_500_after_a_prefix_on_a_connection_that_is_closed() -> None:
    async with serving(contended=0.01) as (server, client):
        answers = await asyncio.gather(*(batches(client)(number) for number in range(6)))
        failed = [number for number, answer in enumerate(answers) if answer.status == 500]
        assert failed
        for number in failed:
            answer = answers[number]
            assert (answer.body, answer.headers["Content-Type"]) == (
                b"Internal Server Error",
                "text/plain; charset=utf-8",
            )
            assert "Connection" not in answer.headers
            there = [text for text in stored(server) if text.startswith(f"fact {number} ")]
            assert there == [f"fact {number} {item}" for item in range(len(there))]
            assert len(there) < 25
        for number in {*range(6)} - {*failed}:
            server.assert_each_stored_once(f"fact {number} {item}" for item in range(25))


async def test_the_time_of_a_batch_is_that_of_its_storage_calls() -> None:
    loop = asyncio.get_running_loop()
    async with contended(seconds=True) as (server, client):
        started = loop.time()
        assert (await batches(client)(0)).status == 200
        assert loop.time() - started == pytest.approx(25 * 16 * 0.005, rel=0.2)
        started = loop.time()
        assert (await client.create("one")).status == 200
        assert loop.time() - started == pytest.approx(5 * 0.005, rel=0.7)
        assert len(stored(server)) == 26


async def test_one_text_in_parallel_is_stored_once_with_text_identity() -> None:
    async with contended() as (server, client):
        await statuses_of(4, 5, lambda _: client.create("the same"))
        server.assert_each_stored_once(["the same"])
        assert stored(server) == ["the same"]
