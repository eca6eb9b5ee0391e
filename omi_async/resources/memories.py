"""The calls on memories."""

from __future__ import annotations

import builtins
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from os import PathLike
from typing import Final

from omi_async._api import endpoints
from omi_async._api.codec import format_error
from omi_async._api.paging import Paginator
from omi_async.errors import ListLimitError
from omi_async.fact import AnyFact, Fact, checked_changes, fact_from
from omi_async.importing.concurrency import Caution
from omi_async.importing.importer import Importer
from omi_async.importing.intake import FactLike
from omi_async.importing.journal.journal import Journal
from omi_async.importing.journal.protocol import ImportJournal
from omi_async.importing.options import ImportOptions, Lanes, OnExisting, OnUnknown
from omi_async.importing.report import ImportReport
from omi_async.importing.sender import Sender
from omi_async.importing.tracker import OnOutcome, OnProgress
from omi_async.inbox import FactInbox
from omi_async.memory import FoundMemory, Memory

__all__ = ["Memories"]

log: Final = logging.getLogger("omi_async")


def _log_odd(count: int) -> None:
    if count:
        log.warning(
            "%d of the memories listed are odd, and given with what can be read",
            count,
            extra={"omi_odd": count},
        )


class Memories:
    """The memories of the account: ``session.memories``.

    Besides what each method names, all raise `TransportError`, `APIError` and `ResponseFormatError` as
    `Session.send` does.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._caution = Caution()  # learned by one import, and known to the next

    def through(self, sender: Sender) -> Memories:
        """Return the same calls, made through another Sender; what is learned of the server is shared."""
        others = Memories(sender)
        others._caution = self._caution
        return others

    async def list(
        self, *, limit: int = 25, offset: int = 0, categories: str | Sequence[str] = ()
    ) -> builtins.list[Memory]:
        """Return one page of memories, in the server's order, which is not promised.

        Args:
            limit: memories at most, 1 to 1000; a page may be shorter without being the last.
            offset: memories to pass over.
            categories: only memories of these categories.

        Raises:
            ValueError: limit or offset out of range.
            InvalidRequestError: offset + limit is more than the server shows (5000, today).
            ListLimitError: the account holds so many memories that the server shows none.
            ResponseFormatError: some are no memories at all; the others are its `memories`. One that is odd
                in a field is given with that field's default.
        """
        page = await self._sender.send(
            endpoints.list_memories(limit=limit, offset=offset, categories=categories)
        )
        if page.truncated and not page.memories:
            raise ListLimitError("the server shows nothing of this list: to read it takes it too long")
        if page.unreadable:
            raise format_error(f"{page.unreadable} of the memories listed", page.problems, page.memories)
        _log_odd(len(page.odd))
        return page.memories

    async def iterate(
        self, *, page_size: int = 100, categories: str | Sequence[str] = ()
    ) -> AsyncIterator[Memory]:
        """Yield every memory once, page by page, however the pages shift meanwhile.

        Memories may be deleted while iterating: what that moved between two pages is found by reading again.
        The server shows a list only so far (5,000 memories, today); what lies beyond is read category by
        category. A memory that is odd in a field is given with that field's default, and counted in the log.

        Args:
            page_size: memories in a call, 1 to 1000.
            categories: only memories of these categories.

        Raises:
            ValueError: page_size out of range.
            ListLimitError: at the end, when all that the server shows was yielded, and there may be more.
            ResponseFormatError: at the end, if some were no memories at all; or the list does not end.
        """
        paginator = Paginator(endpoints.list_memories, page_size, categories)
        problems: builtins.list[str] = []
        try:
            while (request := paginator.next_request()) is not None:
                page = await self._sender.send(request)
                if page.unreadable:
                    problems += page.problems
                for memory in paginator.take(page):
                    yield memory
        finally:
            _log_odd(paginator.odd)
        if paginator.unreadable:
            raise format_error(f"{paginator.unreadable} of the memories listed", problems)

    async def search(self, query: str, /, *, limit: int = 10) -> builtins.list[FoundMemory]:
        """Return the memories that fit a query best, by their meaning, the best one first.

        The server looks only through memories that it has processed: one that was just created is found after
        an hour or so.

        Args:
            query: what to look for, in any words.
            limit: memories at most, 1 to 100; newer servers give no more than 20.

        Raises:
            ValueError: an empty query, or limit out of range.
        """
        page = await self._sender.send(endpoints.search_memories(query, limit=limit))
        if page.unreadable:
            raise format_error(f"{page.unreadable} of the memories found", page.problems)
        _log_odd(len(page.odd))
        return page.memories

    async def create(
        self,
        fact: Fact | str,
        /,
        *,
        category: str | None = None,
        visibility: str = "private",
        tags: Iterable[str] = (),
    ) -> Memory:
        """Store one memory and return it.

        The newest servers know a memory by its text: the same text again returns the memory that is there,
        unchanged. A call whose answer is lost is not repeated; the error's `maybe_applied` says that the
        memory may exist.

        Args:
            fact: the text, or a whole `Fact`, which then brings the rest itself.
            category: see `Fact`.
            visibility: see `Fact`.
            tags: see `Fact`.

        Raises:
            InvalidFactError: (a ValueError) the text is empty or too long, ...
        """
        if isinstance(fact, str):
            fact = Fact(fact, category=category, visibility=visibility, tags=tags)
        elif category is not None or visibility != "private" or tags:
            raise ValueError("a Fact brings its own category, visibility and tags; give them there")
        return await self._sender.send(endpoints.create_memory(fact_from(fact)))

    async def create_batch(self, facts: Iterable[AnyFact], /) -> builtins.list[Memory]:
        """Store at most 25 memories in one call and return what the server returned.

        The call is all or nothing only in its validation: when it fails with a `ServerError`, some may be
        stored. `import_facts` takes any number and accounts for each.

        Raises:
            ValueError: more than 25 facts, or one that is none (`InvalidFactError`); nothing was sent.
        """
        batch = [fact_from(item) for item in facts]
        if not batch:
            return []
        return await self._sender.send(endpoints.create_batch(batch))

    async def update(
        self,
        memory_id: str,
        /,
        *,
        content: str | None = None,
        visibility: str | None = None,
        category: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Memory:
        """Change a memory and return it. None leaves a field alone; `tags` replaces the whole list.

        Raises:
            ValueError: nothing to change, an invalid value (`InvalidFactError`), or an unusable id.
            NotFoundError: there is no such memory.
        """
        changes = checked_changes(content=content, visibility=visibility, category=category, tags=tags)
        return await self._sender.send(endpoints.update_memory(memory_id, changes))

    async def delete(self, memory_id: str, /) -> None:
        """Delete a memory, permanently.

        Raises:
            ValueError: an unusable id.
            NotFoundError: there is no such memory, and no earlier attempt of this call can have deleted it.
        """
        await self._sender.send(endpoints.delete_memory(memory_id))

    async def import_facts(
        self,
        facts: Iterable[FactLike] | AsyncIterable[FactLike],
        /,
        *,
        concurrency: int = 4,
        journal: str | PathLike[str] | ImportJournal | None = None,
        dedupe: bool = True,
        skip_existing: bool = False,
        on_existing: OnExisting = "keep",
        on_unknown: OnUnknown = "reconcile",
        max_wait: float | None = None,
        lanes: Lanes = "batch",
        flush_after: float | None = None,
        drain_timeout: float = 30.0,
        on_outcome: OnOutcome | None = None,
        on_progress: OnProgress | None = None,
    ) -> ImportReport:
        """Import any number of facts, in batches of 25, and account for each of them.

        They are pulled as they are needed, at most ``(concurrency + 1) * 25`` ahead. A bad one costs none of
        the others, a 429 is waited out, and a call whose answer is lost is never blindly repeated.

        Args:
            facts: any iterable or async iterable of `Fact`, text or mapping (``{"content": ...}``).
            concurrency: calls on the wire at the same time, at most. The Session's `connections` (8 unless
                given) bound them too.
            journal: a path or a `Journal`: what was sent and what became of it is written there, so that the
                same import can be run again after a crash or a stop, and goes on where it was.
            dedupe: send equal texts once; the others are `duplicate`. Takes some 120 bytes a fact, with a
                journal some 13.
            skip_existing: read the account's whole list first, and send nothing that it holds already. If the
                list is longer than the server shows, the import stops (`ListLimitError`) and nothing is sent.
            on_existing: what to do about the tags of facts whose memories are there already. ``"keep"``: the
                memories keep theirs, and `ImportReport.other_tags` counts the facts that brought others.
                ``"add-tags"``: each such memory gets the union of both, by an update, which spends the quota
                of your other writes; so do the memories of a `duplicate`. A run that ended before that, or
                that kept them, is run again for it with the same journal.
            on_unknown: what to do about facts whose call had no usable answer. ``"reconcile"``: look for them
                in the list, and send again what is certainly absent. ``"report"``: leave them `unknown`.
                ``"resend"``: send them again without looking, which stores nothing twice only on servers that
                know a memory by its text (the newest do).
            max_wait: seconds to wait for quota windows, in all; None for any. If the next one opens later,
                the import ends at once and returns the report, with `resume_at`.
            lanes: ``"batch"``: full batches only. ``"both"``: also single facts, while the batches' window is
                shut and that ends the import sooner; they spend the quota of your other writes.
            flush_after: seconds after which a batch leaves although it is not full, counted from its oldest
                fact; for an async source that gives facts now and then. None waits until it is full.
            drain_timeout: seconds that calls on the wire have to land when the import is stopped.
            on_outcome: called exactly once for each pulled fact, whatever its state; plain or async.
            on_progress: called with the report so far after each settled batch; plain or async.

        Raises:
            ImportStoppedError: it could not go on: the key was refused, the server is down, the journal's
                disk is full, the source or a callback raised (`__cause__`). Its `report` is complete.
            JournalError: the journal cannot be opened; nothing was pulled.
        """
        return await self.importer(
            facts,
            concurrency=concurrency,
            journal=journal,
            dedupe=dedupe,
            skip_existing=skip_existing,
            on_existing=on_existing,
            on_unknown=on_unknown,
            max_wait=max_wait,
            lanes=lanes,
            flush_after=flush_after,
            drain_timeout=drain_timeout,
            on_outcome=on_outcome,
            on_progress=on_progress,
        ).run()

    def importer(
        self,
        facts: Iterable[FactLike] | AsyncIterable[FactLike],
        /,
        *,
        concurrency: int = 4,
        journal: str | PathLike[str] | ImportJournal | None = None,
        dedupe: bool = True,
        skip_existing: bool = False,
        on_existing: OnExisting = "keep",
        on_unknown: OnUnknown = "reconcile",
        max_wait: float | None = None,
        lanes: Lanes = "batch",
        flush_after: float | None = None,
        drain_timeout: float = 30.0,
        on_outcome: OnOutcome | None = None,
        on_progress: OnProgress | None = None,
    ) -> Importer:
        """Return an `Importer`, which yields the outcomes one by one; the arguments are `import_facts`'s."""
        options = ImportOptions(
            concurrency=concurrency,
            journal=journal,
            dedupe=dedupe,
            skip_existing=skip_existing,
            on_existing=on_existing,
            on_unknown=on_unknown,
            max_wait=max_wait,
            lanes=lanes,
            flush_after=flush_after,
            drain_timeout=drain_timeout,
            on_outcome=on_outcome,
            on_progress=on_progress,
        )
        return Importer(self._sender, facts, options, self._caution)

    def inbox(
        self,
        *,
        journal: str | PathLike[str] | Journal,
        flush_after: float | None = 2.0,
        remember: float | None = 86_400.0,
        concurrency: int = 4,
        on_unknown: OnUnknown = "reconcile",
        max_wait: float | None = None,
        lanes: Lanes = "batch",
        drain_timeout: float = 30.0,
    ) -> FactInbox:
        """Return a `FactInbox`, for facts that come one by one, forever.

        Args:
            journal: a path or a `Journal`, by which a fact that comes again is known. An inbox has one of its
                own, and so has each process.
            flush_after: seconds that a fact may wait for others, so that they leave in one call; None to wait
                for full batches.
            remember: seconds for which a settled fact is known. Within them the same text is not stored
                again; after them it is, as a memory that was deleted and is said again should be. They must
                be more than a queue takes to deliver again. Forever if None.
            concurrency: as for `import_facts`; so are the others.
            on_unknown: likewise.
            max_wait: likewise, for each round of facts.
            lanes: likewise.
            drain_timeout: likewise.
        """
        options = ImportOptions(
            concurrency=concurrency,
            journal=journal,
            on_unknown=on_unknown,
            max_wait=max_wait,
            lanes=lanes,
            drain_timeout=drain_timeout,
        )
        return FactInbox(self._sender, options, self._caution, flush_after=flush_after, remember=remember)
