"""A plain aiohttp client for the tests of the stand-in server: no part of the library under test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import yarl

from omi_async.local import LocalServer

MEMORIES = "/v1/dev/user/memories"
BATCH = f"{MEMORIES}/batch"
SEARCH = f"{MEMORIES}/vector/search"

NOON = 1_795_348_800.0
"""2026-11-22T12:00:00Z."""


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> Any:
        return self.json["detail"]


@attrs.define
class Client:
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str | yarl.URL, **options: Any) -> Answer:
        async with self.http.request(method, path, allow_redirects=False, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def create(self, content: str, **fields: Any) -> Answer:
        return await self.call("POST", MEMORIES, json={"content": content, **fields})

    async def batch(self, *contents: str, **fields: Any) -> Answer:
        items = [{"content": content, **fields} for content in contents]
        return await self.call("POST", BATCH, json={"memories": items})

    async def listed(self, **query: Any) -> Answer:
        return await self.call("GET", MEMORIES, params=query)

    async def patch(self, memory_id: str, **fields: Any) -> Answer:
        return await self.call("PATCH", f"{MEMORIES}/{memory_id}", json=fields)

    async def delete(self, memory_id: str) -> Answer:
        return await self.call("DELETE", f"{MEMORIES}/{memory_id}")

    async def texts(self, **query: Any) -> list[str]:
        answer = await self.listed(**query)
        assert answer.status == 200, answer
        return [memory["content"] for memory in answer.json]


@attrs.define
class Clock:
    """A clock that stands still until it is told to go on. Counts epoch seconds."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


def client_of(server: Any, api_key: str | None = None, **options: Any) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {api_key or server.api_key}"}
    return aiohttp.ClientSession(server.url, headers=headers, **options)


@contextlib.asynccontextmanager
async def serving(*args: Any, **options: Any) -> AsyncIterator[tuple[LocalServer, Client]]:
    async with LocalServer(*args, **options) as server, client_of(server) as http:
        yield server, Client(http)


def stored(server: Any) -> list[str]:
    return [memory["content"] for memory in server.memories()]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
