"""The clients that are compared: each sends the same facts, 25 a call, to the same canned server.

All are given the facts as dicts, in a list, and end with the number of memories that the answers name. What
is done between is what one writes by hand: cut into batches, encode, send, check the status, decode.
`import_facts` does, on top of that, what it is for: it checks every fact, folds duplicates, matches the
answers by text and accounts for each fact. One row feeds it with `Fact` objects that a generator makes of
the dicts, as a program does that reads facts from elsewhere; making them is measured too. The bare loop
does less than the job: its bodies are ready beforehand and its answers are only read. The clients of
requests and omi-cli make one call at a time, as they are meant to be used.
"""
# ruff: noqa: PLC0415 - a process loads only the client that it measures

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple, TypeVar

from benchmarks.facts import BATCH, Fact, batches_of, make_facts
from benchmarks.running import Meter, Sample

__all__ = ["CONTESTANTS", "Contestant", "Target", "measure"]

T = TypeVar("T")

PATH = "/v1/dev/user/memories/batch"
KEY = "omi_dev_0123456789abcdef0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {KEY}"}
JSON_HEADERS = {**HEADERS, "Content-Type": "application/json"}
WARM_UP = 20 * BATCH


class Target(NamedTuple):
    """Where to send, and with how many calls on the wire at once."""

    url: str
    concurrency: int


Run = Callable[[], Awaitable[int]]
"""The measured part: sends, and returns the number of memories that the server named."""

Prepare = Callable[[list[Fact]], Run]
"""The part before it, which is not measured."""


class Contestant(NamedTuple):
    """A client.

    Attributes:
        title: its row in a table.
        open: sets it up and gives it back.
        needs: modules that must be installed.
        parallel: whether it makes several calls at once.
        orjson: whether it may see orjson.
        uvloop: whether it runs on uvloop.
    """

    title: str
    open: Callable[[Target], AbstractAsyncContextManager[Prepare]]
    needs: tuple[str, ...]
    parallel: bool = True
    orjson: bool = True
    uvloop: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return all(find_spec(module) is not None for module in self.needs)


async def in_parallel(call: Callable[[T], Awaitable[int]], units: Iterable[T], concurrency: int) -> int:
    """Make a call for each unit, a bounded number at once, and add up what they return."""
    waiting = iter(units)

    async def work() -> int:
        stored = 0
        for unit in waiting:
            stored += await call(unit)
        return stored

    return sum(await asyncio.gather(*(work() for _ in range(concurrency))))


@asynccontextmanager
async def _import_facts(target: Target) -> AsyncIterator[Prepare]:
    from omi_async import Session

    async with Session(KEY, base_url=target.url, connections=target.concurrency) as session:

        async def send(facts: list[Fact]) -> int:
            report = await session.memories.import_facts(facts, concurrency=target.concurrency)
            return report.created

        yield lambda facts: partial(send, facts)


@asynccontextmanager
async def _import_fact_objects(target: Target) -> AsyncIterator[Prepare]:
    import omi_async

    async with omi_async.Session(KEY, base_url=target.url, connections=target.concurrency) as session:

        async def send(facts: list[Fact]) -> int:
            made = (omi_async.Fact(it["content"], category=it["category"], tags=it["tags"]) for it in facts)
            report = await session.memories.import_facts(made, concurrency=target.concurrency)
            return report.created

        yield lambda facts: partial(send, facts)


@asynccontextmanager
async def _aiohttp_bare(target: Target) -> AsyncIterator[Prepare]:
    import aiohttp

    async with aiohttp.ClientSession(target.url, headers=JSON_HEADERS) as client:

        async def call(body: bytes) -> int:
            async with client.post(PATH, data=body) as response:
                response.raise_for_status()
                await response.read()
            return BATCH

        def prepare(facts: list[Fact]) -> Run:
            bodies = [json.dumps({"memories": batch}).encode() for batch in batches_of(facts)]
            return partial(in_parallel, call, bodies, target.concurrency)

        yield prepare


@asynccontextmanager
async def _aiohttp_by_hand(target: Target) -> AsyncIterator[Prepare]:
    import aiohttp

    async with aiohttp.ClientSession(target.url, headers=HEADERS) as client:

        async def call(batch: list[Fact]) -> int:
            async with client.post(PATH, json={"memories": batch}) as response:
                response.raise_for_status()
                answer = await response.json()
            return len(answer["memories"])

        yield lambda facts: partial(in_parallel, call, batches_of(facts), target.concurrency)


@asynccontextmanager
async def _aiohttp_orjson(target: Target) -> AsyncIterator[Prepare]:
    import aiohttp
    import orjson

    async with aiohttp.ClientSession(target.url, headers=JSON_HEADERS) as client:

        async def call(batch: list[Fact]) -> int:
            async with client.post(PATH, data=orjson.dumps({"memories": batch})) as response:
                response.raise_for_status()
                answer = orjson.loads(await response.read())
            return len(answer["memories"])

        yield lambda facts: partial(in_parallel, call, batches_of(facts), target.concurrency)


