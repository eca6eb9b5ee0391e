"""Finding out what became of facts whose call had no usable answer.

The only evidence is the list. A text that stands there is stored. A text that does not is stored nowhere only
if the list was read as far back as it could stand, nothing in it was hidden, and a second look some seconds
later agrees: the list may lag behind the writes, and the server may still be working on a call whose answer
was lost. The package's docstring draws it.
"""

from __future__ import annotations

import asyncio
from math import sqrt
from typing import Final

from omi_async.constants import BATCH_SIZE
from omi_async.errors import ResponseLostError, ServerError
from omi_async.importing.calls import Writes
from omi_async.importing.item import Batch, Item
from omi_async.importing.looks import Looks, Sight, by_index
from omi_async.importing.report import State
from omi_async.importing.stopping import StopSignal
from omi_async.importing.tracker import Tracker

__all__ = ["Reconciler"]

FIRST_LOOK: Final = 1.0
"""Seconds from the first doubt to the first look; batches that fail meanwhile share it. At once, a burst of
failures would cost a look each."""

SECOND_LOOK: Final = 5.0
"""Seconds between two looks if the server gave an answer of its own: its work is over, and only the list may
lag. With less, a list that lags makes stored facts look absent, and they would be stored twice."""

GATEWAY_ERRORS: Final = frozenset({502, 503, 504})

SECOND_LOOK_AFTER_LOSS: Final = 10.0
"""Seconds between two looks if the answer was lost: the server may still be at work on the call."""

MOST_LOOKS: Final = 6
"""Looks for the same facts before those still in doubt stay `unknown`: a minute of a list that lags."""

BLIND_LOOKS: Final = 2
"""Looks in a row that could not see enough, after which it is pointless to look again."""

BATCH_TRIES: Final = 2
"""Sendings in company after which a fact goes alone: one that makes the server fail harms no other fact."""

MOST_TRIES: Final = 8
"""Sendings of a fact in one import. After them it is `rejected` if that is proven; if not, a rerun tries it
again."""

ALONE_TRIES: Final = 3
"""Failures of a fact that was sent alone before it can be proven that the server refuses it."""

CHANCE: Final = 1e-5
"""How improbable it must be that a fact failed each time by the server's troubles alone, before the fact is
blamed: with a hundred times more, a server that fails every fourth call gets some good facts of a large
import rejected for good, since the journal remembers it."""


class Reconciler:
    """Takes items in doubt, looks for them, and returns those that are certainly absent, to be sent again.

    Args:
        looks: reads the list.
        writes: what became of the other writes, so that a fact is not blamed for the server's troubles.
        tracker: takes what cannot be found out.
        signal: stops the waiting; what is in doubt then is settled when the import is closed.
    """

    def __init__(self, *, looks: Looks, writes: Writes, tracker: Tracker, signal: StopSignal) -> None:
        self._looks = looks
        self._writes = writes
        self._tracker = tracker
        self._signal = signal
        self._groups: list[list[Item]] = []  # what one call carried together

    @property
    def waiting(self) -> bool:
        """Whether there are items to look for."""
        return bool(self._groups)

    def add(self, items: list[Item]) -> None:
        """Take the items of one call, all in doubt; they will be looked for together with others."""
        self._groups.append(items)
        self._tracker.look_for(len(items))

    async def resolve(self) -> list[Batch]:
        """Look for all items in doubt; settle what is found and what cannot be; return what goes again."""
        await self._signal.wait_for(asyncio.sleep(FIRST_LOOK))
        groups, self._groups = self._groups, []
        items = [item for group in groups for item in group]
        absent = await self._look_until_sure(items)
        self._tracker.look_for(-len(items))
        again: list[Batch] = []
        together: list[Item] = []
        for group in groups:
            lost = [item for item in group if item in absent]
            for item in lost:
                if item.tries >= MOST_TRIES or self._is_refused(item):
                    await self._give_up(item)
                # Batches are stored in their order: what fails the server is the first that is absent.
                elif item.tries + (item is lost[0]) > BATCH_TRIES:
                    again.append(Batch([item], alone=True))
                else:
                    together.append(item)
        for item in absent:
            item.unknown_because = None
        starts = range(0, len(together), BATCH_SIZE)
        return again + [Batch(together[start : start + BATCH_SIZE]) for start in starts]

    async def _give_up(self, item: Item) -> None:
        state: State = "rejected" if self._is_refused(item) else "not_sent"
        await self._tracker.settle([item.become(state, error=item.unknown_because)])

    def _is_refused(self, item: Item) -> bool:
        """Whether it is proven that the server refuses this fact, although it only ever fails.

        It is if the fact failed alone, the server took others meanwhile, and the chance that the server's
        own troubles, as frequent as they are with the others, hit this one each time is next to nothing.
        """
        writes = self._writes
        if item.alone < ALONE_TRIES or writes.stored_alone <= item.stored_before:
            return False
        failed = max(0, writes.failed - (item.tries - item.alone + 1))  # not counting its own calls
        # A little too high while there are few calls to estimate it from: the doubt is in the fact's favour.
        share = (failed + sqrt(failed) + 0.5) / (failed + writes.stored + 1)
        return share**item.tries < CHANCE

    async def _look_until_sure(self, items: list[Item]) -> set[Item]:
        """Settle what is found and what cannot be found out; return what is certainly stored nowhere.

        Certain is what two looks in a row agree on. A look at a list that does not show yet what the server
        has confirmed proves nothing, and does not mean either that looking is pointless.
        """
        missing = {*items}
        before: set[Item] | None = None  # what the last look did not find
        blind = 0  # looks in a row that could not see enough
        absent = set[Item]()
        for number in range(MOST_LOOKS):
            if number:
                await self._signal.wait_for(asyncio.sleep(max(map(_seconds_to_next_look, missing))))
            look = await self._looks.look(missing, only_front=number == 0)
            missing = look.missing
            if look.conclusive and missing == before:
                absent = {item for item in missing if not item.maybe_reworded}
                break
            before = missing if look.comparable else None
            blind = blind + 1 if look.sight is Sight.BLIND else 0
            if not missing or blind == BLIND_LOOKS or look.sight is Sight.HOPELESS:
                break
        unknown = sorted(missing - absent, key=by_index)
        await self._tracker.settle([item.become("unknown", error=item.unknown_because) for item in unknown])
        return absent


def _seconds_to_next_look(item: Item) -> float:
    """Return more if the server may go on working on the call: a lost answer, or a gateway spoke for it."""
    error = item.unknown_because
    gone = isinstance(error, ResponseLostError)
    gateway = isinstance(error, ServerError) and error.status in GATEWAY_ERRORS
    return SECOND_LOOK_AFTER_LOSS if gone or gateway else SECOND_LOOK
