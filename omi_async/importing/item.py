"""A fact on its way through an import."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from omi_async.errors import OmiError
from omi_async.fact import Fact, Payload, fact_of
from omi_async.importing.report import State

__all__ = ["KEY_BYTES", "Item", "content_key"]


class Item:
    """A pulled fact: what is sent of it, what its calls have said, and in the end what became of it.

    Args:
        index: its place among those pulled.
        payload: what is sent of it.
        given: what was given.

    Attributes:
        content: its text.
        tries: calls that carried it and may have stored it.
        writes_before: calls that had been carried out when the first of its own failed.
        doubt: the error of the last of them, while it is open whether it did.
        altered: an answer held a text that nobody sent; this fact may stand there in other words.
        place: where it stands in the journal, once it does.
        first_sent: when an earlier run was about to send it for the first time, in epoch seconds.
        state: the one that it has in the end; until then it has no such attribute.
        memory_id: the memory that holds it, where that is known.
        error: why it failed, where it did.
    """

    __slots__ = (
        "_given",
        "content",
        "error",
        "first_sent",
        "index",
        "maybe_reworded",
        "memory_id",
        "payload",
        "place",
        "state",
        "tries",
        "unknown_because",
        "writes_before",
    )

    def __init__(self, index: int, payload: Payload, given: object = None) -> None:
        self.index = index
        self.payload = payload
        self.content = payload["content"]
        self._given = given
        self.tries = 0
        self.writes_before = 0
        self.unknown_because: OmiError | None = None
        self.maybe_reworded = False
        self.place: int | None = None
        self.first_sent: float | None = None
        self.state: State
        self.memory_id: str | None = None
        self.error: OmiError | None = None

    def become(self, state: State, memory_id: str | None = None, error: OmiError | None = None) -> Item:
        """Take its state, and return itself; the account is still to be told."""
        self.state, self.memory_id, self.error = state, memory_id, error
        return self

    @property
    def fact(self) -> Fact:
        """The fact that was given, or the one that it amounts to, made when somebody asks for it."""
        if not isinstance(self._given, Fact):
            self._given = fact_of(self.payload)
        return self._given


KEY_BYTES = 16


_BLANK: Final = blake2b(digest_size=KEY_BYTES)  # a copy is made in half the time that a new one takes


def content_key(content: str) -> bytes:
    """Return the 16 bytes that stand for a stripped text: equal texts, and only they, have equal keys.

    Case-sensitive and without Unicode normalisation, as the server compares.
    """
    hashed = _BLANK.copy()
    hashed.update(content.encode())
    return hashed.digest()
