"""What a journal notes of a fact, one letter of state, and what it tells of it later."""

from __future__ import annotations

from typing import Any, Final

import attrs

from omi_async.importing.items import Item
from omi_async.importing.journal_rows import ROW, Row
from omi_async.importing.outcomes import State

__all__ = [
    "IN_DOUBT",
    "LETTERS",
    "SENDING",
    "STATES",
    "STORED",
    "Entry",
    "Recalled",
    "letter_of",
    "recalled",
]

SENDING: Final = "s"
LETTERS: Final[dict[State, str]] = {
    "created": "c",
    "existing": "e",
    "rejected": "r",
    "unknown": "u",
    "invalid": "i",
    "not_sent": "n",
}
STATES: Final[dict[str, State]] = {letter: state for state, letter in LETTERS.items()}
STORED: Final = frozenset("ce")
SETTLED: Final = frozenset("cer")
ALTERED: Final = "a"  # unknown, and perhaps stored in other words
IN_DOUBT: Final = frozenset("sua")


@attrs.frozen
class Recalled:
    """What the journal knows of a fact from an earlier run.

    Attributes:
        place: where it stands in the journal.
        state: what became of it; None where it was not sent, or is in doubt.
        in_doubt: a call carried it and nobody knows whether it was stored.
        altered: it may stand at the server in other words, so that its absence proves nothing.
        memory_id: the id of its memory, where one is known.
        words: why it was rejected.
        fact: what was sent of it, where that is kept: of one that is not safely stored, unless `texts=False`.
        sent_at: when it was about to be sent for the first time, in epoch seconds.
    """

    place: int
    state: State | None
    in_doubt: bool
    altered: bool
    memory_id: str | None
    words: str | None
    fact: dict[str, Any] | None
    sent_at: float


@attrs.frozen
class Entry:
    """A fact that is not safely stored, as `Journal.unfinished` tells it. Without texts, `fact` is None."""

    server: str
    state: State
    fact: dict[str, Any] | None
    error: str | None


def recalled(place: int, row: Row) -> Recalled:
    """Read from a row what is known of the fact at a place."""
    at = place % ROW
    letter = row.states[at]
    state = STATES[letter] if letter in SETTLED else None
    return Recalled(
        place=place,
        state=state,
        in_doubt=letter in IN_DOUBT,
        altered=letter == ALTERED,
        memory_id=row.ids[at],
        words=row.errors.get(str(at)),
        fact=row.facts.get(str(at)),
        sent_at=row.sent_at,
    )


def letter_of(item: Item) -> str:
    """Return the letter for what became of an item."""
    return ALTERED if item.state == "unknown" and item.altered else LETTERS[item.state]
