"""Keeps a ledger in a store that processes on many machines share.

The store is asked before each call: the whole of the ledger is written over the version that was read last,
with the calls in it that are about to leave. If another process was faster, nothing is written, its ledger
becomes ours, and all who asked look again whether they may go. So there is one account of each window,
whatever the number of processes.

```text
  process 1   may go: asks ---- written over version 6 ----> it is version 7: the call leaves
  process 2   may go: asks ------- version 6? it is 7 now -> takes over 7: is it still its turn? asks again
              or waits
```

A store that is away stops nobody who is waited for. Live calls go on by what is known here: at worst one is
refused, which costs nothing but itself, while a web app that stands still since a store is away costs its
users' time. Imports wait for the store for a minute, since they have time, and would spend windows at full
speed side by side; then they go on too. What was spent meanwhile is told to the store when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from omi_async._quota.clock import Clock
from omi_async._quota.keeper import Keeper, Verdict
from omi_async._quota.known import Known
from omi_async._quota.ledger import Ledger
from omi_async._quota.sharing import NO_STATE, Held, SharedRecord, dump, load
from omi_async._quota.window import CountedCall

__all__ = ["StoreKeeper"]

log: Final = logging.getLogger("omi_async")

PATIENCE: Final = 2.0
"""Seconds that a call waits for the store at most. An answer takes a thousandth of a second. With less, a
busy machine would count alone now and then, and overrun windows; with more, a web request would stand still.
"""

AGAIN: Final = 1.0
"""Seconds between tries to reach a store that is away."""

IMPORTS_WAIT: Final = 60.0
"""Seconds for which imports wait for a store that is away: a restart takes less. Without a bound, an import
with a journal of its own would stand still for good since a store was taken down for good."""

MOST_NOTES: Final = 2000
"""Notes that are kept for a store that is away; the oldest are those of windows that are over first."""


class _Note(NamedTuple):
    """What the ledger has learned, to be learned again when it has become another one."""

    call: CountedCall
    learn: Callable[..., object]
    what: tuple[Any, ...]

    def shifted(self, seconds: float) -> _Note:
        """Return it by a clock that was turned: the numbers in it are moments."""
        what = tuple([it + seconds if isinstance(it, float) else it for it in self.what])
        return self._replace(what=what)


class StoreKeeper(Keeper):
    """Keeps a ledger in a store.

    Args:
        record: in the store.
        ledger: becomes what the store holds.
        clock: is set by the store's.
        heed: is told what has become of the calls that were asked for.
    """

    shared = True

    def __init__(
        self, record: SharedRecord, ledger: Ledger, clock: Clock, heed: Callable[[Verdict], None]
    ) -> None:
        super().__init__(heed)
        self._record = record
        self._ledger = ledger
        self._clock = clock
        self._version = ""  # of what was read or written last
        self._owner = f"{secrets.token_hex(6)}-"  # begins the ids of our calls, and of our versions
        self._number = 0
        self._notes: list[_Note] = []  # what the store does not know yet
        self._asked: list[CountedCall] = []  # of these, those that have not left
        self._away_since: float | None = None  # of the loop's clock
        self._warned = False
        self._met = False  # it has been heard of, so that we know its time
        for call in ledger.known().out:  # made before it was shared
            call.id = self._next()
            self.note(call, Ledger.count, ())

    @property
    def asks(self) -> bool:
        """Whether a call leaves only when the store has counted it: unless that is away."""
        return self._away_since is None

    @property
    def is_away(self) -> bool:
        """Whether the store could not be reached the last time."""
        return self._away_since is not None

    @property
    def has_news(self) -> bool:
        """Whether there are notes."""
        return bool(self._notes)

    def stall(self) -> float:
        """Return the seconds for which imports wait, if the store is away."""
        if self._away_since is None:
            return 0.0
        return AGAIN if asyncio.get_running_loop().time() < self._away_since + IMPORTS_WAIT else 0.0

    def tidy(self, now: float) -> None:
        """Settle what other processes have left behind."""
        self._ledger.tidy(now, self._owner)

    def spend(self, call: CountedCall) -> None:
        """Note a call; unless the store is away, it is asked for."""
        call.id = self._next()
        self.note(call, Ledger.count, ())
        if self.asks:
            self._asked.append(call)

    def note(self, call: CountedCall, learn: Callable[..., object], what: tuple[Any, ...]) -> None:
        """Note what the ledger has learned of a call."""
        self._notes.append(_Note(call, learn, what))

    def _next(self) -> str:
        self._number += 1
        return f"{self._owner}{self._number}"

    async def exchange(self, *, last: bool) -> Verdict:
        """Write, if there are notes, else read; within `PATIENCE`, and after `AGAIN` if the store is away.

        The first time it reads, since nothing may be written before the store's time is known.
        """
        if self._away_since is not None and not last:
            await asyncio.sleep(AGAIN)
        if last and not self._notes:
            return Verdict()
        try:
            async with asyncio.timeout(PATIENCE):
                verdict = await (self._write() if self._notes and self._met else self._read())
        except Exception as error:  # noqa: BLE001  # whatever a store may raise: there are callers who wait
            return self._is_away(error)
        self._away_since = None
        return verdict

    async def _write(self) -> Verdict:
        since = self._clock.now()
        told, asked, version = len(self._notes), len(self._asked), self._next()
        held = await self._record.write(dump(self._ledger.known(), since), version, over=self._version)
        self._agree(held, since)
        if held.version != version:
            return self._take_over(held)
        self._version = version
        counted = tuple(self._asked[:asked])
        del self._notes[:told], self._asked[:asked]
        return Verdict(counted)

    async def _read(self) -> Verdict:
        since = self._clock.now()
        held = await self._record.read()
        self._agree(held, since)
        return Verdict() if held.version == self._version else self._take_over(held)

    def _agree(self, held: Held, since: float) -> None:
        """Go by the store's clock. What is known from before is turned with ours, for it went by that."""
        turned = self._clock.agree(held.now, since)
        if not self._met:
            self._met = True
            self._ledger.shift(turned)
            self._notes = [note.shifted(turned) for note in self._notes]

    def _take_over(self, held: Held) -> Verdict:
        """Let the ledger become what the store holds, and learn again what the store does not know.

        A store without the record has lost it, or forgotten: it is told again what is known here.
        """
        refused = self._undo()
        self._version = held.version
        if not held.version:
            return refused
        ours = self._ours()
        try:
            known = load(held.text, ours)
        except NO_STATE:
            self._warn("holds nothing readable of this key's quotas; that will be replaced")
            return refused
        self._ledger.become(known)
        self._learn_again(known, ours)
        self._ledger.tidy(self._clock.now(), self._owner)
        return refused

    def _learn_again(self, known: Known, ours: Mapping[str, CountedCall]) -> None:
        """Learn what the store does not know; it may have done our last write though its answer was lost.

        What was spent and had ended by that write is counted twice then, if another process has written
        since: one call of one window.
        """
        for call in known.out:
            if call.id.startswith(self._owner) and call.id not in ours:
                self._ledger.give_back(call)  # it was asked for by that write, and has not left
        for call, learn, what in self._notes:
            if learn is not Ledger.count or call not in known.out:
                learn(self._ledger, call, *what)

    def _undo(self) -> Verdict:
        """Take back the calls that were asked for."""
        asked, self._asked = self._asked, []
        for call in asked:
            self._ledger.give_back(call)
        gone = {*asked}
        self._notes = [note for note in self._notes if note.call not in gone]
        return Verdict(refused=tuple(asked))

    def _ours(self) -> dict[str, CountedCall]:
        """Return our calls that are out, or were when the store was last told, by their ids."""
        out = [call for call in self._ledger.known().out if call.id.startswith(self._owner)]
        return {call.id: call for call in [*out, *[note.call for note in self._notes]]}

    def _is_away(self, error: Exception) -> Verdict:
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            self._warn(f"is away ({type(error).__name__}); live calls go on, and may be refused")
        del self._notes[:-MOST_NOTES]
        return self._undo()

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the store of quotas %s", what, extra={"omi_ledger": "store"})
