"""The library's constants and the settings of its retries."""

from __future__ import annotations

from typing import Any, Final

import attrs

BASE_URL: Final = "https://api.omi.me"
"""The official service (docs.omi.me)."""

BATCH_SIZE: Final = 25
"""Memories in one batch call, at most (documented)."""

CONTENT_LENGTH: Final = 500
"""Code points in the text of one memory, at most (documented)."""

PAGE_LIMIT: Final = 1000
"""Memories in one page of the list, at most; the server silently clamps a larger wish (backend)."""

MAX_RESPONSE: Final = 32 * 2**20
"""Bytes of one answer after decompression, at most: a page of 1,000 memories, all escapes, with room."""

VISIBILITIES: Final = ("private", "public")

PRE_WORK_503: Final = frozenset({"Rate limiter unavailable", "Memory writes are globally paused"})
"""The `detail` of the 503 answers that the backend gives before it touches the data."""

SHORTEST_WAIT: Final = 0.05
"""Seconds waited where the server says `Retry-After: 0`."""


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0 or value == float("inf"):
        raise ValueError(f"Retry.{attribute.name} must be a positive number, not {value!r}")


@attrs.frozen
class Retry:
    """How often, and after which waits, a failed call is tried again.

    The n-th wait is a random number of seconds between half of and the whole of ``base * 2**n``, at most
    `cap`. Where the server names a wait (`Retry-After`), that wait is kept in full instead, whatever `cap`
    says.

    Attributes:
        attempts: calls in all, the first one included; 1 means no retry.
        base: seconds, the first wait at most.
        cap: seconds, any computed wait at most.
    """

    attempts: int = attrs.field(default=4, validator=[attrs.validators.instance_of(int), _positive])
    base: float = attrs.field(default=0.5, validator=_positive)
    cap: float = attrs.field(default=8.0, validator=_positive)
