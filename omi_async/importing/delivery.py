"""Bringing facts to the server, and reading from its answers what became of each."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import attrs

from omi_async._api import endpoints
from omi_async._api.failures import refused_items
from omi_async._api.messages import BatchAnswer
from omi_async.errors import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    OmiError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ResponseFormatError,
)
from omi_async.importing.answers import KnownRefusals, ServerClock, match
from omi_async.importing.calls import Calls
from omi_async.importing.item import Item
from omi_async.importing.report import State
from omi_async.importing.tags import Tags
from omi_async.importing.tracker import Tracker

__all__ = ["Delivery"]

ISOLATION_CALLS: Final = 6
"""Calls spent at most to find the bad fact of a refused batch: enough to halve 25 down to 1, and to send the
rest. If several facts are bad, what is left then goes one by one."""

REFUSALS_IN_A_ROW: Final = 3
"""Refusals that are the fault of no fact (a 404, a 409, a firewall's 418) after which the import stops. The
first ones cost only their batch: something on the way may dislike one text. After a few of them it is the
address or the account, and every further call would be in vain."""


class Delivery:
    """Delivers batches. Each item ends with its state, in doubt, or open because the import ends.

    Args:
        calls: makes the calls.
        tracker: takes what has its state, as soon as it is known.
        clock: tells existing from created.
        known_refusals: learns from refusals.
        tags: learns what tags the memories have that are there already.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        tracker: Tracker,
        clock: ServerClock,
        known_refusals: KnownRefusals,
        tags: Tags,
    ) -> None:
        self._calls = calls
        self._tracker = tracker
        self._clock = clock
        self._known_refusals = known_refusals
        self._tags = tags
        self._refusals = 0  # in a row, that are the fault of no fact

    async def deliver(self, items: list[Item], *, patient: bool = True) -> list[Item]:
        """Send items in one call, in more if the server refuses it as it is; return those in doubt.

        Raises:
            OmiError: the import cannot go on.
            ImportHalted: it is stopped.
            WindowShut: nothing was sent, since a quota window would have to be waited for and it is not
                `patient`.
        """
        sent = await self._send(items, patient=patient)
        if sent.refusal is None:
            return sent.in_doubt
        return sent.in_doubt + await self._isolate(sent.refused, sent.refusal)

    async def deliver_single(self, item: Item, *, patient: bool = True) -> list[Item]:
        """Send one fact in a call of its own kind, which has its own quota. Returns as `deliver` does."""
        sent = await self._send([item], single=True, patient=patient)
        if sent.refusal is not None:
            await self._reject(item, sent.refusal)
        return sent.in_doubt

    async def _send(self, items: list[Item], *, single: bool = False, patient: bool = True) -> _Sent:
        """Send items and settle them; what the server refuses by name is rejected, the rest sent again."""
        calls = ISOLATION_CALLS
        while True:
            if self._known_refusals.any:
                items = await self._not_refused_before(items)
            if not items:
                return _Sent()
            payloads = [item.payload for item in items]
            request = endpoints.import_single(*payloads) if single else endpoints.import_batch(payloads)
            try:
                named = await self._calls.make(request.kind, request, items, patient=patient)
            except InvalidRequestError as error:
                patient = True  # some of them may have their state by now
                self._refusals = 0
                self._known_refusals.learn(error, items)
                others = await self._reject_named(items, error)
                calls -= 1
                if len(others) == len(items) or not calls:  # it names none, or one after the other
                    return _Sent(refused=others, refusal=error)
                items = others
            except OmiError as error:
                return await self._not_answered(items, error)
            else:
                return await self._answered(items, named)

    async def _answered(self, items: list[Item], named: BatchAnswer) -> _Sent:
        self._refusals = 0
        self._clock.learn(named.answer)
        if named.ids:
            self._clock.witness(max(named.created), named.answer)
            self._tracker.last_answer = named._replace(memories=())  # which nothing asks for any more
        matched = match(items, named, self._clock)
        if matched.missing:
            words = f"the server's answer names {len(matched.found)} of the {len(items)} facts of the call"
            error = ResponseFormatError(words)
            for item in matched.missing:  # before anything is awaited, which may be cancelled
                item.doubt(error, named.answer.sent or 0.0)
                item.tries += 1
                item.maybe_reworded = matched.strangers > 0
        self._tags.compare(matched.found, named.memories)
        await self._tracker.settle(matched.found)
        return _Sent(in_doubt=matched.missing)

    async def _not_answered(self, items: list[Item], error: OmiError) -> _Sent:
        """Read from an error whether the items are in doubt. Raises it if the import cannot go on."""
        for item in items:
            item.tries += 1
        if error.maybe_applied and not self._calls.server_is_down:
            return _Sent(in_doubt=items)
        if not isinstance(error, RateLimitError) and not self._costs_only_its_batch(error):
            raise error
        for item in items:
            item.become(
                "unknown" if item.unknown_because else "not_sent", error=item.unknown_because or error
            )
        await self._tracker.settle(items)
        return _Sent()

    def _costs_only_its_batch(self, error: OmiError) -> bool:
        """Whether an error is a refusal that was not foreseen, and not the last one of too many in a row.

        A 3xx is none: it is the address that is wrong, and each further batch would go astray as well.
        """
        if not isinstance(error, APIError) or not 400 <= error.status < 500:  # noqa: PLR2004  # the 4xx class
            return False
        if isinstance(error, AuthenticationError | PaymentRequiredError | PermissionDeniedError):
            return False
        self._refusals += 1
        return self._refusals < REFUSALS_IN_A_ROW

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
        await self._tracker.settle(
            [item.become(state if item.unknown_because is None else "unknown", None, error)]
        )

    async def _isolate(self, items: list[Item], error: InvalidRequestError) -> list[Item]:
        """Find the bad fact of a refused batch, at the cost of `ISOLATION_CALLS` for one bad fact.

        Half of the suspects is sent at a time: what is taken is stored; what is refused holds the bad one,
        and then the other half is cleared of suspicion and sent at the end, together. The last suspect is
        guilty without a call of its own if that proves it: not if a half was lost instead of taken, nor if
        (413) the size of a group was to blame. Returns those in doubt.
        """
        suspects, cleared, in_doubt = items, list[Item](), list[Item]()
        calls, own_words, proven = ISOLATION_CALLS, False, False
        one_is_bad, lost = error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _lost_calls(items)
        while len(suspects) > 1 and calls > 1:
            half, rest = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
            calls -= 1
            sent = await self._send(half, single=len(half) == 1)
            in_doubt += sent.in_doubt
            if sent.refusal is None:
                suspects = rest
            else:
                suspects, error, own_words = sent.refused, sent.refusal, len(half) == 1
                cleared += rest
        if cleared:
            sent = await self._send(cleared)
            in_doubt += sent.in_doubt
            if sent.refusal is None:
                proven = calls <= 1 and one_is_bad and lost == _lost_calls(items)
            else:
                suspects, own_words = [*sent.refused, *suspects], False
        if len(suspects) == 1 and (own_words or proven):
            await self._reject(suspects[0], error)
            return in_doubt
        for item in suspects:
            in_doubt += await self.deliver_single(item)
        return in_doubt


@attrs.define
class _Sent:
    """What became of the items of a call that have no state by it.

    Attributes:
        in_doubt: may be stored or not.
        refused: were refused without a word which of them is to blame.
        refusal: the server's words for that.
    """

    in_doubt: list[Item] = attrs.field(factory=list)
    refused: list[Item] = attrs.field(factory=list)
    refusal: InvalidRequestError | None = None


def _lost_calls(items: list[Item]) -> int:
    return sum(item.tries for item in items)


def _words(error: InvalidRequestError, words: str) -> InvalidRequestError:
    """Return a refusal for one fact: the batch's holds the other facts' texts in its detail."""
    detail: Any = words if isinstance(error.detail, list) else error.detail
    message = words if words == str(error) else f"refused by the server: {words}"
    return InvalidRequestError(message, status=error.status, detail=detail, headers=error.headers)
