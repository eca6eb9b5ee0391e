"""A fact on its way through an import."""

from __future__ import annotations

import attrs

from omi_async.errors import OmiError
from omi_async.importing.outcomes import State
from omi_async.models import Fact

__all__ = ["Item", "Verdict"]


@attrs.define(eq=False)
class Item:
    """A pulled fact that has no state yet.

    Attributes:
        tries: calls that carried it and may have stored it.
        writes_before: calls that had been carried out when the first of its own failed.
        doubt: the error of the last of them, while it is open whether it did.
        altered: an answer held a text that nobody sent; this fact may stand there in other words.
        place: where it stands in the journal, once it does.
        first_sent: when an earlier run was about to send it for the first time, in epoch seconds.
    """

    index: int
    fact: Fact
    tries: int = 0
    writes_before: int = 0
    doubt: OmiError | None = None
    altered: bool = False
    place: int | None = None
    first_sent: float | None = None


@attrs.define(eq=False)  # making a frozen one takes three times as long
class Verdict:
    """What became of an item."""

    item: Item
    state: State
    memory_id: str | None = None
    error: OmiError | None = None
