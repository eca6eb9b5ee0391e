"""What the reader of a known format finds: a statement, or something that it leaves out on purpose."""

from __future__ import annotations

import attrs

__all__ = ["Found", "LeftOut", "Statement", "Unreadable"]


@attrs.frozen
class Statement:
    """A text that is to become a fact.

    Attributes:
        text: the text, without the marks of the system that it comes from.
        tags: what that system filed it under.
        date: when it was written down, in the file's own words; it goes into the fact's origin, because the
            server takes no date.
        line: the line that it begins on, or None for that of its record.
    """

    text: str
    tags: tuple[str, ...] = ()
    date: str | None = None
    line: int | None = None


@attrs.frozen
class LeftOut:
    """Something that is no fact, or none any more: counted by its reason, so that nothing just vanishes.

    Attributes:
        reason: one or two words for the summary, such as ``"deleted"``.
    """

    reason: str


@attrs.frozen
class Unreadable:
    """Something that should be a fact and is damaged: an invalid outcome.

    Attributes:
        why: what is wrong with it.
        line: the line that it begins on.
        text: what stands there.
    """

    why: str
    line: int
    text: str


Found = Statement | LeftOut | Unreadable
