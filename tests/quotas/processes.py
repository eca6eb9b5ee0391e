"""A store in memory, and processes that share it: each has a pacer of its own, and nothing else in common."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import attrs

from omi_async._api.messages import Kind
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacer import Pacer
from omi_async._quota.permit import CallGroup
from omi_async._quota.policy import QuotaPolicy
from omi_async._quota.sharing import Held
from tests.quotas.model import Call, Server

__all__ = ["Import", "MemoryStore", "Process"]

STORE_AHEAD = 41.7
"""Seconds by which the store's clock is ahead of everybody's: nothing may go by the machines'."""


@attrs.define
class Outage:
    """What happens to a command instead of what it is for.

    Attributes:
        done: it is carried out all the same, and its answer lost.
        hangs: no answer comes; else it is refused at once.
    """

    done: bool = False
    hangs: bool = False


class MemoryStore:
    """What a store does, with a way to it that takes time, and outages."""

    def __init__(self, latency: Callable[[], float] = lambda: 0.0005) -> None:
        self.texts: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.outage: Outage | None = None
        self.ahead = STORE_AHEAD
        self.commands = 0
        self.writes = 0
        self._latency = latency

    def quotas_of(self, account: str, server: str) -> MemoryRecord:
        return MemoryRecord(self, (account, server))

    async def carry_out(self, command: Callable[[], Held]) -> Held:
        self.commands += 1
        await asyncio.sleep(self._latency())
        outage = self.outage
        if outage is None:
            held = command()
            await asyncio.sleep(self._latency())
            return held
        if outage.done:
            command()
        if outage.hangs:
            await asyncio.sleep(math.inf)
        raise ConnectionRefusedError


@attrs.define
class MemoryRecord:
    store: MemoryStore
    name: tuple[str, str]

    async def read(self) -> Held:
        return await self.store.carry_out(self._held)

    async def write(self, text: bytes, version: str, *, over: str) -> Held:
        def command() -> Held:
            if self._held().version == over:
                self.store.writes += 1
                self.store.texts[self.name] = version, text
            return self._held()

        return await self.store.carry_out(command)

    def _held(self) -> Held:
        version, text = self.store.texts.get(self.name, ("", b""))
        return Held(version, text, asyncio.get_running_loop().time() + self.store.ahead)


class Import:
    """An import's calls, as the pacer sees them."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.out = 0

    @property
    def free(self) -> bool:
        return self.out < self.most

    def begin(self) -> None:
        self.out += 1

    def end(self) -> None:
        self.out -= 1
        assert self.out >= 0

    def on_quota_wait(self, kind: Kind, wait: float, state: Any) -> None:
        assert 0 < wait < math.inf


class Process:
    """A process with one key: it calls a server as the model has it, and notes what becomes of that."""

    def __init__(
        self,
        store: MemoryStore | None,
        server: Server,
        *policies: QuotaPolicy,
        connections: int = 4,
        trip: Callable[[], float] = lambda: 0.025,
        **options: Any,
    ) -> None:
        self.pacer = Pacer(Ledger(policies, **options), connections)
        if store is not None:
            self.pacer.share(store.quotas_of("a", "http://x"))
        self.calls: list[Call] = []
        self._server = server
        self._trip = trip

    async def call(self, kind: Kind = "batch", group: CallGroup | None = None, **options: Any) -> bool:
        """Make a call; return whether it went through."""
        permit = await self.pacer.acquire(kind, group=group, **options)
        sent = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(self._trip())
            response = self._server.take(kind, asyncio.get_running_loop().time())
            blamed = self._server.blamed if response.status == 429 else None
            found = None if blamed is None else (blamed, blamed.opened_at, blamed.foreign)
            self.calls.append(Call(kind, sent, response.status, found))
            await asyncio.sleep(self._trip())
            permit.answered(response)
        except asyncio.CancelledError as error:
            permit.failed(error)
            raise
        return response.status != 429

    async def until_through(self, kind: Kind = "batch", group: CallGroup | None = None) -> None:
        """Make a call, again while it is refused."""
        while not await self.call(kind, group):
            pass

    async def close(self) -> None:
        """End as a Session does."""
        self.pacer.close(lambda: AssertionError("closed"))  # type: ignore[arg-type,return-value]  # not raised
        await self.pacer.save()
