"""A fact on its way through an import."""

from __future__ import annotations

import attrs

from omi_async.errors import OmiError
from omi_async.importing.outcomes import State
from omi_async.models import Checked, Fact, fact_of

__all__ = ["Item", "Verdict"]


class Item:
    """A pulled fact that has no state yet: its checked fields, and what its calls have said.

    Args:
        index: its place among those pulled.
        fields: what is sent of it.
        given: the `Fact` that was given, where it was one.

    Attributes:
        tries: calls that carried it and may have stored it.
        writes_before: calls that had been carried out when the first of its own failed.
        doubt: the error of the last of them, while it is open whether it did.
        altered: an answer held a text that nobody sent; this fact may stand there in other words.
        place: where it stands in the journal, once it does.
        first_sent: when an earlier run was about to send it for the first time, in epoch seconds.
    """

    __slots__ = (
        "_given",
        "altered",
        "category",
        "content",
        "doubt",
        "first_sent",
        "index",
        "place",
        "tags",
        "tries",
        "visibility",
        "writes_before",
    )

    def __init__(self, index: int, fields: Checked, given: Fact | None = None) -> None:
        self.index = index
        self.content, self.category, self.visibility, self.tags = fields
        self._given = given
        self.tries = 0
        self.writes_before = 0
        self.doubt: OmiError | None = None
        self.altered = False
        self.place: int | None = None
        self.first_sent: float | None = None

    @property
    def fact(self) -> Fact:
        """The fact that was given, or the one that it amounts to, made when somebody asks for it."""
        if self._given is None:
            self._given = fact_of((self.content, self.category, self.visibility, self.tags))
        return self._given


@attrs.define(eq=False)  # making a frozen one takes three times as long
class Verdict:
    """What became of an item."""

    item: Item
    state: State
    memory_id: str | None = None
    error: OmiError | None = None
