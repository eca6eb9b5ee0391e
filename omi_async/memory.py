"""What you get: a memory as the server holds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from itertools import repeat
from typing import Any, Final

import attrs

__all__ = ["Memory", "memories_of"]


@attrs.frozen(kw_only=True)
class Memory:
    """A memory as the server holds it.

    The server owns its vocabulary: `category` and `visibility` are whatever word it says, known or not.

    Attributes:
        id: an opaque string; often a UUID, sometimes ``mem_...``.
        content: the text; a locked memory of a free plan is cut to 70 characters and ``...``.
        created_at: with its time zone, or None.
        updated_at: with its time zone, or None.
        scoring: the server's sorting string, where it gives one.
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


_MEMORY_SETTERS: Final = [vars(Memory)[field.name].__set__ for field in attrs.fields(Memory)]


def memories_of(columns: Iterable[Iterable[Any]], count: int) -> list[Memory]:
    """Make so many memories of fields that were checked, which come as columns in the order of the class.

    As attrs would do it for a frozen class, but with the slots' own setters, in loops that run in C.
    """
    memories = list(map(object.__new__, repeat(Memory, count)))
    for set_field, column in zip(_MEMORY_SETTERS, columns, strict=True):
        deque(map(set_field, memories, column), maxlen=0)
    return memories
