"""A fact on its way through an import."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Final, NamedTuple

import attrs

from omi_async.errors import OmiError
from omi_async.fact import Fact, Payload, fact_of
from omi_async.importing.report import State

__all__ = ["KEY_BYTES", "Batch", "Held", "Item", "content_key", "fingerprint"]


class Item:
    """A pulled fact: what is sent of it, what its calls have said, and in the end what became of it.

    Args:
        index: its place among those pulled.
        payload: what is sent of it.
        source_value: what the source gave.

    Attributes:
        content: its text.
        tries: calls that carried it and may have stored it.
        alone: those of them that carried nothing else, with no other call of the import on the wire.
        stored_before: calls that had stored other facts, with no other call beside them, before the first of
            its own failed.
        unknown_because: the error of the last of its calls, while it is open whether that has stored it.
        sent_at: when the first of those calls left, by our clock, in epoch seconds.
        maybe_reworded: an answer held a text that was never sent; this fact may stand there in other words.
        others: ids of memories with its text that belong to other facts of this import.
        place: its place in the journal, once it has one.
        first_sent: when an earlier run was about to send it for the first time, in epoch seconds of that
            machine's clock.
        clock_offset: seconds that the server's clock was ahead of that one; None if no answer had told.
        by_own_clock: whether `first_sent` is by this machine's clock, as it goes now.
        state: the one that it has in the end; None until then.
        memory_id: the memory that holds it, if that is known.
        error: why it failed, if it did.
    """

    # Defaults of the class: of nearly all facts they are never set, and to set each costs what a check does.
    tries: int = 0
    alone: int = 0
    stored_before: int = 0
    unknown_because: OmiError | None = None
    sent_at: float | None = None
    maybe_reworded: bool = False
    others: set[str] | None = None
    place: int | None = None
    clock_offset: float | None = None
    by_own_clock: bool = False

    def __init__(self, index: int, payload: Payload, source_value: object = None) -> None:
        self.index = index
        self.payload = payload
        self.content = payload["content"]
        self._source_value = source_value
        # What nearly all facts are given, or are asked for, is there from the first: Python makes no room for
        # more than that, and each fact would be given a dict for one that comes later.
        self.first_sent: float | None = None
        self.state: State | None = None
        self.memory_id: str | None = None
        self.error: OmiError | None = None

    def become(self, state: State, memory_id: str | None = None, error: OmiError | None = None) -> Item:
        """Take its state, and return itself; the tracker is still to be told."""
        self.state, self.memory_id, self.error = state, memory_id, error
        return self

    def doubt(self, error: OmiError, sent_at: float) -> None:
        """Note that a call which left at that moment may have stored it."""
        self.unknown_because = error
        if self.sent_at is None:
            self.sent_at = sent_at

    @property
    def fact(self) -> Fact:
        """The fact that was given, or the one that it amounts to, made when it is asked for."""
        if not isinstance(self._source_value, Fact):
            self._source_value = fact_of(self.payload)
        return self._source_value


@attrs.define
class Batch:
    """Facts that go in one call.

    Attributes:
        items: at most 25.
        in_doubt: whether a call of an earlier run may have stored them.
        single: whether it is one fact, to go in a call of its own kind.
        alone: whether no other call of the import may be on the wire beside it, to see whose fault it is.
    """

    items: list[Item]
    in_doubt: bool = False
    single: bool = False
    alone: bool = False


class Held(NamedTuple):
    """A memory that the account holds, as the list shows it; `tags` is None if it does not tell them."""

    memory_id: str
    tags: tuple[str, ...] | None


KEY_BYTES: Final = 16
"""Bytes of a text's hash: even among a billion facts two of them are alike less often than disks fail."""

_BLANK: Final = blake2b(digest_size=KEY_BYTES)  # a copy is made in half the time that a new one takes


def content_key(content: str) -> bytes:
    """Return the 16 bytes that stand for a stripped text: equal texts, and only they, have equal keys.

    Case-sensitive and without Unicode normalisation, as the server compares.
    """
    hashed = _BLANK.copy()
    hashed.update(content.encode())
    return hashed.digest()


def fingerprint(payload: Payload) -> str:
    """Return 16 letters that stand for what is sent of a fact beside its text."""
    # Not the library's own JSON, which is written in one of two ways, with orjson or without.
    others = [payload.get("category"), payload["visibility"], *payload["tags"]]
    return blake2b(json.dumps(others).encode(), digest_size=8).hexdigest()
