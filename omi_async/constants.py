"""What is known of the API in numbers and words."""

from __future__ import annotations

from typing import Final

BASE_URL: Final = "https://api.omi.me"
"""The official service (docs.omi.me)."""

BATCH_SIZE: Final = 25
"""Memories in one batch call, at most (documented)."""

CONTENT_LENGTH: Final = 500
"""Code points in the text of one memory, at most (documented)."""

PAGE_LIMIT: Final = 1000
"""Memories in one page of the list, at most; the server silently clamps a larger number (backend)."""

SEARCH_LIMIT: Final = 100
"""Memories that a search gives, at most (official document); the newest code gives 20 (backend)."""

LIST_WINDOW: Final = 5000
"""How far the list is shown: offset + limit, at most (backend); 413 beyond."""

CATEGORIES: Final = (
    "interesting",
    "system",
    "manual",
    "workflow",
    "core",
    "hobbies",
    "lifestyle",
    "interests",
    "habits",
    "work",
    "skills",
    "learnings",
    "other",
    "auto",
)
"""The server's words (its official document). It owns them: others are data, and no error."""

MAX_RESPONSE: Final = 32 * 2**20
"""Bytes of one answer after decompression, at most: a page of 1,000 memories, all escapes, with room."""

LONGEST_ID: Final = 512
"""Characters of an id, at most; the service's have some 40. Each goes into reports and journals."""

VISIBILITIES: Final = ("private", "public")

PRE_WORK_503: Final = frozenset({"Rate limiter unavailable", "Memory writes are globally paused"})
"""The `detail` of the 503 answers that the backend gives before it touches the data."""

SHORTEST_WAIT: Final = 0.05
"""Seconds waited if the server says `Retry-After: 0`."""
