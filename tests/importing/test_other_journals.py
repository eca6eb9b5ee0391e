"""An import remembers through a protocol: the file is one that fulfils it, another store may too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from omi_async import Session
from omi_async.importing.item import Item
from omi_async.importing.journal.row import Recalled
from omi_async.local import Fault, LocalServer


class MemoryJournal:
    """Knows only which texts it has seen, and writes down what it is told, in order."""

    def __init__(self) -> None:
        self.clock_offset: float | None = None
        self.told: list[tuple[str, list[str]]] = []
        self._seen: set[str] = set()

    async def begin(self, server: str) -> None:
        self.told.append(("begin", [server]))

    async def recall(self, contents: Sequence[str], /) -> list[Recalled | Literal["seen"] | None]:
        found: list[Recalled | Literal["seen"] | None] = []
        for content in contents:
            found.append("seen" if content in self._seen else None)
            self._seen.add(content)
        return found

    async def sending(self, items: Sequence[Item], /) -> None:
        self.told.append(("sending", [item.content for item in items]))

    async def settled(self, items: Sequence[Item], /) -> None:
        self.told.append(("settled", [f"{item.content}: {item.state}" for item in items]))

    async def end(self) -> None:
        self.told.append(("end", []))


async def test_another_journal_is_told_what_is_sent_and_what_became_of_it(
    server: LocalServer, session: Session
) -> None:
    journal = MemoryJournal()
    server.faults.add(Fault.answer(422, [{"loc": ["body", "memories", 1], "msg": "no"}]), on="batch")
    report = await session.memories.import_facts(["a", "b", "a"], journal=journal)
    assert (report.created, report.rejected, report.duplicate) == (1, 1, 1)
    assert journal.told[0] == ("begin", [server.url])
    assert journal.told[-1] == ("end", [])
    assert ("sending", ["a", "b"]) in journal.told
    settled = {words for what, texts in journal.told if what == "settled" for words in texts}
    assert settled >= {"a: created", "b: rejected"}
    before = [what for what, _ in journal.told]
    assert before.index("sending") < before.index("settled")
    assert journal.clock_offset is not None
