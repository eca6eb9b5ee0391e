"""Many keys over one pool of connections: what is shared, what is not, what goes and what stays."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from traceback import walk_tb
from typing import Any

import anyio
import pytest

from omi_async import (
    AuthenticationError,
    ConfigurationError,
    QuotaPolicy,
    RateLimitError,
    Session,
    SessionPool,
)
from omi_async.local import Fault, LocalServer, Quota
from tests.clock import elapsed
from tests.importing.helpers import facts, virtual_clock
from tests.quotas.test_ledger_file import open_files


@asynccontextmanager
async def pooling(*quotas: Quota, **options: Any) -> AsyncIterator[tuple[LocalServer, SessionPool]]:
    """Serve, with a server whose clock is the loop's."""
    async with (
        LocalServer(clock=virtual_clock(), quotas=quotas) as server,
        SessionPool(base_url=server.url, **options) as pool,
    ):
        yield server, pool


# One pool, many keys


async def test_a_key_gets_the_same_session_and_each_key_its_own_account(server: LocalServer) -> None:
    async with SessionPool(base_url=server.url) as pool:
        other = server.add_account()
        first, second = pool.session(server.api_key), pool.session(other)
        assert pool.session(f" {server.api_key}\n") is first is not second
        assert len(pool) == 2
        await first.memories.create("User is vegetarian", category="system")
        await second.memories.create("User lives in Oslo", category="system")
        assert [it.content for it in await first.memories.list()] == ["User is vegetarian"]
        assert [it.content for it in await second.memories.list()] == ["User lives in Oslo"]


async def test_all_keys_share_so_many_connections(server: LocalServer) -> None:
    # Catches: a pool of connections for each user.
    server.faults.add(Fault.slow(0.05), on="list", times=100)
    async with SessionPool(base_url=server.url, connections=5) as pool:
        sessions = [pool.session(server.add_key()) for _ in range(20)]
        await asyncio.gather(*[session.memories.list() for session in sessions])
        assert server.max_in_flight == 5


async def test_a_session_is_left_open_by_those_who_use_it_in_a_block(server: LocalServer) -> None:
    # Catches: the first request handler to end, which closes the Session of all others of that user.
    async with SessionPool(base_url=server.url) as pool:
        async with pool.session(server.api_key) as one:
            async with pool.session(server.api_key) as other:
                await other.memories.list()
            assert one is other
            await one.memories.list()
        await pool.session(server.api_key).close()
        await one.memories.list()
    assert one.closed


