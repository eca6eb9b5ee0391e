"""How far a list shows an account: the wall of its pages, and the budget of its readers.

Two limits of the backend make that a memory may be stored and yet not listed. A page must end within the
first 5,000 memories. And each call may read 25,000 documents: those of deleted memories count, and a list by
category reads all of them again for every 500 memories that it looks at, the newest first. What the budget
does not reach is left out, and a header says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from omi_async.constants import PAGE_LIMIT
from omi_async.local.messages import Headers, Refusal
from omi_async.local.store import Memories, Row

__all__ = ["TRUNCATED", "ListLimits"]

TRUNCATED: Final[Headers] = (("X-Omi-List-Truncated", "true"),)

_LOOKED_AT: Final = 500
"""Memories that a list by category looks at between two readings of the whole account."""

_FARTHEST: Final = 2**62
"""An offset that SQLite can still take."""


@attrs.frozen
class ListLimits:
    """The limits of the lists of a server.

    Attributes:
        window: a page must not reach beyond so many memories; None for no wall.
        budget: documents that one call may read; None for any number.
    """

    window: int | None = 5000
    budget: int | None = 25_000

    def page(
        self, memories: Memories, limit: int, offset: int, categories: Sequence[str], until: float | None
    ) -> tuple[list[Row], bool]:
        """Return a page, and whether the budget left something out. Raises `Refusal` (413)."""
        limit, offset = max(1, min(limit, PAGE_LIMIT)), max(0, min(offset, _FARTHEST))
        if not categories and self.window is not None and offset + limit > self.window:
            raise Refusal.because(413, "Memory pagination window exceeded")
        documents = memories.documents()
        readings = self.budget // documents if self.budget is not None and documents else 1
        # One reading of the account is more than the budget: then the backend lists nothing, without an
        # error.
        if readings == 0:
            return [], True
        if not categories or self.budget is None:
            rows = memories.page(limit=limit, offset=offset, categories=categories, until=until)
            return rows, False
        within = readings * _LOOKED_AT
        # Within the newest ones: what lies beyond them is left out even if the page has room for it.
        rows = memories.page(limit=limit, offset=offset, categories=categories, until=until, within=within)
        return rows, len(rows) < limit and within < documents
