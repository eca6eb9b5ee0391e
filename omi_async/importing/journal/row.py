"""What a journal knows of the facts of one call: a letter of state for each, and what goes with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

import attrs

from omi_async.errors import OmiError
from omi_async.importing.item import KEY_BYTES, Item
from omi_async.importing.report import State

__all__ = [
    "ALL_LETTERS",
    "IN_DOUBT",
    "NOT_SENT",
    "ROW",
    "SENDING",
    "SUSPECTED",
    "Entry",
    "Recalled",
    "Row",
    "letter_of",
    "state_of",
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
REWORDED: Final = "a"
"""Unknown, and perhaps stored in other words: a look that does not find its text proves nothing."""

IN_DOUBT: Final = frozenset("sua")
NOT_SENT: Final = LETTERS["not_sent"]
ALL_LETTERS: Final = frozenset({*STATES, *IN_DOUBT})


@attrs.frozen
class Recalled:
    """What the journal knows of a fact from an earlier run.

    Attributes:
        place: its place in the journal; None if it has none.
        state: what became of it; None if it was not sent, or is in doubt.
        in_doubt: a call carried it, and no answer told whether it was stored.
        maybe_reworded: the server may hold it in other words, so that its absence proves nothing.
        memory_id: the id of its memory, if one is known.
        words: why it was rejected.
        fact: what was sent of it; None once it is safely stored, and always with `texts=False`.
        sent_at: when it was about to be sent for the first time, in epoch seconds of the client's clock then;
            None if that is not known.
        clock_offset: seconds that the server's clock was ahead of that one; None if no answer had told.
        fingerprint: of what was sent of it, in place of `fact`, if no texts are kept.
        by_own_clock: whether `sent_at` is by this machine's clock, as it goes now. Then the offset that this
            import learns holds for it too.
    """

    place: int | None
    state: State | None
    in_doubt: bool
    maybe_reworded: bool
    memory_id: str | None
    words: str | None
    fact: dict[str, Any] | None
    sent_at: float | None
    clock_offset: float | None
    fingerprint: str | None = None
    by_own_clock: bool = False


SUSPECTED: Final = Recalled(
    place=None,
    state=None,
    in_doubt=True,
    maybe_reworded=False,
    memory_id=None,
    words=None,
    fact=None,
    sent_at=None,
    clock_offset=None,
)
"""What is known of a fact that another process may have sent, whose journal is another one."""


@attrs.frozen
class Entry:
    """A fact that is not safely stored, as `Journal.unfinished` gives it. Without texts, `fact` is None."""

    server: str
    state: State
    fact: dict[str, Any] | None
    error: str | None


def state_of(letter: str) -> State:
    """Return the state that a letter is told as: `unknown` for all that is in doubt."""
    return STATES.get(letter, "unknown")


def letter_of(item: Item) -> str:
    """Return the letter for what became of an item; one without a state is being sent."""
    if item.state is None:
        return SENDING
    return REWORDED if item.state == "unknown" and item.maybe_reworded else LETTERS[item.state]


ROW: Final = 32
"""Places reserved for the facts of a row, of which a call carries 25 at most. The row's number follows from a
place, so that the index need not keep both."""


@attrs.define(eq=False)
class Row:
    """A row in memory; its columns by fact.

    Attributes:
        facts: by the place in the row, which is a string, as JSON wants its keys.
        errors: likewise.
    """

    number: int
    server: str
    sent_at: float
    keys: bytes
    states: list[str]
    ids: list[str | None]
    facts: dict[str, Any]
    errors: dict[str, str]
    clock_offset: float | None = None
    settled_at: float | None = None

    def key(self, at: int) -> bytes:
        """Return the content key of a fact."""
        return self.keys[at * KEY_BYTES : (at + 1) * KEY_BYTES]

    def become(self, at: int, item: Item, *, texts: bool) -> None:
        """Note what a fact is by now; of one that is safely stored, the text is not needed any more."""
        letter, place = letter_of(item), str(at)
        self.states[at], self.ids[at] = letter, item.memory_id
        self.errors.pop(place, None)
        if letter in STORED:
            # It can be read at the server; a million texts would be most of the file.
            self.facts.pop(place, None)
        elif texts and letter == SENDING:
            # Also if it has one: a rejected fact comes again when its user has changed it.
            self.facts[place] = item.payload
        elif texts and item.error is not None:
            self.errors[place] = kept_words(item.error)
        if letter != SENDING:
            self.settled_at = time.time()  # one for the row: a call settles most of them at once

    def was_settled_before(self, moment: float, at: int) -> bool:
        """Return whether a fact was settled before a moment."""
        return self.settled_at is not None and self.settled_at < moment and self.states[at] not in IN_DOUBT

    def forget(self, letters: AbstractSet[str]) -> int:
        """Let the facts with these letters count as not sent; return how many there are.

        They keep their places and texts: what is not sent is still to be told by `unfinished`.
        """
        found = [at for at, letter in enumerate(self.states) if letter in letters]
        for at in found:
            self.states[at], self.ids[at] = NOT_SENT, None
            self.errors.pop(str(at), None)
        return len(found)

    def forget_settled(self) -> bool:
        """Let all but the facts in doubt count as not sent; return whether there are any in doubt."""
        self.settled_at = None  # so that the row is passed over until the last of them is settled
        self.forget(ALL_LETTERS - IN_DOUBT)
        return not IN_DOUBT.isdisjoint(self.states)

    def unfinished(self) -> Iterator[Entry]:
        """Yield the facts that are not safely stored."""
        for at, letter in enumerate(self.states):
            if letter not in STORED:
                yield Entry(self.server, state_of(letter), self.facts.get(str(at)), self.errors.get(str(at)))

    def recall(self, at: int) -> Recalled:
        """Return what is known of a fact."""
        letter, place = self.states[at], str(at)
        return Recalled(
            place=self.number * ROW + at,
            state=STATES[letter] if letter in SETTLED else None,
            in_doubt=letter in IN_DOUBT,
            maybe_reworded=letter == REWORDED,
            memory_id=self.ids[at],
            words=self.errors.get(place),
            fact=self.facts.get(place),
            sent_at=self.sent_at,
            clock_offset=self.clock_offset,
        )


LONGEST_WORDS: Final = 500
"""Characters of an error that are kept. They may be a server's, and fill a disk or a screen."""


def kept_words(error: OmiError) -> str:
    """Return what an error says in one line of bounded length, without the escapes of terminals."""
    words = str(error)
    kept = "".join(sign if sign.isprintable() or _is_half(sign) else " " for sign in words[:LONGEST_WORDS])
    return f"{kept}..." if len(words) > LONGEST_WORDS else kept


def _is_half(sign: str) -> bool:
    """Return whether it is half of a surrogate pair: a byte of a file's name that is no UTF-8."""
    return "\ud800" <= sign <= "\udfff"