async def test_a_missing_key_is_an_error_and_never_the_operators(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Catches: a user without a key who reads and writes the account of whoever runs the app.
    monkeypatch.setenv("OMI_API_KEY", server.api_key)
    async with SessionPool(base_url=server.url) as pool:
        none: Any = None
        for key in ("", "  ", none):
            with pytest.raises(ConfigurationError, match="no API key"):
                pool.session(key)
        wrong: list[Any] = [5, b"omi_dev_1", True, ("omi_dev_1",)]
        for key in wrong:
            with pytest.raises(ConfigurationError, match="must be a string, not"):
                pool.session(key)


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"max_sessions": 0},
        {"idle": -1},
        {"idle": float("nan")},
        {"timeout": 0},
        {"reserve": 1},
        {"base_url": "http://192.0.2.1"},
    ],
)
def test_wrong_options_are_told_before_the_first_user_comes(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        SessionPool(**wrong)


# The key


async def test_a_key_is_in_no_repr_log_or_error(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = "omi_dev_0123456789abcdef0123456789abcdef"
    pool = SessionPool(base_url=server.url)
    session = pool.session(key)
    with pytest.raises(AuthenticationError) as refused:
        await session.memories.list()
    shown = [
        repr(pool),
        repr(session),
        repr(vars(pool)),
        repr(vars(session)),
        repr(refused.value),
        caplog.text,
    ]
    await pool.close()
    with pytest.raises(ConfigurationError) as closed:
        pool.session(key)
    shown.append(repr(closed.value))
    for frame, _ in [*walk_tb(refused.tb), *walk_tb(closed.tb)]:
        if frame.f_globals is not globals():
            shown.append(repr(frame.f_locals))
    assert [text for text in shown if key[8:] in text] == []


# Quotas


@pytest.mark.virtual_clock
async def test_a_key_has_one_account_of_its_quotas_and_other_keys_have_theirs() -> None:
    async with pooling(Quota("two", 2, 3600), max_wait=0) as (server, pool):
        for _ in range(2):
            await pool.session(server.api_key).memories.list()
        for _ in range(5):
            with pytest.raises(RateLimitError):
                await pool.session(server.api_key).memories.list()
        assert len(server.requests) == 3
        await pool.session(server.add_account()).memories.list()


@pytest.mark.virtual_clock
@pytest.mark.parametrize("forgotten", ["idle", "crowded out"])
async def test_a_session_that_went_is_made_again_and_knows_its_quotas(forgotten: str) -> None:
    # Catches: a window that is spent again, by each user who comes back after ten minutes.
    async with pooling(Quota("two", 2, 3600), max_wait=0, max_sessions=3) as (server, pool):
        first = pool.session(server.api_key)
        for _ in range(2):
            await first.memories.list()
        with pytest.raises(RateLimitError):
            await first.memories.list()
        del first
        if forgotten == "idle":
            await asyncio.sleep(1300)
            assert len(pool) == 0  # without anybody asking for another
        else:
            for _ in range(3):
                pool.session(server.add_key())
            assert len(pool) == 3
        gc.collect()
        again = pool.session(server.api_key)
        assert [(state.limit, state.window) for state in again.quotas] == [(2, 3600)]
        before = len(server.requests)
        with pytest.raises(RateLimitError):
            await again.memories.list()
        assert len(server.requests) == before


@pytest.mark.virtual_clock
async def test_what_is_known_of_a_user_who_has_gone_is_forgotten_when_it_is_stale() -> None:
    async with pooling(Quota("two", 2, 3600), max_wait=0) as (server, pool):
        for _ in range(2):
            await pool.session(server.api_key).memories.list()
        with pytest.raises(RateLimitError):
            await pool.session(server.api_key).memories.list()
        await asyncio.sleep(90_000)
        pool.session(server.add_key())
        gc.collect()
        assert pool.session(server.api_key).quotas == ()


@pytest.mark.virtual_clock
async def test_whoever_holds_a_session_that_went_goes_on_with_the_account_of_the_new_one() -> None:
    # Catches: an import of hours, and the requests of its user beside it, that spend one window twice.
    policies = [QuotaPolicy(4, 3600)]
    async with pooling(quotas=policies, max_wait=0, idle=60) as (server, pool):
        held = pool.session(server.api_key)
        await held.memories.list()
        await asyncio.sleep(200)
        assert len(pool) == 0
        again = pool.session(server.api_key)
        assert again is not held
        await held.memories.list()
        await again.memories.list()
        assert [session.quotas[0].used for session in (held, again)] == [3, 3]


@pytest.mark.virtual_clock
async def test_a_session_in_use_is_not_idle() -> None:
    async with pooling(Quota("batches", 1, 3600, ("batch",)), idle=60) as (server, pool):
        session = pool.session(server.api_key)
        importing = asyncio.create_task(session.memories.import_facts(facts(50)))
        await asyncio.sleep(1800)  # waiting for its window
        assert pool.session(server.api_key) is session
        await importing
        assert importing.result().created == 50


@pytest.mark.virtual_clock
async def test_sessions_that_are_never_idle_long_enough_or_at_once() -> None:
    # Catches: a look at those in use that never ends, if no time at all is idle.
    for idle, kept in ((0, 1), (float("inf"), 3)):
        async with pooling(Quota("list", 1, 30, ("list",)), idle=idle) as (server, pool):
            busy = pool.session(server.api_key)
            await busy.memories.list()
            waiting = asyncio.create_task(busy.memories.list())
            await asyncio.sleep(1)
            assert pool.session(server.api_key) is busy
            for _ in range(2):
                pool.session(server.add_key())
            await asyncio.sleep(10)
            assert len(pool) == kept
            await waiting


async def test_a_ledger_file_is_written_for_all_keys_and_held_open_by_none(
    server: LocalServer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"ledger": tmp_path / "x", "quotas": [QuotaPolicy(9, 3600)], "max_sessions": 5}
    async with SessionPool(base_url=server.url, **options) as pool:
        keys = [server.add_key() for _ in range(20)]
        for key in keys:
            await pool.session(key).memories.list()
        for _ in range(1000):
            held = [name for name in open_files() if str(tmp_path) in name]
            if not held:
                break
            await asyncio.sleep(0.01)  # what is known of those that went is being written
        assert held == []
    with closing(sqlite3.connect(tmp_path / "x")) as connection:
        assert connection.execute("SELECT count(*) FROM quotas").fetchone() == (20,)
    async with Session(
        keys[0], base_url=server.url, ledger=tmp_path / "x", quotas=options["quotas"]
    ) as later:
        assert later.quotas[0].used == 1


# Memory


async def test_a_thousand_sessions_cost_little_each(server: LocalServer) -> None:
    """20 KiB each at most, after a call."""
    keys = [server.add_key() for _ in range(1000)]
    async with SessionPool(base_url=server.url, connections=20) as pool:
        await pool.session(keys[0]).memories.list()
        await asyncio.gather(*[pool.session(key).memories.list() for key in keys[:50]])
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for key in keys[50:]:
            await pool.session(key).memories.list()
        server.requests.clear()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(pool) == 1000
        assert (after - before) / 950 < 20 * 1024


# Ends


@pytest.mark.virtual_clock
async def test_closing_lets_calls_come_back_and_sends_those_away_who_wait() -> None:
    async with pooling(quotas=[QuotaPolicy(1, 30, kinds=frozenset({"list"}))]) as (server, pool):
        session = pool.session(server.api_key)
        await session.memories.list()
        server.faults.add(Fault.slow(3.0), on="create")
        writing = asyncio.create_task(session.memories.create("User is vegetarian", category="system"))
        waiting = asyncio.create_task(session.memories.list())
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        await pool.close()
        assert elapsed(before) == pytest.approx(2, abs=0.2)
        assert (await writing).content == "User is vegetarian"
        with pytest.raises(ConfigurationError, match="closed"):
            await waiting
        assert (pool.closed, session.closed) == (True, True)
        with pytest.raises(ConfigurationError, match="closed"):
            await session.memories.list()
        with pytest.raises(ConfigurationError, match="closed"):
            pool.session(server.api_key)
        await pool.close()


@pytest.mark.virtual_clock
async def test_closing_waits_for_no_server_for_longer_than_half_a_minute() -> None:
    async with pooling() as (server, pool):
        server.faults.add(Fault.slow(100.0), on="list")
        calling = asyncio.create_task(pool.session(server.api_key).memories.list())
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        await pool.close()
        assert elapsed(before) == pytest.approx(30, abs=1)
        await asyncio.wait([calling])
        assert calling.exception() is not None


@pytest.mark.parametrize("pooled", [True, False])
async def test_closing_outlasts_a_cancellation_by_level(
    server: LocalServer, tmp_path: Path, pooled: bool
) -> None:
    # Catches: a web app's last cancellation, repeated at every turn, by which no ledger is written.
    options: dict[str, Any] = {"ledger": tmp_path / "x", "quotas": [QuotaPolicy(9, 3600)]}
    sessions, called = list[Session](), anyio.Event()

    async def app() -> None:
        async with SessionPool(base_url=server.url, **options) as pool:
            alone = Session(server.api_key, base_url=server.url, **options)
            async with pool.session(server.api_key) if pooled else alone as session:
                sessions.append(session)
                await session.memories.list()
                called.set()
                await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app)
        await called.wait()
        tasks.cancel_scope.cancel()
    assert sessions[0].closed
    with closing(sqlite3.connect(tmp_path / "x")) as connection:
        assert connection.execute("SELECT count(*) FROM quotas").fetchone() == (1,)


def test_a_pool_belongs_to_one_event_loop() -> None:
    with LocalServer.in_thread() as server:
        pool = SessionPool(base_url=server.url)
        with pytest.raises(ConfigurationError, match="inside a running event loop"):
            pool.session(server.api_key)

        async def use() -> Session:
            session = pool.session(server.api_key)
            await session.memories.list()
            return session

        with asyncio.Runner() as one, asyncio.Runner() as other:
            session = one.run(use())
            with pytest.raises(ConfigurationError, match="another event loop"):
                other.run(use())
            with pytest.raises(ConfigurationError, match="another event loop"):
                other.run(session.memories.list())
            one.run(pool.close())


@pytest.mark.virtual_clock
async def test_a_pool_that_is_never_closed_says_so(server: LocalServer) -> None:
    # Catches: a timer, or an entry of a table, that keeps a forgotten pool alive.
    pool = SessionPool(base_url=server.url)
    await pool.session(server.api_key).memories.list()
    pools = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="unclosed <omi_async.SessionPool"):
        pools.clear()
