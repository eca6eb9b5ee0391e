"""The same fact with other tags.

A server that holds a text already gives back its memory as it is: the tags that the fact brought are dropped
without a word. By default an import says of how many facts that is true. With ``on_existing="add-tags"`` it
adds the tags, by a call for each memory that replaces its tags by the union of both: its own come first, and
none of them is lost, as far as they are known. So a wish for tags waits until they are::

    answer, look, the list read first     the memory and its tags are shown ──────> ready ──> update
    existing, by an earlier run's word    the memory is known, its tags are not ─┐    ^
    duplicate                             it is the memory of the first fact ────┴─> sought
                                                   known by an answer meanwhile, or read from the list

What is ready is done between the batches while the window of such calls is open, and everything at the end.
The facts have their state before: a call that fails costs the tags and nothing else. Nothing of it is
written into the journal. A run that was cut short is run again, and then compares what the journal calls
existing with the list; so does one that is told to add the tags only after the report of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from omi_async._api import endpoints
from omi_async._api.messages import ListedMemory
from omi_async._api.paging import Paginator
from omi_async.constants import PAGE_LIMIT
from omi_async.errors import (
    AuthenticationError,
    OmiError,
    PermissionDeniedError,
    ResponseFormatError,
    ServerError,
    TransportError,
)
from omi_async.importing.calls import Calls, WindowShut
from omi_async.importing.item import Item
from omi_async.importing.report import ImportReport
from omi_async.importing.waiting import WaitBudget

__all__ = ["Tags", "shown_tags"]

MOST_WISHES: Final = 10_000
"""Texts whose tags may wait before nothing more is pulled. The service takes 120 such calls an hour, and 375
facts in batches: with a few, the batches would wait for tags; without a bound, memory would grow."""

MOST_KNOWN: Final = 10_000
"""Texts whose memories are remembered, for duplicates that come soon after: those further back are read from
the list, which shows no memory in its first seconds."""

FAILURES_IN_A_ROW: Final = 3
"""Memories in a row whose change the server has failed at, each several times, after which no other is tried:
each costs a minute of pauses and calls of a quota, and the facts themselves are safe."""


def shown_tags(value: object) -> tuple[str, ...] | None:
    """Return the tags of a memory that the list shows; None if they cannot be told, and must not be replaced.

    A memory that says nothing of tags has none (the official document's default).
    """
    if value is None:
        return ()
    if isinstance(value, list) and all(type(tag) is str for tag in value):
        return tuple(value)
    return None


@attrs.define(eq=False)
class _Wish:
    """The tags that facts of one text bring.

    Attributes:
        wanted: the tags of each of the facts.
        memory_id: the memory of that text; None if it is not known.
        has: the tags that it has; None if they are not known.
    """

    wanted: list[tuple[str, ...]]
    memory_id: str | None = None
    has: tuple[str, ...] | None = None

    def add(self, other: _Wish) -> None:
        """Take in another wish for the same text."""
        self.wanted += other.wanted
        self.memory_id = self.memory_id or other.memory_id
        self.has = other.has if self.has is None else _union(self.has, other.has or ())

    def lacking(self, has: Iterable[str]) -> list[tuple[str, ...]]:
        """Return what is wanted by those facts that bring something new."""
        has = {*has}
        return [tags for tags in self.wanted if not has.issuperset(tags)]


_Wishes = dict[str, _Wish]  # by text


class Tags:
    """Counts the facts whose memories lack some of their tags, or adds those.

    Args:
        add: whether to add them.
        calls: makes the calls.
        budget: counts the waits for quotas, once there is nothing else to wait for.
        report: gets to know what was kept, added and could not be added.
    """

    def __init__(self, *, add: bool, calls: Calls, budget: WaitBudget, report: ImportReport) -> None:
        self.add = add
        self._calls = calls
        self._budget = budget
        self._report = report
        self._ready: _Wishes = {}
        self._sought: _Wishes = {}
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}  # id and tags, by text
        self._known_before: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._at_work = asyncio.Lock()  # two updates of one memory at a time would undo each other
        self._failures = 0  # in a row
        self._gave_up: OmiError | None = None

    # What comes

    def compare(self, items: Sequence[Item], memories: Iterable[Mapping[str, Any]]) -> None:
        """Take settled facts and the memories that an answer names for them."""
        if not self.add:
            items = [item for item in items if item.state == "existing" and item.payload["tags"]]
            if not items:
                return
        shown = {memory.get("id"): memory for memory in memories if isinstance(memory, dict)}
        for item in items:
            memory = shown.get(item.memory_id, {})
            # An answer may leave fields out that the list shows.
            self.compare_one(item, shown_tags(memory["tags"]) if "tags" in memory else None)

    def compare_one(self, item: Item, has: tuple[str, ...] | None) -> None:
        """Take a fact that has a memory, and the tags of that; None if they are not shown."""
        tags = item.payload["tags"]
        if not self.add:
            self._report.other_tags += (
                item.state == "existing" and has is not None and not {*has}.issuperset(tags)
            )
            return
        if item.memory_id is None:
            return
        if has is not None:
            # An update of ours may be younger than what is shown.
            has = _union(has, self._recall(item.content, item.memory_id))
            self._remember(item.content, item.memory_id, has)
        wish = _Wish([tags], item.memory_id, has)
        if wish.lacking(has or ()):
            _put(self._sought if has is None else self._ready, item.content, wish)

    def settled_without_call(self, items: Iterable[Item]) -> None:
        """Take facts that were settled on their way in: of which nothing shows what their memories have."""
        if not self.add:
            return
        for item in items:
            if item.state in {"existing", "duplicate"} and item.payload["tags"]:
                _put(self._sought, item.content, _Wish([item.payload["tags"]], item.memory_id))

    # What is done

    async def make_room(self) -> None:
        """Do what waits if that is too much. Raises `ImportHalted` once stopped."""
        if len(self._ready) + len(self._sought) >= MOST_WISHES:
            await self.finish()

    async def between_batches(self) -> None:
        """Do what is ready, as long as nothing has to be waited for. Raises `ImportHalted` once stopped."""
        if self._ready and not self._at_work.locked():
            async with self._at_work:
                await self._fulfil(patient=False)

    async def finish(self) -> None:
        """Do all that waits. Raises `ImportHalted` once stopped, or if it takes more than `max_wait`."""
        if not self._ready and not self._sought:
            return
        async with self._at_work:
            with self._budget.counted("update"), self._budget.counted("list"):
                await self._seek()
                await self._fulfil(patient=True)

    def close(self) -> None:
        """Count what was not done because the import ends."""
        for content, wish in self._ready.items():
            self._report.other_tags += len(wish.lacking(self._tags_of(content, wish)))

    async def _fulfil(self, *, patient: bool) -> None:
        while self._ready:
            content = next(iter(self._ready))
            wish = self._ready.pop(content)
            try:
                await self._fulfil_one(content, wish, patient=patient)
            except WindowShut:
                _put(self._ready, content, wish)
                return
            except BaseException:
                _put(self._ready, content, wish)
                raise

    async def _fulfil_one(self, content: str, wish: _Wish, *, patient: bool) -> None:
        has = self._tags_of(content, wish)
        lacking = wish.lacking(has)
        if not lacking or wish.memory_id is None:
            return
        tags = _union(has, *lacking)
        error = self._gave_up or await self._update(wish.memory_id, tags, patient=patient)
        if error is None:
            self._report.tags_added += len(lacking)
        else:
            self._keep(lacking, error)
        # Also if it failed: it may have been applied all the same, and the next update must not undo it.
        self._remember(content, wish.memory_id, tags)

    async def _update(self, memory_id: str, tags: tuple[str, ...], *, patient: bool) -> OmiError | None:
        """Give a memory these tags; return why that failed, if it did."""
        error: OmiError | None = None
        try:
            has = await self._calls.make("update", endpoints.set_tags(memory_id, tags), patient=patient)
        except ValueError as unusable_id:
            return OmiError(str(unusable_id))
        except OmiError as failure:
            error = failure
        else:
            if not {*has}.issuperset(tags):
                error = ResponseFormatError(
                    "the server says yes, and has left the memory's tags as they were"
                )
        troubled = isinstance(error, ServerError | TransportError | ResponseFormatError)
        self._failures = self._failures + 1 if troubled else 0
        refused = isinstance(error, AuthenticationError | PermissionDeniedError)
        if refused or self._failures >= FAILURES_IN_A_ROW or self._calls.server_is_down:
            self._gave_up = error
        return error

    def _keep(self, lacking: list[tuple[str, ...]], error: OmiError) -> None:
        """Leave memories as they are."""
        self._report.other_tags += len(lacking)
        self._report.tags_error = self._report.tags_error or error

    async def _seek(self) -> None:
        """Make ready what is sought: by what is known meanwhile, or else by reading the list."""
        sought, self._sought = self._sought, {}
        for content in [*sought]:
            if (known := self._known.get(content) or self._known_before.get(content)) is not None:
                wish = sought.pop(content)
                wish.add(_Wish([], *known))
                _put(self._ready, content, wish)
        try:
            error = await self._read_list(sought)
        except BaseException:
            for content, wish in sought.items():
                _put(self._sought, content, wish)
            raise
        for wish in sought.values():
            self._keep(wish.wanted, error)

    async def _read_list(self, sought: _Wishes) -> OmiError:
        """Move wishes whose memories the list shows to those that are ready; return why the others stay."""
        by_id = {wish.memory_id: content for content, wish in sought.items() if wish.memory_id is not None}
        reading = Paginator[ListedMemory](endpoints.list_for_import, PAGE_LIMIT)
        try:
            while sought and (request := reading.next_request()) is not None:
                for memory in reading.take(await self._calls.make("list", request)):
                    content = by_id.get(memory.id) or memory.content.strip()
                    has = shown_tags(memory.tags)
                    # Of a text that an earlier run has found, only that memory counts.
                    if (
                        has is not None
                        and content in sought
                        and sought[content].memory_id in {None, memory.id}
                    ):
                        wish = sought.pop(content)
                        wish.memory_id, wish.has = memory.id, has
                        _put(self._ready, content, wish)
        except OmiError as error:
            return error
        return OmiError("the server's list does not show what tags their memories have")

    # What is known

    def _tags_of(self, content: str, wish: _Wish) -> tuple[str, ...]:
        """Return the tags of a wish's memory, as far as they are known by now."""
        return _union(wish.has or (), self._recall(content, wish.memory_id))

    def _recall(self, content: str, memory_id: str | None) -> tuple[str, ...]:
        """Return the tags that a memory of this text is known to have."""
        known = self._known.get(content) or self._known_before.get(content)
        return known[1] if known is not None and known[0] == memory_id else ()

    def _remember(self, content: str, memory_id: str, tags: tuple[str, ...]) -> None:
        if len(self._known) >= MOST_KNOWN // 2:
            self._known_before, self._known = self._known, {}
        self._known[content] = memory_id, tags


def _put(wishes: _Wishes, content: str, wish: _Wish) -> None:
    if content in wishes:
        wishes[content].add(wish)
    else:
        wishes[content] = wish


def _union(has: Iterable[str], *others: Iterable[str]) -> tuple[str, ...]:
    """Return all tags once, in their order."""
    return tuple(dict.fromkeys([*has, *(tag for tags in others for tag in tags)]))
