"""Imports against quotas, on a virtual clock: hours pass in seconds, over real HTTP.

The stand-in server counts calls in fixed windows as the service does, and each call takes some time to reach
it and to come back. Only `import_facts` and the naive retry begin without knowing the quota; the two pacers
are told what it is.
"""
# ruff: noqa: PLC0415 - a process loads only the client that it simulates

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple, TypedDict, TypeVar

import aiohttp

from benchmarks.contestants import KEY, in_parallel
from benchmarks.facts import BATCH, Fact, batches_of, make_facts
from omi_async import Session
from omi_async.local import DOCUMENTED_QUOTAS, Fault, LocalServer, Quota
from omi_async.local.faults import FOREVER, Sleep, Work
from omi_async.local.messages import Refusal, Reply
from omi_async.local.quotas import Quotas
from tests.clock import VirtualClockLoop, elapsed

__all__ = ["CONCURRENCY", "IDEAL", "POLICIES", "STRATEGIES", "TRIP", "Outcome", "Policy", "ideal", "simulate"]

T = TypeVar("T")

CONCURRENCY = 4
"""Calls on the wire at once, of each strategy; the default of `import_facts`."""

TRIP = 0.05
"""Seconds that a call takes to the server, and its answer back."""

JITTER = 0.005
"""Seconds by which a trip is longer or shorter at most, evenly distributed."""

CLAMP = 60.0
"""Seconds that naive clients wait at most, whatever `Retry-After` says."""

CREEP = 1e-8
"""Seconds by which the clock goes on whenever it is read."""

PATH = "/v1/dev/user/memories/batch"

WALL = 1_800_000_000.37
"""What the clock on the wall shows when the loop's shows 0; epoch seconds."""

SERVER_AHEAD = 41.3
"""Seconds by which the server's clock is ahead of the client's."""


class Policy(NamedTuple):
    """What a server allows, and how much is sent to it.

    Attributes:
        title: its rows in the table.
        calls: batches to be sent.
        few: the same for a quick run; in several windows, too.
    """

    title: str
    quotas: tuple[Quota, ...]
    calls: int
    few: int


POLICIES = {
    "hour15": Policy("15 an hour", (Quota("hour", 15, 3600, ("batch",)),), 45, 31),
    "hour120": Policy("120 an hour", (Quota("hour", 120, 3600, ("batch",)),), 360, 130),
    "documented": Policy("100 a minute and 10,000 a day, announced", DOCUMENTED_QUOTAS, 450, 250),
    "second5": Policy("5 a second", (Quota("second", 5, 1, ("batch",)),), 300, 300),
    "day100": Policy("100 a day", (Quota("day", 100, 86_400, ("batch",)),), 150, 110),
}


class Outcome(TypedDict):
    """How an import went.

    Attributes:
        seconds: from its begin to its end.
        calls: as the server counted them: seconds since the begin, and whether it was refused.
    """

    seconds: float
    calls: list[tuple[float, bool]]


def ideal(quotas: Iterable[Quota], calls: int) -> Outcome:
    """Work out when so many calls can have been made at the earliest, if they took no time."""
    windows = dict.fromkeys(quotas, (0.0, 0))  # when it was opened, and the calls in it
    made: list[tuple[float, bool]] = []
    now = 0.0
    while True:
        windows = {
            quota: (now, 0) if now >= opened + quota.window else (opened, used)
            for quota, (opened, used) in windows.items()
        }
        burst = min(calls - len(made), *(quota.limit - used for quota, (_, used) in windows.items()))
        made += [(now, False)] * burst
        if len(made) == calls:
            return {"seconds": now, "calls": made}
        windows = {quota: (opened, used + burst) for quota, (opened, used) in windows.items()}
        now = max(opened + q.window for q, (opened, used) in windows.items() if used == q.limit)


# The server


class _Trip(Fault):
    """A call takes its time there and back."""

    times = FOREVER

    def __init__(self, jitter: float) -> None:
        self._jitter = jitter
        self._chance = random.Random(15)

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        await sleep(self._seconds())
        reply = await work()
        await sleep(self._seconds())
        return reply

    def _seconds(self) -> float:
        return TRIP + self._chance.uniform(-self._jitter, self._jitter)


