"""Several accounts on one server: memories, quotas and races of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from omi_async.local import LocalServer, Quota
from tests.local.local_client import Client, client_of, names


async def test_each_account_has_memories_of_its_own() -> None:
    async with LocalServer() as server:
        other = server.add_account()
        async with client_of(server) as first_http, client_of(server, other) as other_http:
            first, second = Client(first_http), Client(other_http)
            ids = {(await first.create("a")).json["id"], (await second.create("a")).json["id"]}
            assert len(ids) == 1  # an id is made of the text, whoever said it
            await second.batch("b", "c")
            assert (await first.texts(), await second.texts()) == (["a"], ["c", "b", "a"])
            assert (await first.delete((await second.create("d")).json["id"])).status == 404
        server.assert_each_stored_once(["a"])
        server.assert_each_stored_once(["a", "b", "c", "d"], account=other)
        with pytest.raises(AssertionError, match="1 missing: 'b'"):
            server.assert_each_stored_once(["a", "b"])


async def test_an_account_is_made_before_or_after_the_start_and_may_have_several_keys() -> None:
    server = LocalServer()
    early = server.add_account("omi_dev_early")
    async with server:
        late = server.add_account(scopes=["memories:read"])
        second = server.add_key(account=late)
        server.add("of the late one", account=second)
        assert [memory["content"] for memory in server.memories(late)] == ["of the late one"]
        assert (server.memories(early), server.memories(), early) == ([], [], "omi_dev_early")
        async with client_of(server, late) as http:
            assert await Client(http).texts() == ["of the late one"]
            assert (await Client(http).create("a")).status == 403
    with pytest.raises(KeyError):
        server.add_key(account="omi_dev_unknown")


async def test_quotas_of_keys_and_of_users_are_counted_for_each_account() -> None:
    quotas = [Quota("key", 2, 60, ("list",)), Quota("user", 3, 60, ("list",), per="user")]
    async with LocalServer(quotas=quotas) as server:
        keys = [server.api_key, server.add_key(), server.add_account()]
        statuses = []
        for key in keys:
            async with client_of(server, key) as http:
                statuses.append([(await Client(http).listed()).status for _ in range(3)])
    assert statuses == [[200, 200, 429], [200, 429, 429], [200, 200, 429]]


@pytest.mark.virtual_clock
async def test_accounts_do_not_race_with_each_other() -> None:
    async with LocalServer(contended=0.01) as server:
        keys = [server.api_key, *(server.add_account() for _ in range(7))]

        async def write(key: str) -> int:
            async with client_of(server, key) as http:
                return (await Client(http).batch(*map(str, range(25)))).status

        assert await asyncio.gather(*map(write, keys)) == [200] * 8


async def test_accounts_of_a_file_are_kept_beside_it(tmp_path: Path) -> None:
    for _ in range(2):
        async with LocalServer(tmp_path / "a.db") as server:
            other = server.add_account()
            server.add("mine")
            server.add("of the other", account=other)
    assert [memory["content"] for memory in server_memories(tmp_path / "a.db")] == ["mine"] * 2
    assert [memory["content"] for memory in server_memories(tmp_path / "a.db.2")] == ["of the other"] * 2
    assert names(tmp_path) == ["a.db", "a.db.2"]


def server_memories(path: Path) -> list[dict[str, object]]:
    with LocalServer.in_thread(path) as server:
        return server.memories()


def test_a_server_in_a_thread_has_accounts_too() -> None:
    with LocalServer.in_thread() as server:
        other = server.add_account()
        server.add("a", account=other)
        assert (len(server.memories()), len(server.memories(other))) == (0, 1)
        server.assert_each_stored_once(["a"], account=other)
