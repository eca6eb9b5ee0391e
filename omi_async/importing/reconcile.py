"""Finding out what became of facts whose call had no usable answer.

The only evidence is the list. A text that stands there is stored. A text that does not is stored nowhere only
when the whole list could be read, nothing in it was hidden, and a second look some seconds later agrees: the
list may lag behind the writes, and the server may still be working on a call whose answer was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from omi_async._api import endpoints
from omi_async._api.messages import ListedMemory, Page, Request
from omi_async._api.paging import Paginator
from omi_async.constants import BATCH_SIZE, PAGE_LIMIT
from omi_async.errors import OmiError, ResponseLostError, ServerError
from omi_async.importing.answers import ServerClock, may_be_locked
from omi_async.importing.calls import Calls
from omi_async.importing.delivery import Delivery
from omi_async.importing.item import Item, content_key
from omi_async.importing.stopping import StopSignal
from omi_async.importing.tracker import Tracker

__all__ = ["Reconciler"]

FIRST_LOOK: Final = 1.0
"""Seconds from the first doubt to the first look; batches that fail meanwhile share it."""

SECOND_LOOK: Final = 5.0
"""Seconds between two looks, where the server gave an answer of its own: its work is over."""

GATEWAY_ERRORS: Final = frozenset({502, 503, 504})

SECOND_LOOK_AFTER_LOSS: Final = 10.0
"""Seconds between two looks, where the answer was lost: the server may still be at work."""

MOST_LOOKS: Final = 6
"""Looks for the same facts, before those still in doubt stay `unknown`."""

BLIND_LOOKS: Final = 2
"""Looks in a row that could not read the whole list, after which it is no use to look again."""

LIST_CALLS: Final = 1000
"""Calls of the list in one import, at most."""

BATCH_TRIES: Final = 2
"""Sendings in company, after which a fact goes alone: one that makes the server fail harms nobody else."""

MOST_TRIES: Final = 6
"""Sendings of a fact, after which one that is never stored counts as rejected."""


class Reconciler:
    """Takes items in doubt, looks for them, and has those sent again that are surely absent.

    Args:
        calls: makes the calls of the list.
        account: takes the outcomes.
        start: tells existing from created.
        signal: stops the waiting; what is in doubt then is settled by whoever closes the books.
        delivery: sends again.
        spawn: runs a coroutine as a task of the import.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        tracker: Tracker,
        start: ServerClock,
        signal: StopSignal,
        delivery: Delivery,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._calls = calls
        self._tracker = tracker
        self._start = start
        self._signal = signal
        self._delivery = delivery
        self._spawn = spawn
        self._groups: list[list[Item]] = []  # what one call carried together
        self._running = False
        self._list_calls = LIST_CALLS

    def set_aside(self, items: list[Item]) -> None:
        """Take the items of one call, all in doubt; they will be looked for together with others."""
        self._groups.append(items)
        self._tracker.set_aside += len(items)
        self._tracker.wake()
        if not self._running:
            self._running = True
            self._spawn(self._run())

    async def held(self) -> dict[bytes, str]:
        """Read the whole list; return the ids of its memories by content key. Raises what the calls raise."""
        held: dict[bytes, str] = {}
        listing = Paginator[ListedMemory](endpoints.list_for_import, PAGE_LIMIT)
        while (request := listing.next_request()) is not None:
            page = await self._calls.make("list", request)
            for identity in listing.take(page):
                held[content_key(identity.content.strip())] = identity.id
            if page.unreadable:
                raise OmiError(
                    f"{page.unreadable} memories of the list cannot be read, so nobody can tell what the "
                    f"account holds; import without skip_existing"
                )
        return held

    async def _run(self) -> None:
        try:
            while self._groups:
                await self._signal.wait_for(asyncio.sleep(FIRST_LOOK))
                groups, self._groups = self._groups, []
                items = [item for group in groups for item in group]
                absent = await self._look_until_sure(items)
                self._tracker.set_aside -= len(items)
                await self._send_again(groups, absent)
                await self._tracker.progress()
        finally:
            self._running = False

    async def _look_until_sure(self, items: list[Item]) -> set[Item]:
        """Settle what is found and what cannot be found out; return what is surely stored nowhere.

        Sure is what two whole looks in a row agree on. A look at a list that does not show yet what the
        server has confirmed proves nothing, and does not mean either that looking is of no use.
        """
        missing = set(items)
        before: set[Item] | None = None  # what the last look, if it was a whole one, did not find
        blind = 0  # looks in a row that could not read the whole list
        absent = set[Item]()
        for number in range(MOST_LOOKS):
            if number:
                await self._signal.wait_for(asyncio.sleep(_distance(missing)))
            missing, whole, late = await self._look(missing)
            if whole and missing == before:
                absent = {item for item in missing if not item.maybe_reworded}
                break
            before = missing if whole else None
            blind = 0 if whole or late else blind + 1
            if not missing or blind == BLIND_LOOKS:
                break
        for item in sorted(missing - absent, key=_index):
            await self._tracker.settle(item, "unknown", error=item.unknown_because)
        return absent

    async def _look(self, items: set[Item]) -> tuple[set[Item], bool, bool]:
        """Read the list once and settle what is found.

        Return what is not, whether that proves anything, and whether only because the list lags it does not.
        """
        wanted: dict[str, list[Item]] = {}
        for item in items:
            wanted.setdefault(item.content, []).append(item)
        listing = Paginator[ListedMemory](endpoints.list_for_import, PAGE_LIMIT)
        whole = True
        confirmed = {*self._tracker.confirmed}
        try:
            while wanted and (request := listing.next_request()) is not None:
                page = await self._page(request)
                whole = whole and not page.truncated and not page.unreadable
                for identity in listing.take(page):
                    confirmed.discard(identity.id)
                    await self._compare(identity, wanted)
        except OmiError:  # no right to list, a list too deep to read, a failing server, calls used up
            whole = False
        missing = {item for group in wanted.values() for item in group}
        whole = whole and listing.steady
        return missing, whole and not confirmed, whole and bool(confirmed)

    async def _page(self, request: Request[Page[ListedMemory]]) -> Page[ListedMemory]:
        if self._list_calls <= 0:
            raise OmiError(f"looked through the list with {LIST_CALLS} calls already")
        self._list_calls -= 1
        page = await self._calls.make("list", request)
        if page.answer is not None:
            self._start.learn(page.answer)
        return page

    async def _compare(self, identity: ListedMemory, wanted: dict[str, list[Item]]) -> None:
        content = identity.content.strip()
        for item in wanted.pop(content, ()):
            state = self._start.state_of(identity.created_at, item.first_sent)
            await self._tracker.settle(item, state, memory_id=identity.id)
        if content.endswith("..."):
            for group in wanted.values():
                for item in group:
                    item.maybe_reworded = item.maybe_reworded or may_be_locked(item, content)

    async def _send_again(self, groups: list[list[Item]], absent: set[Item]) -> None:
        """Send the absent ones again; those that seem to make the server fail, alone."""
        together: list[Item] = []
        for group in groups:
            for place, item in enumerate([item for item in group if item in absent]):
                error, item.unknown_because = item.unknown_because, None
                if item.tries >= MOST_TRIES:
                    # It is to blame only if the server took other facts meanwhile.
                    to_blame = self._calls.writes > item.writes_before
                    await self._tracker.settle(item, "rejected" if to_blame else "not_sent", error=error)
                elif item.tries > BATCH_TRIES or (item.tries == BATCH_TRIES and place == 0):
                    # Batches are stored in their order: what fails the server is the first that is absent.
                    self._spawn(self._delivery.deliver_single(item))
                else:
                    together.append(item)
        for start in range(0, len(together), BATCH_SIZE):
            self._spawn(self._delivery.deliver(together[start : start + BATCH_SIZE]))


def _index(item: Item) -> int:
    return item.index


def _distance(items: set[Item]) -> float:
    return max(
        (SECOND_LOOK_AFTER_LOSS if _maybe_at_work(item) else SECOND_LOOK for item in items), default=0.0
    )


def _maybe_at_work(item: Item) -> bool:
    """Whether the server may go on working on the call: a lost answer, or a gateway that spoke for it."""
    error = item.unknown_because
    return isinstance(error, ResponseLostError) or (
        isinstance(error, ServerError) and error.status in GATEWAY_ERRORS
    )
