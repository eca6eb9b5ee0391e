"""What you get: a memory as the server holds it, or as its search finds it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import attrs

__all__ = ["FoundMemory", "Memory", "zulu"]


@attrs.frozen(kw_only=True)
class Memory:
    """A memory as the server holds it.

    The server owns its vocabulary: `category` and `visibility` are whatever word it says, known or not.

    Attributes:
        id: an opaque string; often a UUID, sometimes ``mem_...``.
        content: the text; a locked memory of a free plan is cut to 70 characters and ``...``.
        created_at: with its time zone, or None.
        updated_at: with its time zone, or None.
        scoring: the server's sorting string, if it gives one.
        user_review: what the user said of it, or None.
    """

    id: str
    content: str = ""
    category: str = "interesting"
    visibility: str = "private"
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None
    manually_added: bool = False
    scoring: str | None = None
    reviewed: bool = False
    user_review: bool | None = None
    edited: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it, and as the service shows it: dates in ISO 8601 with Z."""
        fields = attrs.asdict(self, recurse=False)
        return fields | {
            "tags": [*self.tags],
            "created_at": zulu(self.created_at),
            "updated_at": zulu(self.updated_at),
        }


@attrs.frozen(kw_only=True)
class FoundMemory:
    """A memory as the server's search finds it, which shows less of it than the list does.

    Attributes:
        id: as in `Memory`.
        content: as in `Memory`.
        category: the server says ``interesting`` of every memory that it finds, whatever the list says.
        relevance_score: the higher, the better it fits.
    """

    id: str
    content: str = ""
    category: str = "interesting"
    relevance_score: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it."""
        return attrs.asdict(self)


def zulu(moment: datetime | None) -> str | None:
    """Write a moment in ISO 8601 with Z; a naive one is taken for UTC, as the service's are."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    with contextlib.suppress(OverflowError):  # at either end of time, the offset stays as it is
        moment = moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")
