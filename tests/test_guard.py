"""A guard of a request: a last look before the bytes of a call leave."""

from __future__ import annotations

import asyncio

import aiohttp
import attrs
import pytest

from omi_async import ConnectError, Fact, Session
from omi_async._api.endpoints import create_memory
from omi_async.local import Fault, LocalServer


@pytest.mark.parametrize("body", [b'{"content": "a"}', b"x" * 200_000])
async def test_what_its_guard_holds_back_never_leaves(
    server: LocalServer, session: Session, body: bytes
) -> None:
    request = attrs.evolve(create_memory(Fact("a")), body=body, guard=lambda: False)
    with pytest.raises(ConnectError, match="held back"):
        await session.send(request, permit=await session.pacing.acquire("create"))
    assert not server.requests
    # The connection is not used again, and the Session goes on with another.
    assert (await session.memories.create("b")).content == "b"


@pytest.mark.virtual_clock
async def test_a_guard_is_asked_after_the_wait_for_a_connection(server: LocalServer) -> None:
    asked: list[int] = []

    def guard() -> bool:
        asked.append(len(server.requests))
        return True

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client,
        Session(server.api_key, base_url=server.url, client=client) as session,
        Session(server.api_key, base_url=server.url, client=client) as other,
    ):
        server.faults.add(Fault.slow(0.2), on="list")
        listing = asyncio.create_task(other.memories.list())
        await asyncio.sleep(0.05)
        permit = await session.pacing.acquire("create")
        await session.send(attrs.evolve(create_memory(Fact("a")), guard=guard), permit=permit)
        await listing
    assert asked == [1]  # when the list had been answered
