"""Facts one by one, for workers that receive them forever and must neither lose nor double one.

A worker takes a message from a queue, stores its facts, and acknowledges the message; a queue delivers again
what was not acknowledged. So a fact may be acknowledged once it is settled, not before, and a fact that comes
again must be recognised. `FactInbox` gathers the facts of many messages into batches, and imports these one
after the other with one journal:

```text
put(fact) ───┐                               ┌─> created: acknowledge
put(fact) ───┤ gathered until there are 25,  │
put(fact) ───┴ or for `flush_after` seconds ─┼── a round: one import, with the journal ──> the next round
put(fact) ── another call for the same text waits for the next round: the journal knows it by then
```

A crash at any point leaves a fact in one of three conditions, and its redelivery ends well in each: nothing
is known of it (it is sent), it is in doubt (it is looked for), it is settled (its state is told again).

A round is an import like any other, of what is there at that moment. So there is no second way to send facts,
nothing is kept of a round once it is over, and an inbox with nothing to give has nothing to stop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import attrs

from omi_async.constants import BATCH_SIZE
from omi_async.errors import ConfigurationError, InvalidFactError, JournalError, OmiError
from omi_async.fact import AnyFact, Fact, fact_from
from omi_async.importing.concurrency import Caution
from omi_async.importing.importer import Importer
from omi_async.importing.journal.journal import Journal
from omi_async.importing.options import ImportOptions
from omi_async.importing.report import FactOutcome, ImportStoppedError
from omi_async.importing.sender import Sender
from omi_async.importing.stopping import outlast

__all__ = ["FactInbox"]

ROOM: Final = 1000
"""Facts that may wait to be settled. Forty batches keep any number of parallel calls busy; more would only be
lost work when the worker is killed, since none of them is acknowledged yet."""


@attrs.define(eq=False)
class _Letter:
    """A fact in the inbox, until it is settled."""

    index: int
    fact: Fact
    came_at: float
    redelivered: bool
    future: asyncio.Future[FactOutcome]  # done when it is settled, or was taken back

    def settle(self, outcome: FactOutcome) -> None:
        if not self.future.done():
            self.future.set_result(attrs.evolve(outcome, index=self.index))

    def fail(self, error: OmiError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def give_up(self) -> None:
        error = OmiError("not sent: the inbox was stopped first")
        self.settle(FactOutcome(self.index, self.fact, "not_sent", error=error, origin=self.fact.origin))


class FactInbox:
    """An inbox for facts that come one by one; made by `Memories.inbox`, which explains the arguments.

    ```python
    async with session.memories.inbox(journal="inbox.journal") as inbox, asyncio.TaskGroup() as tasks:

        async def take(message):
            outcome = await inbox.put(message.text)
            if outcome.state not in {"unknown", "not_sent"}:  # those are to come again
                await message.acknowledge()

        async for message in queue:
            tasks.create_task(take(message))
    ```

    A task for each message, since a `put` may wait for `flush_after`: the more wait together, the fuller are
    the batches. A queue that hands out at most some hundred unacknowledged messages bounds the tasks.

    Leaving the block waits until all facts are settled. If it is left by an exception, or was stopped, only
    calls that are on the wire are waited for, for `drain_timeout`; the other facts are `not_sent`.
    """

    def __init__(
        self,
        sender: Sender,
        options: ImportOptions,
        caution: Caution,
        *,
        flush_after: float | None,
        remember: float | None,
    ) -> None:
        for name, seconds in (("flush_after", flush_after), ("remember", remember)):
            if seconds is not None and not seconds >= 0:
                raise ValueError(f"{name} must be a number of seconds, at least 0, not {seconds!r}")
        if not isinstance(options.journal, Journal):  # it must forget in time, which the others need not
            raise ValueError("an inbox needs a Journal: else a fact that comes again is stored again")  # noqa: TRY004  # it is a missing value
        self._sender = sender
        self._options = options
        self._caution = caution
        self._journal = options.journal
        self._journal.remember = remember
        self._flush_after = flush_after
        self._letters: list[_Letter] = []
        self._room = asyncio.Semaphore(ROOM)
        self._changed = asyncio.Event()
        self._round: Importer | None = None
        self._count = 0
        self._draining = False
        self._stopped = False
        self._opened = False
        self._postman: asyncio.Task[None] | None = None

    # What a user sees

    async def put(self, fact: AnyFact, *, redelivered: bool = False) -> FactOutcome:
        """Return what became of a fact, once it is settled.

        Whatever it is but `unknown` and `not_sent` is final, and may be acknowledged: it is on the disk. When
        cancelled, this takes the fact back, unless its round has begun.

        Args:
            fact: a `Fact`, its text or a mapping.
            redelivered: whether the fact was delivered before, perhaps to another worker, whose journal is
                another one: it is looked for before it is sent, also if this journal knows nothing of it.

        Raises:
            JournalError: the journal cannot be read or written; the fact was not sent.
            ConfigurationError: the inbox is not open, or was stopped.
        """
        return await (await self.submit(fact, redelivered=redelivered))

    async def submit(self, fact: AnyFact, *, redelivered: bool = False) -> asyncio.Future[FactOutcome]:
        """Return an awaitable of what `put` returns; only room is waited for. Arguments as for `put`."""
        self._check_open()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        index, self._count = self._count, self._count + 1
        try:
            checked = fact_from(fact)
        except InvalidFactError as error:
            future.set_result(FactOutcome(index, None, "invalid", error=error))
            return future
        await self._room.acquire()
        future.add_done_callback(lambda _future: self._room.release())
        letter = _Letter(index, checked, loop.time(), redelivered, future)
        if self._stopped:  # while this waited for room
            letter.give_up()
        else:
            self._letters.append(letter)
            self._changed.set()
        return future

    def stop(self) -> None:
        """Begin no new call; those on the wire may land within `drain_timeout`. To be called in the loop."""
        self._stopped = True
        if self._round is not None:
            self._round.stop()
        self._changed.set()

    async def __aenter__(self) -> Self:
        if self._postman is not None:
            raise ConfigurationError("an inbox is opened once; make another")
        if not self._journal.is_open:
            await self._open_journal()
        self._postman = asyncio.create_task(self._deliver(), name="omi_async inbox")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        postman = self._postman
        assert postman is not None  # noqa: S101  # it was entered
        self._draining = True
        self._changed.set()
        if kind is not None:
            self.stop()
        try:
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                await asyncio.wait({postman})
        except asyncio.CancelledError:
            self.stop()
            raise
        finally:
            await outlast(postman, impatient=postman.cancel)
            if self._opened:
                self._journal.close()
        if not postman.cancelled():
            postman.result()

    # The rounds

    async def _deliver(self) -> None:
        """Import round after round, until the inbox is left or stopped."""
        try:
            while letters := await self._next_round():
                await self._import(letters)
        finally:
            self._stopped = True
            for letter in self._letters:
                letter.give_up()

    async def _next_round(self) -> list[_Letter]:
        """Wait for a full batch, or until the oldest fact has waited long enough; [] is the end."""
        while not self._stopped:
            self._letters = [letter for letter in self._letters if not letter.future.done()]  # taken back
            patience = self._patience()
            if letters := self._take(partial=patience == 0):
                return letters
            if self._draining and not self._letters:
                break
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._changed.wait()
        return []

    def _patience(self) -> float | None:
        """Return the seconds that a partial batch may yet wait; None if it may forever."""
        if self._draining:
            return 0
        if not self._letters or self._flush_after is None:
            return None
        return max(0, self._letters[0].came_at + self._flush_after - asyncio.get_running_loop().time())

    def _take(self, *, partial: bool) -> list[_Letter]:
        """Take the facts of the next round: full batches, or all; of equal texts, the first."""
        first = dict[str, _Letter]()
        for letter in self._letters:
            same = first.setdefault(letter.fact.content, letter)
            same.redelivered |= letter.redelivered
        letters = list(first.values())
        if not partial:
            del letters[len(letters) // BATCH_SIZE * BATCH_SIZE :]
        taken = set(letters)
        self._letters = [letter for letter in self._letters if letter not in taken]
        return letters

    async def _import(self, letters: list[_Letter]) -> None:
        self._journal.suspected = {letter.fact.content for letter in letters if letter.redelivered}
        options = attrs.evolve(
            self._options, on_outcome=lambda outcome: letters[outcome.index].settle(outcome)
        )
        self._round = Importer(self._sender, [letter.fact for letter in letters], options, self._caution)
        try:
            await self._round.run()
        except ImportStoppedError:
            pass  # each fact has its outcome; the next round may find the server or the disk in order again
        except JournalError as error:  # it could not begin
            for letter in letters:
                letter.fail(error)
        finally:
            self._round = None
            for letter in letters:
                letter.give_up()

    # Opening

    def _check_open(self) -> None:
        if self._postman is None:
            raise ConfigurationError("an inbox takes facts inside its `async with` block")
        if asyncio.get_running_loop() is not self._postman.get_loop():
            raise ConfigurationError("this inbox belongs to another event loop; make one for each loop")
        if self._stopped or self._draining:
            raise ConfigurationError("the inbox was stopped, and takes no more facts")

    async def _open_journal(self) -> None:
        """Open the journal, in a thread, since a large one takes seconds. When cancelled, close it again."""
        opening = asyncio.create_task(asyncio.to_thread(self._journal.open))
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            await outlast(opening)
            self._journal.close()
            raise
        opening.result()
        self._opened = True
