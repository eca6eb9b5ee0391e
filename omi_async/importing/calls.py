"""An import's calls: in their turn, repeated if that is safe, and what they say about the server."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import attrs

from omi_async import _observing
from omi_async._api.failures import log_name
from omi_async._api.messages import BatchAnswer, Kind, Request
from omi_async._api.retry import Retry, wait_after, waits
from omi_async._quota.permit import Permit
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
from omi_async.importing.breaker import Breaker
from omi_async.importing.concurrency import Concurrency, Flight
from omi_async.importing.item import Item
from omi_async.importing.sender import Sender
from omi_async.importing.stopping import ImportHalted, StopSignal
from omi_async.importing.tracker import Tracker
from omi_async.importing.waiting import WaitBudget

__all__ = ["Calls", "WindowShut", "Writes"]

T = TypeVar("T")

log: Final = logging.getLogger("omi_async")


class WindowShut(Exception):  # noqa: N818  # no error: there is something else to do meanwhile
    """A call would have to wait for a quota window."""


@attrs.define
class Writes:
    """What became of the writes of an import: how often the server has troubles.

    Of a fact that was sent alone only the first call counts: what comes after it, for better or worse, says
    something of that fact.

    Attributes:
        stored: how many the server carried out.
        failed: how many failed with a 5xx or were lost.
        stored_alone: how many had no other write beside them when the server carried them out, first or not.
    """

    stored: int = 0
    failed: int = 0
    stored_alone: int = 0


class Calls:
    """Makes the calls of one import; to the pacer they are one `CallGroup`.

    Args:
        sender: the session.
        concurrency: how many may be on the wire.
        budget: bounds the waiting for quota windows.
        signal: stops the waiting.
        tracker: writes down what is about to leave, and counts the calls.

    Attributes:
        pacing: the session's.
        writes: what became of those that were made.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        concurrency: Concurrency,
        budget: WaitBudget,
        signal: StopSignal,
        tracker: Tracker,
    ) -> None:
        self.pacing = sender.pacing
        self.writes = Writes()
        self._concurrency = concurrency
        self._sender = sender
        self._retry = Retry()
        self._budget = budget
        self._signal = signal
        self._tracker = tracker
        self._breaker = Breaker()
        self._out = 0

    @property
    def server_is_down(self) -> bool:
        """Whether so many calls in a row failed that it is pointless to go on."""
        return self._breaker.broken is not None

    # As the pacer sees it

    @property
    def free(self) -> bool:
        """Whether another call may begin."""
        return self._out < self._concurrency.limit

    def begin(self) -> None:
        """Note that a call begins."""
        self._out += 1
        self._budget.idle(idle=False)

    def end(self) -> None:
        """Note that a call has ended."""
        self._out -= 1
        self._budget.idle(idle=not self._out)

    def on_quota_wait(self, kind: Kind, wait: float, state: QuotaState | None) -> None:
        """Note that calls have to wait for a quota."""
        self._budget.begin(kind, wait, state)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Let only one call be on the wire, so that its failure cannot be the doing of the others."""
        try:
            with self._concurrency.one_at_a_time():
                yield
        finally:
            self.pacing.reconsider()  # the others may go again

    # Calls

    async def make(
        self,
        kind: Kind,
        request: Request[T],
        items: Sequence[Item] = (),
        *,
        patient: bool = True,
    ) -> T:
        """Make a call, again while it was certainly not applied and that may pass.

        If it may have been applied, its `items` are in doubt, also when it was cancelled on its way.

        Raises:
            OmiError: what the last try raised.
            RateLimitError: it would have to wait for a quota for longer than `max_wait` allows; batches have
                the import end instead.
            ImportHalted: the import is stopped before a try; the items are in no doubt.
            WindowShut: it would have to wait for a quota window, and is not `patient`; the same holds.
        """
        with _observing.call(kind, self._sender.base_url, of_import=True):
            return await self._repeat(kind, request, items, patient=patient)

    async def _repeat(self, kind: Kind, request: Request[T], items: Sequence[Item], *, patient: bool) -> T:
        """Make attempts, as `make` says."""
        pauses = waits(self._retry)
        repeated = False
        while True:
            permit, probe = await self._permit(kind, patient=patient)
            if self._signal.stopped:  # by the very answer that has made room for this call
                permit.give_back()
                self._breaker.done(probe=probe)
                raise ImportHalted
            try:
                return await self._attempt(kind, request, items, permit, probe=probe, repeated=repeated)
            except RateLimitError as error:
                # It uses up no attempt: what it waits for is bounded by `max_wait` alone.
                wait = self.pacing.wait(kind, live=False)
                about = {"omi_why": "quota", "omi_kind": kind, "omi_wait": wait}
                log.warning("%s; the next %s call in %.1f s", log_name(error), kind, wait, extra=about)
            except OmiError as error:
                chance = random.random()  # noqa: S311  # jitter
                pause = wait_after(error, next(pauses), idempotent=request.idempotent, chance=chance)
                if pause is None or self.server_is_down:
                    raise
                about = {"omi_why": "trouble", "omi_kind": kind, "omi_wait": pause}
                log.warning("%s; again in %.2f s", log_name(error), pause, extra=about)
                await self._signal.wait_for(asyncio.sleep(pause))
            repeated = True

    async def until_open(self, kind: Kind, other: Kind) -> None:
        """Wait until a call of a kind may go, or one of another that is shut too. Raises `ImportHalted`."""
        patience, wait = self._budget.patience, self.pacing.wait(other, live=False)
        with self._budget.counted(kind):
            try:
                bound = wait if patience is None else min(patience, wait)
                permit, probe = await self._signal.wait_for(self._passage(kind, bound))
            except RateLimitError as error:
                wait = error.retry_after or 0.0
                if patience is not None and wait > patience:
                    self._budget.gave_up(kind, wait)
            else:
                permit.give_back()
                self._breaker.done(probe=probe)

    async def _permit(self, kind: Kind, *, patient: bool) -> tuple[Permit, bool]:
        """Wait for a permit; return it, and whether the call is the breaker's probe."""
        if not self._breaker.shut and (permit := self.pacing.at_once(kind, group=self)) is not None:
            return permit, False  # nothing to wait for, so nothing that a stop would have to end
        try:
            return await self._signal.wait_for(self._passage(kind, self._budget.patience if patient else 0.0))
        except RateLimitError as error:
            if not patient:
                raise WindowShut from None
            self._budget.gave_up(kind, error.retry_after or 0.0)
            raise

    async def _passage(self, kind: Kind, patience: float | None) -> tuple[Permit, bool]:
        """Wait for the breaker and a permit; return it, and whether the call is the breaker's probe.

        Raises `RateLimitError` if a quota asks for more patience, in seconds.
        """
        while True:
            probe = await self._breaker.passage()
            try:
                permit = await self.pacing.acquire(kind, group=self, patience=patience)
            except BaseException:
                self._breaker.done(probe=probe)
                raise
            if (probe or not self._breaker.shut) and self._out <= self._concurrency.limit:
                self._budget.over(kind)
                return permit, probe
            # The breaker has shut, or the limit has gone down, since the permit was given.
            permit.give_back()
            self._breaker.done(probe=probe)

    async def _attempt(
        self,
        kind: Kind,
        request: Request[T],
        items: Sequence[Item],
        permit: Permit,
        *,
        probe: bool,
        repeated: bool,
    ) -> T:
        """Make a call once. Whatever becomes of it, the permit, the probe and the flight have their end."""
        flight = None
        sent_at = time.time()
        try:
            if items:
                # Written down only now, after all waiting: a crash in an hour of waiting leaves no doubt.
                await self._tracker.sending(items)
            if kind != "list":
                flight = self._concurrency.depart()
            self._tracker.report.requests += 1
            self._tracker.report.retries += repeated
            result = await self._sender.send(request, permit=permit)
        except OmiError as error:
            self._failed(kind, items, error, sent_at, flight, probe=probe)
            raise
        except BaseException:
            if flight is not None:  # it was cancelled on its way
                _doubt(items, ResponseLostError("the import ended while the call was on its way"), sent_at)
            raise
        else:
            self._answered(items, flight, result)
            return result
        finally:
            permit.give_back()  # which changes nothing if the session has ended it
            self._breaker.done(probe=probe)
            if flight is not None:
                self._concurrency.land(flight)
            self.pacing.reconsider()  # the limit may be another one now

    def _answered(self, items: Sequence[Item], flight: Flight | None, result: object) -> None:
        if flight is not None:
            self._concurrency.clean(flight)
        if flight is None or not items:
            self._breaker.listed()
            return
        self._breaker.succeeded()
        if isinstance(result, BatchAnswer) and not result.ids:
            return  # it says yes, and has stored nothing: no proof that the facts are to blame
        self.writes.stored += _counts(items)
        self.writes.stored_alone += not flight.accompanied

    def _failed(
        self,
        kind: Kind,
        items: Sequence[Item],
        error: OmiError,
        sent_at: float,
        flight: Flight | None,
        *,
        probe: bool,
    ) -> None:
        """Note which items are in doubt now, and what the error says about the server."""
        if error.maybe_applied:
            for item in items:
                if item.sent_at is None:  # it is the first time
                    item.stored_before = self.writes.stored_alone
            _doubt(items, error, sent_at)
        self._tell_breaker(kind, items, error, probe=probe)
        if flight is None:
            return
        if isinstance(error, InvalidRequestError):
            self._concurrency.clean(flight)  # it has looked at the facts, and had time to
        elif error.maybe_applied or isinstance(error, ServerError):
            self._concurrency.troubled(flight)
            self.writes.failed += _counts(items)
            if len(items) == 1 and not flight.accompanied:
                items[0].alone += 1

    def _tell_breaker(self, kind: Kind, items: Sequence[Item], error: OmiError, *, probe: bool) -> None:
        if not isinstance(error, ServerError | TransportError | ResponseFormatError):
            self._breaker.succeeded()
        elif kind == "list":
            self._breaker.failed_to_list(error, probe=probe)
        elif kind == "update":
            return  # it may refuse to change one memory, and take facts all the same
        elif kind != "create" or probe:  # one fact that makes the server fail says little of the server
            self._breaker.failed(error, probe=probe, fact=items[0] if len(items) == 1 else None)


def _counts(items: Sequence[Item]) -> bool:
    return len(items) > 1 or (len(items) == 1 and not items[0].alone)


def _doubt(items: Sequence[Item], error: OmiError, sent_at: float) -> None:
    for item in items:
        item.doubt(error, sent_at)
