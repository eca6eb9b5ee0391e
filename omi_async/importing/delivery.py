"""Bringing chunks to the server, and reading from its answers what became of each fact."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Literal

import attrs

from omi_async._api import endpoints
from omi_async._api.failures import refused_items
from omi_async._api.messages import BatchAnswer
from omi_async.errors import InvalidRequestError, OmiError, RateLimitError, ResponseFormatError
from omi_async.importing.answers import KnownRefusals, ServerClock, match
from omi_async.importing.calls import Calls
from omi_async.importing.item import Item
from omi_async.importing.report import State
from omi_async.importing.stopping import ImportHalted
from omi_async.importing.tracker import Tracker

__all__ = ["Delivery", "OnUnknown"]

OnUnknown = Literal["reconcile", "report", "resend"]

ISOLATION_CALLS: Final = 6
"""Calls spent at most to find the bad fact of a refused batch: enough to halve 25 down to 1, and to send
the rest. Where several facts are bad, what is left then goes one by one."""

SENDINGS: Final = 4
"""Sendings of a fact at most with ``on_unknown="resend"``, the first one included."""


class Delivery:
    """Delivers chunks; every item it is given ends settled, set aside as doubtful, or open when stopped.

    Args:
        calls: makes the calls.
        account: takes the outcomes.
        start: tells existing from created.
        rules: learns from refusals.
        on_unknown: what to do about a lost answer.
        set_aside: takes doubtful items, to look for them later.
        fatal: is told the error that must end the import.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        tracker: Tracker,
        start: ServerClock,
        known_refusals: KnownRefusals,
        on_unknown: OnUnknown,
        set_aside: Callable[[list[Item]], None],
        fatal: Callable[[OmiError], None],
    ) -> None:
        self._calls = calls
        self._tracker = tracker
        self._start = start
        self._known_refusals = known_refusals
        self._on_unknown = on_unknown
        self._set_aside = set_aside
        self._fatal = fatal

    async def deliver(self, items: list[Item], *, patient: bool = True) -> None:
        """Send a chunk in one call, in more where the server refuses it as it is.

        Raises `WindowShut`, where it is not `patient`, instead of waiting for a quota window.
        """
        refusal = await self._send(items, patient=patient)
        if refusal is not None:
            await self._isolate(refusal.items, refusal.error)
        if self._tracker.watched:
            await self._tracker.progress()

    async def deliver_single(self, item: Item, *, patient: bool = True) -> None:
        """Send one fact in a call of its own kind, which has its own quota. Raises as `deliver` does."""
        refusal = await self._send([item], single=True, patient=patient)
        if refusal is not None:
            await self._reject(item, refusal.error)
        if self._tracker.watched:
            await self._tracker.progress()

    async def _send(
        self, items: list[Item], *, single: bool = False, patient: bool = True
    ) -> _Refusal | None:
        """Send items and settle them; return what is refused without saying which is to blame."""
        for _ in range(ISOLATION_CALLS):
            if self._known_refusals.any:
                items[:] = await self._not_refused_before(items)
            if not items:
                return None
            payloads = [item.payload for item in items]
            request = endpoints.import_single(*payloads) if single else endpoints.import_batch(payloads)
            try:
                named = await self._calls.make(request.kind, request, items, patient=patient)
            except InvalidRequestError as error:
                patient = True  # some of them may have their state by now
                self._known_refusals.learn(error, items)
                others = await self._reject_named(items, error)
                if len(others) == len(items):
                    return _Refusal(items, error)
                refusal = _Refusal(others, error)
                items = others
            except OmiError as error:
                await self._not_answered(items, error)
                return None
            else:
                await self._answered(items, named)
                return None
        return refusal

    async def _answered(self, items: list[Item], named: BatchAnswer) -> None:
        self._start.learn(named.answer)
        self._tracker.confirmed.extend(named.ids)
        matched = match(items, named, self._start)
        if not matched.missing:
            self._tracker.record(items)
            if self._tracker.heard:
                await self._tracker.hand_out()
            return
        error = ResponseFormatError(
            f"the server's answer names {len(matched.found)} of the {len(items)} facts of the call"
        )
        for item in matched.missing:  # before anything is awaited, which may be cancelled
            item.unknown_because = error
            item.maybe_reworded = matched.strangers > 0
        await self._tracker.settle_all(matched.found)
        await self._doubtful(matched.missing, error)

    async def _not_answered(self, items: list[Item], error: OmiError) -> None:
        if isinstance(error, RateLimitError):
            for item in items:
                item.tries += 1  # nobody is to take it for a fact that the server took
                await self._tracker.settle(
                    item,
                    "unknown" if item.unknown_because else "not_sent",
                    error=item.unknown_because or error,
                )
        elif not error.maybe_applied or self._calls.server_is_down:
            self._fatal(error)
            raise ImportHalted from None
        else:
            await self._doubtful(items, error)

    async def _doubtful(self, items: list[Item], error: OmiError) -> None:
        for item in items:
            item.tries += 1
            if item.tries == 1:
                item.writes_before = self._calls.writes
        if self._on_unknown == "reconcile":
            self._set_aside(items)
            return
        again = []
        for item in items:
            if self._on_unknown == "resend" and item.tries < SENDINGS and not item.maybe_reworded:
                again.append(item)
            else:
                await self._tracker.settle(item, "unknown", error=error)
        if again:
            await self.deliver(again)

    # Refusals

    async def _not_refused_before(self, items: list[Item]) -> list[Item]:
        """Settle what the server is known to refuse, and return the others."""
        others = []
        for item in items:
            refused = self._known_refusals.refuse(item.payload)
            if refused is None:
                others.append(item)
            else:
                await self._refuse(item, "invalid", refused)
        return others

    async def _reject_named(self, items: list[Item], error: InvalidRequestError) -> list[Item]:
        """Reject the items that a refusal names, with the words for each, and return the others."""
        named = refused_items(error)
        others = []
        for index, item in enumerate(items):
            if index in named:
                await self._refuse(item, "rejected", _words(error, named[index]))
            else:
                others.append(item)
        return others

    async def _reject(self, item: Item, error: InvalidRequestError) -> None:
        await self._refuse(item, "rejected", _words(error, str(error)))

    async def _refuse(self, item: Item, state: State, error: OmiError) -> None:
        """Settle a refused item. One that is sent again unlooked-for may be stored by an earlier call."""
        await self._tracker.settle(item, state if item.unknown_because is None else "unknown", error=error)

    async def _isolate(self, items: list[Item], error: InvalidRequestError) -> None:
        """Find the bad fact of a refused batch, at the cost of `ISOLATION_CALLS` for one bad fact.

        Half of the suspects is sent at a time: what is taken is stored; what is refused holds the bad one,
        and then the other half is cleared of suspicion and sent at the end, together. The last suspect is
        guilty without a call of its own where that proves it: not where a half was lost instead of taken, nor
        where (413) the size of a group was to blame.
        """
        suspects, cleared, calls = items, list[Item](), ISOLATION_CALLS
        own_words, proof = False, error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        lost = _lost_calls(items)
        while len(suspects) > 1 and calls > 1:
            half, rest = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
            calls -= 1
            refusal = await self._send(half, single=len(half) == 1)
            if refusal is None:
                suspects = rest
            else:
                suspects, error, own_words = refusal.items, refusal.error, len(half) == 1
                cleared += rest
        if cleared:
            calls -= 1
            refusal = await self._send(cleared)
            if refusal is not None:
                suspects, own_words, calls = [*refusal.items, *suspects], False, len(items)
        proof = proof and lost == _lost_calls(items)
        if len(suspects) == 1 and (own_words or (proof and calls < 1)):
            await self._reject(suspects[0], error)
        else:
            for item in suspects:
                await self.deliver_single(item)


@attrs.frozen
class _Refusal:
    items: list[Item]
    error: InvalidRequestError


def _lost_calls(items: list[Item]) -> int:
    return sum(item.tries for item in items)


def _words(error: InvalidRequestError, words: str) -> InvalidRequestError:
    """Give a fact a refusal of its own: the batch's holds the other facts' texts in its detail."""
    detail: Any = words if isinstance(error.detail, list) else error.detail
    message = words if words == str(error) else f"refused by the server: {words}"
    return InvalidRequestError(message, status=error.status, detail=detail, headers=error.headers)