@asynccontextmanager
async def _httpx(target: Target) -> AsyncIterator[Prepare]:
    import httpx

    async with httpx.AsyncClient(base_url=target.url, headers=HEADERS) as client:

        async def call(batch: list[Fact]) -> int:
            response = await client.post(PATH, json={"memories": batch})
            response.raise_for_status()
            return len(response.json()["memories"])

        yield lambda facts: partial(in_parallel, call, batches_of(facts), target.concurrency)


@asynccontextmanager
async def _requests_session(target: Target) -> AsyncIterator[Prepare]:
    import requests

    with requests.Session() as client:
        client.headers.update(HEADERS)

        def call(batch: list[Fact]) -> int:
            response = client.post(target.url + PATH, json={"memories": batch})
            response.raise_for_status()
            return len(response.json()["memories"])

        yield lambda facts: partial(_one_by_one, call, facts)


@asynccontextmanager
async def _requests_post(target: Target) -> AsyncIterator[Prepare]:
    import requests

    def call(batch: list[Fact]) -> int:
        response = requests.post(target.url + PATH, headers=HEADERS, json={"memories": batch})
        response.raise_for_status()
        return len(response.json()["memories"])

    yield lambda facts: partial(_one_by_one, call, facts)


@asynccontextmanager
async def _omi_cli(target: Target) -> AsyncIterator[Prepare]:
    client_module = importlib.import_module("omi_cli.client")
    config_module = importlib.import_module("omi_cli.config")
    profile = config_module.Profile("benchmark", "api_key", KEY, api_base=target.url)
    with client_module.OmiClient(profile) as client:

        def call(batch: list[Fact]) -> int:
            return len(client.post(PATH, json_body={"memories": batch})["memories"])

        yield lambda facts: partial(_one_by_one, call, facts)


async def _one_by_one(call: Callable[[list[Fact]], int], facts: list[Fact]) -> int:
    return sum(map(call, batches_of(facts)))


CONTESTANTS = {
    "import_facts": Contestant("**omi_async, `import_facts`**", _import_facts, ("omi_async", "orjson")),
    "import_facts_objects": Contestant(
        "**omi_async, `import_facts`**, of `Fact` objects that a generator makes",
        _import_fact_objects,
        ("omi_async", "orjson"),
    ),
    "import_facts_stdlib": Contestant(
        "**omi_async, `import_facts`**, without orjson", _import_facts, ("omi_async",), orjson=False
    ),
    "import_facts_uvloop": Contestant(
        "**omi_async, `import_facts`**, on uvloop",
        _import_facts,
        ("omi_async", "orjson", "uvloop"),
        uvloop=True,
    ),
    "aiohttp_bare": Contestant("aiohttp, ready bytes, answer only read", _aiohttp_bare, ("aiohttp",)),
    "aiohttp": Contestant("aiohttp by hand, dicts", _aiohttp_by_hand, ("aiohttp",)),
    "aiohttp_orjson": Contestant("aiohttp by hand, dicts, orjson", _aiohttp_orjson, ("aiohttp", "orjson")),
    "aiohttp_uvloop": Contestant(
        "aiohttp by hand, dicts, on uvloop", _aiohttp_by_hand, ("aiohttp", "uvloop"), uvloop=True
    ),
    "httpx": Contestant("httpx.AsyncClient by hand", _httpx, ("httpx",)),
    "requests_session": Contestant("requests.Session", _requests_session, ("requests",), parallel=False),
    "requests_post": Contestant(
        "requests.post per call (service's documentation)", _requests_post, ("requests",), parallel=False
    ),
    "omi_cli": Contestant("omi-cli's client", _omi_cli, ("omi_cli",), parallel=False),
}


def measure(key: str, url: str, facts: int, concurrency: int, *, uvloop: bool = False) -> Sample:
    """Send facts with one contestant; called in a fresh process."""
    contestant = CONTESTANTS[key]
    if not contestant.orjson:
        sys.modules["orjson"] = None  # type: ignore[assignment]  # what makes an import fail
    faster = uvloop or contestant.uvloop
    factory = importlib.import_module("uvloop").new_event_loop if faster else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_measure(contestant, Target(url, concurrency), facts))


async def _measure(contestant: Contestant, target: Target, facts: int) -> Sample:
    async with contestant.open(target) as prepare:
        await prepare(list(make_facts(WARM_UP)))()
        run = prepare(list(make_facts(facts, first_batch=WARM_UP // BATCH)))
        with Meter() as meter:
            stored = await run()
    if stored != facts:
        raise RuntimeError(f"{contestant.title}: {stored} of {facts} facts are stored")
    return {
        "facts_per_second": facts / meter.wall,
        "batches_per_second": facts / BATCH / meter.wall,
        "cpu_per_batch": meter.cpu / (facts / BATCH),
    }
