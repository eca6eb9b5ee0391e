"""The facts that every contestant sends.

They read like memories: one sentence of 60 to 110 characters, a category, one or two tags; one in five is not
ASCII. Each text carries the serial number of its batch, six digits wide. So no two texts of an import are
equal, and the canned server can put the texts that were sent into an answer that was made beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.running import positive

__all__ = ["BATCH", "Fact", "batches_of", "make_batch", "make_facts", "whole_batches"]

BATCH = 25

Fact = dict[str, Any]

_SENTENCES = (
    "Prefers the window seat on long train rides and books it weeks ahead",
    "Works as a structural engineer for bridges, mostly from a small office at home",
    "Is allergic to walnuts and asks about them in every restaurant",
    "Trinkt morgens grünen Tee, nie Kaffee, und liest dabei die Zeitung von gestern 🍵",
    "Plays the cello on Thursday evenings in an amateur quartet that rehearses in the old school",
)
_CATEGORIES = ("interesting", "system", "manual")
_TAGS = (["travel"], ["work", "engineering"], ["health", "food"], ["habits"], ["music"])


def make_batch(serial: str) -> list[Fact]:
    """Make the facts of one batch; `serial` has six characters."""
    return [
        {
            "content": f"{_SENTENCES[place % len(_SENTENCES)]} (note {serial}-{place:02})",
            "category": _CATEGORIES[place % len(_CATEGORIES)],
            "tags": _TAGS[place % len(_TAGS)],
        }
        for place in range(BATCH)
    ]


def make_facts(count: int, first_batch: int = 0) -> Iterator[Fact]:
    """Yield facts, all with different texts."""
    serials = (f"{number:06}" for number in itertools.count(first_batch))
    return itertools.islice(itertools.chain.from_iterable(map(make_batch, serials)), count)


def batches_of(facts: list[Fact]) -> Iterable[list[Fact]]:
    """Cut a list into batches, as one does by hand."""
    return (facts[start : start + BATCH] for start in range(0, len(facts), BATCH))


def whole_batches(text: str) -> int:
    """Read a number of facts from the command line, rounded up to whole batches."""
    return -(-positive(text) // BATCH) * BATCH
