"""An import's calls: at most so many at once, held back while the server asks for it, repeated where safe."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

from omi_async._failures import in_short
from omi_async._requests import Request, Sender
from omi_async._retry import wait_before, worth_retrying
from omi_async.config import Retry
from omi_async.errors import (
    InvalidRequestError,
    OmiError,
    RateLimitError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    TransportError,
)
from omi_async.importing.gate import Breaker, Gate
from omi_async.importing.items import Item
from omi_async.importing.outcomes import ImportReport
from omi_async.importing.stopping import StopSignal

__all__ = ["Calls"]

T = TypeVar("T")

log: Final = logging.getLogger("omi_async")

HEAD_START: Final = 1.0
"""Seconds that the first call of an import has to come back alone."""

Kind = Literal["batch", "create", "list"]
"""Each has a quota window of its own (backend)."""


class Calls:
    """Makes the calls of one import.

    Args:
        sender: the session.
        concurrency: calls on the wire at the same time, at most.
        retry: tries of a call that was surely not applied; a 429 uses up none.
        max_wait: seconds that may be spent waiting for quota windows, in all; None for any.
        signal: stops the waiting; is set when `max_wait` would be passed.
        report: where calls are counted, and where the time to come again is noted.

    Attributes:
        writes: calls that the server carried out and answered.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        concurrency: int,
        retry: Retry,
        max_wait: float | None,
        signal: StopSignal,
        report: ImportReport,
    ) -> None:
        self._sender = sender
        # One call goes first: a wrong key, a dead server, paused writes cost that one call.
        self._slots = asyncio.Semaphore(1)
        self._slots_closed = concurrency - 1
        self._retry = retry
        self._max_wait = max_wait
        self._parked = 0.0
        self._parked_until = 0.0
        self._signal = signal
        self._report = report
        self._gates: defaultdict[Kind, Gate] = defaultdict(lambda: Gate(retry, random.random))
        self._breaker = Breaker()
        self.writes = 0

    @property
    def server_is_down(self) -> bool:
        """Whether so many calls in a row failed that it is no use to go on."""
        return self._breaker.broken is not None

    async def make(self, kind: Kind, request: Request[T], items: Sequence[Item] = ()) -> T:
        """Make a call, again while it was surely not applied and that may pass.

        While the call is on the wire its `items` are in doubt; they stay so when it may have been applied.

        Raises:
            OmiError: what the last try raised; never a `RateLimitError`.
            Halt: the import is stopped before a try; the items are in no doubt.
        """
        failures = 0
        repeated = False
        while True:
            try:
                return await self._attempt(kind, request, items, repeated=repeated)
            except RateLimitError as error:
                gate = self._gates[kind]
                gate.shut(error)
                self._park(gate.wait)
                log.warning("%s; the next %s call in %.1f s", in_short(error), kind, gate.wait)
            except OmiError as error:
                failures += 1
                final = failures >= self._retry.attempts or self.server_is_down
                if final or not worth_retrying(error, idempotent=request.idempotent):
                    raise
                wait = wait_before(self._retry, failures - 1, error, random.random())  # noqa: S311  # jitter
                log.warning("%s; again in %.2f s", in_short(error), wait)
                await self._signal.wait_for(asyncio.sleep(wait))
            repeated = True

    def _park(self, wait: float) -> None:
        """Count the time until a gate opens, once for all who wait; stop where that is too long."""
        now = asyncio.get_running_loop().time()
        self._parked += max(0.0, now + wait - max(now, self._parked_until))
        self._parked_until = max(self._parked_until, now + wait)
        if self._max_wait is not None and self._parked > self._max_wait:
            self._report.resume_at = datetime.now(UTC) + timedelta(seconds=wait)
            self._signal.stop()

    async def _attempt(self, kind: Kind, request: Request[T], items: Sequence[Item], *, repeated: bool) -> T:
        probe = await self._signal.wait_for(self._passage(kind))
        if self._slots_closed:
            asyncio.get_running_loop().call_later(HEAD_START, self._open_all_slots)
        before = [item.doubt for item in items]
        _doubt(items, _ON_THE_WIRE)
        self._report.requests += 1
        self._report.retries += repeated
        try:
            result = await self._sender.send(request)
        except OmiError as error:
            if error.maybe_applied:
                _doubt(items, error)
            else:
                for item, doubt in zip(items, before, strict=True):
                    item.doubt = doubt
            if not isinstance(error, ServerError | TransportError | ResponseFormatError):
                self._breaker.succeeded()
            elif kind != "create" or probe:  # one fact that makes the server fail says little of the server
                self._breaker.failed(error, probe=probe)
            if isinstance(error, RateLimitError | InvalidRequestError):
                self._open_all_slots()  # the key was good enough to come so far
            raise
        finally:
            self._slots.release()
            self._breaker.done(probe=probe)
        if kind != "list":  # a server whose list works may refuse to write all the same
            self._breaker.succeeded()
            self.writes += 1
        self._gates[kind].passed()
        self._open_all_slots()
        return result

    def _open_all_slots(self) -> None:
        for _ in range(self._slots_closed):
            self._slots.release()
        self._slots_closed = 0

    async def _passage(self, kind: Kind) -> bool:
        """Wait for the gate, the breaker and a slot; return whether the call is the breaker's probe."""
        gate = self._gates[kind]
        while True:
            await gate.passage()
            probe = await self._breaker.passage()
            try:
                await self._slots.acquire()
            except BaseException:
                self._breaker.done(probe=probe)
                raise
            if not gate.wait and (probe or not self._breaker.shut):
                return probe
            self._slots.release()
            self._breaker.done(probe=probe)


_ON_THE_WIRE = ResponseLostError("the import ended while the call was on its way")


def _doubt(items: Sequence[Item], error: OmiError) -> None:
    for item in items:
        item.doubt = error
