"""What you get: a memory as the server holds it."""

from __future__ import annotations

from datetime import datetime

import attrs

__all__ = ["Memory"]


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