class _Watched(Quotas):
    """Notes when each call was counted, and whether it was refused."""

    def __init__(self, quotas: Iterable[Quota], *, clock: Callable[[], float]) -> None:
        super().__init__(quotas, clock=clock)
        self.calls: list[tuple[float, bool]] = []

    def spend(self, kind: str, key_id: str, account: int = 0) -> tuple[tuple[str, str], ...]:
        moment = asyncio.get_running_loop().time()
        try:
            headers = super().spend(kind, key_id, account)
        except Refusal:
            self.calls.append((moment, True))
            raise
        self.calls.append((moment, False))
        return headers


# The strategies


class Given(NamedTuple):
    """What a strategy is given: where to send how many facts, and, if it wants to know, the quotas."""

    url: str
    facts: list[Fact]
    quotas: tuple[Quota, ...]


async def _import_facts(given: Given) -> None:
    async with Session(KEY, base_url=given.url) as session:
        report = await session.memories.import_facts(given.facts, concurrency=CONCURRENCY)
    if report.created != len(given.facts):
        raise RuntimeError(str(report))


async def _send(given: Given, wait: Callable[[], Awaitable[None]], most: float) -> None:
    """Send all, each call after a `wait`; a refused one again after Retry-After, `most` seconds at most."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(given.url, headers=headers, timeout=aiohttp.ClientTimeout()) as client:

        async def call(batch: list[Fact]) -> int:
            while True:
                await wait()
                async with client.post(PATH, json={"memories": batch}) as response:
                    await response.read()
                if response.status != 429:
                    response.raise_for_status()
                    return 1
                await asyncio.sleep(min(float(response.headers["Retry-After"]), most))

        await in_parallel(call, batches_of(given.facts), CONCURRENCY)


async def _naive(given: Given) -> None:
    await _send(given, lambda: asyncio.sleep(0), CLAMP)


async def _smooth(given: Given) -> None:
    """Pace with a leaky bucket that holds one call: none comes sooner than window / limit after another."""
    step = max(quota.window / quota.limit for quota in given.quotas)
    loop = asyncio.get_running_loop()
    free = loop.time()

    async def wait() -> None:
        nonlocal free
        mine = max(free, loop.time())
        free = mine + step
        await asyncio.sleep(mine - loop.time())

    await _send(given, wait, math.inf)


async def _aiolimiter(given: Given) -> None:
    from aiolimiter import AsyncLimiter

    limiters = [AsyncLimiter(quota.limit, quota.window) for quota in given.quotas]

    async def wait() -> None:
        async with AsyncExitStack() as stack:
            for limiter in limiters:
                await stack.enter_async_context(limiter)

    await _send(given, wait, math.inf)


class Strategy(NamedTuple):
    """A way to live with quotas: its row in a table, and what must be installed."""

    title: str
    run: Callable[[Given], Awaitable[None]]
    needs: str = "aiohttp"


IDEAL = "ideal"

STRATEGIES = {
    "import_facts": Strategy("**`import_facts`**", _import_facts),
    "naive": Strategy("retry after 60 s at most", _naive),
    "smooth": Strategy("evenly paced", _smooth),
    "aiolimiter": Strategy("aiolimiter", _aiolimiter, "aiolimiter"),
}


# The simulation


class _Loop(VirtualClockLoop):
    """Its clock creeps when it is read, as a real one does: a limiter may ask for less than a tick.

    The wall's clock goes with it: neither how fast this machine is nor the date may matter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wall_at_zero = WALL

    def time(self) -> float:
        self.now += CREEP
        return self.now


def simulate(policy: str, strategy: str, calls: int, jitter: float = JITTER) -> Outcome:
    """Let a strategy send so many batches, on a fresh loop with a virtual clock."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(_simulate(POLICIES[policy].quotas, STRATEGIES[strategy], calls, jitter))


async def _simulate(quotas: Sequence[Quota], strategy: Strategy, calls: int, jitter: float) -> Outcome:
    def clock() -> float:
        return time.time() + SERVER_AHEAD

    facts = list(make_facts(calls * BATCH))
    server = LocalServer(api_key=KEY, clock=clock)
    server.faults.add(_Trip(jitter))
    server.quotas = watched = _Watched(quotas, clock=clock)
    async with server:
        begun = asyncio.get_running_loop().time()
        await strategy.run(Given(server.url, facts, tuple(quotas)))
        seconds = elapsed(begun)
    if sum(not refused for _, refused in watched.calls) != calls:
        raise RuntimeError(f"{strategy.title} made other calls than it had to")
    return {"seconds": seconds, "calls": [(moment - begun, refused) for moment, refused in watched.calls]}
