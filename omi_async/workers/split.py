"""Which part of an import a fact belongs to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

from omi_async.errors import InvalidFactError
from omi_async.fact import Fact, checked
from omi_async.importing.intake import FactLike, iterator_of
from omi_async.importing.item import content_key
from omi_async.importing.report import FactOutcome

__all__ = ["of_part", "part_of"]

FOR_WHAT_IS_NO_FACT: Final = 0
"""The part of what cannot become a fact: one has to report it as invalid, and all must agree on which."""


def part_of(fact: FactLike, parts: int) -> int:
    """Return the number of the part, from 0, to which a fact belongs if an import is split into so many.

    Equal texts (stripped) belong to the same part, where they can be told to be duplicates. The number
    follows from the text alone: it is the same on each machine, in each process and for each version of
    Python. Something that cannot become a fact belongs to part 0, which reports it as invalid.

    Raises:
        ValueError: `parts` is less than 1.
    """
    if parts < 1:
        raise ValueError(f"an import has at least 1 part, not {parts!r}")
    content = _text_of(fact)
    if content is None:
        return FOR_WHAT_IS_NO_FACT
    # Not hash(), which Python salts for each process. The key's first bytes: all of its bytes are random.
    return int.from_bytes(content_key(content)[:8]) % parts


def _text_of(fact: FactLike) -> str | None:
    """Return the stripped text of a fact, as the import will read it; None for what is no fact."""
    if isinstance(fact, FactOutcome):
        return None if fact.fact is None else fact.fact.content
    if isinstance(fact, Fact):
        return fact.content
    try:
        return checked(fact)["content"]
    except InvalidFactError:
        return None


def of_part(facts: object, number: int, parts: int) -> Iterator[FactLike] | AsyncIterator[FactLike]:
    """Return those of the facts that belong to a part. Raises TypeError for what holds no facts."""
    elements = iterator_of(facts)
    if isinstance(elements, AsyncIterator):
        return _of_part_waiting(elements, number, parts)
    return (fact for fact in elements if part_of(fact, parts) == number)


async def _of_part_waiting(
    elements: AsyncIterator[FactLike], number: int, parts: int
) -> AsyncIterator[FactLike]:
    try:
        async for fact in elements:
            if part_of(fact, parts) == number:
                yield fact
    finally:
        # An import that is stopped closes this generator; the source behind it is what holds files open.
        close = getattr(elements, "aclose", None)
        if close is not None:
            await close()
