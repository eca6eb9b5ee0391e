"""Who is let in, and what a key may do."""

import asyncio
from typing import Any

import pytest

from omi_async.local import LocalServer
from tests.local.local_client import BATCH, MEMORIES, SEARCH, serving

CALLS = [
    ("GET", MEMORIES, "read"),
    ("GET", f"{SEARCH}?query=a", "read"),
    ("POST", MEMORIES, "write"),
    ("POST", BATCH, "write"),
    ("PATCH", f"{MEMORIES}/1", "write"),
    ("DELETE", f"{MEMORIES}/1", "write"),
]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "Missing or invalid Authorization header. Must be 'Bearer API_KEY'"),
        ("Basic abc", "Missing or invalid Authorization header. Must be 'Bearer API_KEY'"),
        ("bearer {key}", "Missing or invalid Authorization header. Must be 'Bearer API_KEY'"),
        ("{key}", "Missing or invalid Authorization header. Must be 'Bearer API_KEY'"),
        ("Bearer {key}x", "Invalid API Key"),
        ("Bearer  {key}", "Invalid API Key"),
        ("Bearer omi_dev_0", "Invalid API Key"),
    ],
)
@pytest.mark.parametrize(("method", "path", "_scope"), [*CALLS, ("GET", "/v1/dev/key", "")])
async def test_strangers_are_refused_before_anything_else(
    method: Any, path: Any, _scope: Any, header: Any, said: Any
) -> None:
    async with serving() as (server, client):
        headers = {"Authorization": header.format(key=server.api_key)}
        answer = await client.call(method, path, headers=headers)
    assert (answer.status, answer.detail) == (401, said)


async def test_a_call_without_a_header_is_refused() -> None:
    async with serving() as (_, client):
        client.http.headers.clear()
        answer = await client.listed()
    assert answer.status == 401
    assert "Bearer API_KEY" in answer.detail


async def test_a_key_of_the_mcp_family_gets_a_sentence_of_its_own() -> None:
    async with serving() as (_, client):
        answer = await client.call("GET", MEMORIES, headers={"Authorization": "Bearer omi_mcp_0"})
    assert answer.status == 401
    assert "MCP" in answer.detail
    assert "Developer API key" in answer.detail


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
async def test_each_call_needs_its_scope(method: Any, path: Any, scope: Any) -> None:
    other = {"read": "write", "write": "read"}[scope]
    async with serving(scopes=[f"memories:{other}"]) as (_, client):
        answer = await client.call(method, path)
    said = f"Insufficient permissions. Required scope: memories:{scope}"
    assert (answer.status, answer.detail) == (403, said)


async def test_a_key_without_a_grant_gets_an_object_after_the_bodys_own_checks() -> None:
    async with serving() as (server, client):
        server.add_key(server.api_key, granted=False)
        read, write = await client.listed(), await client.create("a")
        search = await client.call("GET", SEARCH, params={"query": "a"})
        patch, delete = await client.patch("1", tags=[]), await client.delete("1")
        invalid, blank, blank_in_batch = (
            await client.create(""),
            await client.create(" "),
            await client.batch(" "),
        )
    assert {answer.status for answer in (read, write, search, patch, delete, blank_in_batch)} == {403}
    assert (read.detail["enabled"], read.detail["consumer"]) == (False, "developer_api")
    assert write.detail["reason"] == "missing_app_key_scope_grant"
    assert write.detail["required_scope"] == "memories:write"
    assert [invalid.status, blank.status] == [422, 422]


async def test_a_key_can_ask_about_itself() -> None:
    key = "omi_dev_0123456789abcdef0123456789abcdef"
    async with serving(api_key=key, scopes=["memories:read"]) as (_, client):
        await client.listed()
        answer = await client.call("GET", "/v1/dev/key")
    about = answer.json
    assert sorted(about) == ["created_at", "id", "key_prefix", "last_used_at", "name", "scopes"]
    assert (about["key_prefix"], about["scopes"]) == ("omi_dev_0123...cdef", ["memories:read"])
    assert about["created_at"] <= about["last_used_at"]
    assert key not in answer.body.decode()


async def test_keys_can_be_added_and_revoked() -> None:
    async with serving() as (server, client):
        other = server.add_key("omi_dev_other")
        assert (
            await client.call("GET", MEMORIES, headers={"Authorization": f"Bearer {other}"})
        ).status == 200
        server.revoke_key(server.api_key)
        assert (await client.listed()).detail == "Invalid API Key"
        with pytest.raises(KeyError) as error:
            server.revoke_key(server.api_key)
        assert server.api_key not in repr(error.value)


@pytest.mark.parametrize("key", ["omi_mcp_0123", "", "with space", "new\nline", "snowman\u2603"])
def test_a_key_that_no_client_could_use_is_refused_and_not_named(key: Any) -> None:
    with pytest.raises(ValueError, match="key") as error:
        LocalServer(api_key=key)
    assert not key or key not in str(error.value)


def test_unknown_scopes_are_refused() -> None:
    with pytest.raises(ValueError, match="no such scope: goals:read"):
        LocalServer(scopes=["goals:read"])


def test_a_made_key_has_the_services_form_and_stands_in_no_repr() -> None:
    server = LocalServer()
    assert len(server.api_key) == len("omi_dev_") + 32
    assert server.api_key.startswith("omi_dev_")
    assert server.api_key != LocalServer().api_key
    parts = [server, server.faults, server.quotas, server._keys, *server._keys._by_secret.values()]
    assert all(server.api_key not in repr(part) for part in parts)


async def test_a_caller_without_a_key_is_refused_before_its_body_is_waited_for() -> None:
    async with serving() as (server, _):
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST {MEMORIES}/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n{{".encode()
        )
        async with asyncio.timeout(10):
            assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        writer.close()
        await writer.wait_closed()
