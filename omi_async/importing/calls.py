"""An import's calls: in their turn, repeated where that is safe, and what they say about the server."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from omi_async._api.failures import log_name
from omi_async._api.messages import Kind, Request
from omi_async._api.retry import Retry, wait_after, waits
from omi_async._quota.pacer import Permit
from omi_async._quota.policy import QuotaState
from omi_async.errors import (
    InvalidRequestError,
    OmiError,
    RateLimitError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    TransportError,
)
from omi_async.importing.concurrency import Concurrency
from omi_async.importing.item import Item
from omi_async.importing.report import ImportReport
from omi_async.importing.sender import Sender
from omi_async.importing.stopping import StopSignal
from omi_async.importing.waiting import WaitBudget

__all__ = ["Breaker", "Calls", "WindowShut"]

T = TypeVar("T")

log: Final = logging.getLogger("omi_async")

CONTENTION: Final = 503
"""The status that means: too much to do."""


class WindowShut(Exception):  # noqa: N818  # no error: there is something else to do meanwhile
    """A call would have to wait for a quota window."""


class Calls:
    """Makes the calls of one import.

    Args:
        sender: the session.
        concurrency: calls on the wire at the same time, at most.
        retry: tries of a call that was surely not applied; a 429 uses up none.
        max_wait: seconds that may be spent waiting for quota windows, in all; None for any.
        signal: stops the waiting; is set when `max_wait` would be passed.
        report: where calls are counted, and what is waited for is noted.
        on_leave: is called with the items of a call when it is about to leave, at last, after all waiting.
        on_park: is called when the import begins to wait for a quota window.

    Attributes:
        pacing: the session's.
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
        on_leave: Callable[[Sequence[Item]], None],
        on_park: Callable[[], None],
    ) -> None:
        self.pacing = sender.pacing
        self._sender = sender
        self._retry = retry
        self._group = Concurrency(concurrency, on_park=self._park, reconsider=self.pacing.reconsider)
        self._wait_budget = WaitBudget(max_wait, signal, report, on_park, lambda: self._group.idle)
        self._signal = signal
        self._report = report
        self._on_leave = on_leave
        self._loop = asyncio.get_running_loop()
        self._breaker = Breaker()
        self.writes = 0

    @property
    def server_is_down(self) -> bool:
        """Whether so many calls in a row failed that it is no use to go on."""
        return self._breaker.broken is not None

    async def make(
        self,
        kind: Kind,
        request: Request[T],
        items: Sequence[Item] = (),
        *,
        patient: bool = True,
    ) -> T:
        """Make a call, again while it was surely not applied and that may pass.

        Where it may have been applied, its `items` are in doubt, also when it was cancelled on its way.

        Raises:
            OmiError: what the last try raised.
            RateLimitError: it would have to wait for a quota for longer than `max_wait` allows; batches have
                the import end instead.
            Halt: the import is stopped before a try; the items are in no doubt.
            WindowShut: it would have to wait for a quota window, and is not `patient`; the same holds.
        """
        longest_waits = waits(self._retry)
        repeated = False
        while True:
            permit, probe = await self._turn(kind, patient=patient)
            began = self._leave(items, permit, probe=probe)
            self._report.retries += repeated
            try:
                result = await self._sender.send(request, permit=permit)
            except RateLimitError as error:
                self._failed(kind, items, error, began, probe=probe)
                wait = self.pacing.wait(kind, live=False)
                extra = {"omi_why": "quota", "omi_kind": kind, "omi_wait": wait}
                log.warning("%s; the next %s call in %.1f s", log_name(error), kind, wait, extra=extra)
            except OmiError as error:
                self._failed(kind, items, error, began, probe=probe)
                longest, chance = next(longest_waits), random.random()  # noqa: S311  # jitter
                again = wait_after(error, longest, idempotent=request.idempotent, chance=chance)
                if again is None or self.server_is_down:
                    raise
                wait = again
                extra = {"omi_why": "trouble", "omi_kind": kind, "omi_wait": wait}
                log.warning("%s; again in %.2f s", log_name(error), wait, extra=extra)
                await self._signal.wait_for(asyncio.sleep(wait))
            except BaseException:  # it was cancelled on its way
                self._breaker.done(probe=probe)
                _mark_unknown(items, ResponseLostError("the import ended while the call was on its way"))
                raise
            else:
                self._answered(kind, began, probe=probe)
                return result
            repeated = True

    async def until_open(self, kind: Kind, other: Kind) -> None:
        """Wait until a call of a kind may go, or one of another that is shut too. Raises `ImportHalted`."""
        patience = self.pacing.wait(other, live=False)
        with self._wait_budget.counted(kind), suppress(RateLimitError):
            permit, probe = await self._signal.wait_for(self._passage(kind, patience))
            permit.give_back()
            self._breaker.done(probe=probe)

    async def _turn(self, kind: Kind, *, patient: bool) -> tuple[Permit, bool]:
        """Wait for a turn; return it, and whether the call is the breaker's probe."""
        patience = None if kind == "batch" else self._wait_budget.left
        try:
            return await self._signal.wait_for(self._passage(kind, patience if patient else 0.0))
        except RateLimitError as error:
            if not patient:
                raise WindowShut from None
            self._wait_budget.over(kind)
            self._wait_budget.gave_up(error.retry_after or 0.0)
            raise

    def _leave(self, items: Sequence[Item], permit: Permit, *, probe: bool) -> float:
        """Write down that a call leaves, and return when, by the loop's clock."""
        if items:
            try:
                self._on_leave(items)
            except BaseException:
                permit.give_back()
                self._breaker.done(probe=probe)
                raise
        self._report.requests += 1
        return self._loop.time()

    def _answered(self, kind: Kind, began: float, *, probe: bool) -> None:
        if probe:
            self._breaker.done(probe=probe)
        if kind != "list":  # a server whose list works may refuse to write all the same
            self._breaker.succeeded()
            self.writes += 1
        self._group.answered(kind, began, self._loop.time())

    def _failed(
        self, kind: Kind, items: Sequence[Item], error: OmiError, began: float, *, probe: bool
    ) -> None:
        """Note which items are in doubt now, and what the error says about the server."""
        self._breaker.done(probe=probe)
        if error.maybe_applied:
            _mark_unknown(items, error)
        if not isinstance(error, ServerError | TransportError | ResponseFormatError):
            self._breaker.succeeded()
        elif kind != "create" or probe:  # one fact that makes the server fail says little of the server
            self._breaker.failed(error, probe=probe)
        if isinstance(error, RateLimitError | InvalidRequestError):
            self._group.open()  # the key was good enough to come so far
        elif isinstance(error, ServerError) and error.status == CONTENTION:
            self._group.contended(began, self._loop.time())

    async def _passage(self, kind: Kind, patience: float | None) -> tuple[Permit, bool]:
        """Wait for the breaker and a turn; return the turn, and whether the call is the breaker's probe.

        Raises `RateLimitError` where a quota asks for more patience, in seconds.
        """
        while True:
            probe = await self._breaker.passage()
            try:
                permit = await self.pacing.acquire(kind, group=self._group, patience=patience)
            except BaseException:
                self._breaker.done(probe=probe)
                raise
            if probe or not self._breaker.shut:
                self._wait_budget.over(kind)
                return permit, probe
            permit.give_back()

    def _park(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        self._wait_budget.begin(kind, wait, state)


def _mark_unknown(items: Sequence[Item], error: OmiError) -> None:
    for item in items:
        item.unknown_because = error


FAILURES_BEFORE_PAUSE: Final = 5
"""Server failures in a row, after which the importer pauses and then probes with one call."""

PROBES_BEFORE_STOP: Final = 6
"""Failed probes in a row, after which a server counts as down."""

SHORTEST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 60.0


class Breaker:
    """Counts failures in a row; when they are many, lets one call through after a pause, to probe.

    Attributes:
        broken: the last error, once so many probes failed that the server counts as down.
    """

    def __init__(self) -> None:
        self.broken: OmiError | None = None
        self._failures = 0
        self._failed_probes = 0
        self._opens_at: float | None = None  # of the loop's clock, while it is shut
        self._probe_out = False
        self._changed = asyncio.Event()

    @property
    def shut(self) -> bool:
        """Whether only a probe may pass."""
        return self._opens_at is not None

    async def passage(self) -> bool:
        """Wait while the server is failing; return whether this call is the probe."""
        while self._opens_at is not None:
            wait = self._opens_at - asyncio.get_running_loop().time()
            if wait > 0:
                await asyncio.sleep(wait)
            elif self._probe_out:
                self._changed.clear()
                await self._changed.wait()
            else:
                self._probe_out = True
                return True
        return False

    def done(self, *, probe: bool) -> None:
        """Take a probe back, whatever became of it."""
        if probe:
            self._probe_out = False
            self._changed.set()

    def succeeded(self) -> None:
        """Note that the server works."""
        self._failures = self._failed_probes = 0
        if self._opens_at is not None:
            self._opens_at = self.broken = None
            self._changed.set()

    def failed(self, error: OmiError, *, probe: bool) -> None:
        """Note that a call failed on the server's side."""
        self._failures += 1
        self._failed_probes += probe
        if probe or (not self.shut and self._failures >= FAILURES_BEFORE_PAUSE):
            pause = min(SHORTEST_PAUSE * 2.0**self._failed_probes, LONGEST_PAUSE)
            self._opens_at = asyncio.get_running_loop().time() + pause
        if self._failed_probes >= PROBES_BEFORE_STOP:
            self.broken = error
