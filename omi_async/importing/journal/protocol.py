"""What an import needs of whatever remembers it: a file today, a store of several machines another day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from omi_async.importing.item import Item
from omi_async.importing.journal.row import Recalled

__all__ = ["ImportJournal"]


class ImportJournal(Protocol):
    """Remembers what was sent and what became of it. All of it raises `JournalError`.

    Attributes:
        clock_offset: seconds that the server's clock is ahead of ours; the import sets it once it knows.
    """

    clock_offset: float | None

    async def begin(self, server: str) -> None:
        """Begin an import into a server."""
        ...

    async def recall(self, contents: Sequence[str], /) -> list[Recalled | Literal["seen"] | None]:
        """Return for each text what earlier runs know, ``"seen"`` if it came in this input before, or None.

        From then on the text counts as seen.
        """
        ...

    async def sending(self, items: Sequence[Item], /) -> None:
        """Write down that a call with these items is about to leave; durable once this returns."""
        ...

    async def settled(self, items: Sequence[Item], /) -> None:
        """Write down what became of items. Those that were never about to be sent need no line."""
        ...

    async def end(self) -> None:
        """End the import. Twice is fine."""
        ...
