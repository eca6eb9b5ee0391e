"""Which part a fact belongs to: exactly one, and equal facts to the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("redis", reason="it is of the extra workers")
pytestmark = pytest.mark.extras

from omi_async import Fact, FactOutcome  # noqa: E402  # behind the question whether it is there
from omi_async.workers import part_of  # noqa: E402
from omi_async.workers.split import of_part  # noqa: E402

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
PARTS = st.integers(1, 9)


@given(TEXTS, PARTS)
def test_equal_facts_are_in_one_part_however_they_are_given(text: str, parts: int) -> None:
    fact = Fact(text, category="system", tags=["a"])
    alike: list[Any] = [fact, text, f"  {text}\n", {"content": text}, FactOutcome(7, fact, "not_sent")]
    numbers = {part_of(it, parts) for it in alike}
    assert len(numbers) == 1
    assert 0 <= numbers.pop() < parts


@given(st.lists(TEXTS | st.none() | st.just("x" * 501) | st.just("\ud800"), max_size=30), PARTS)
def test_everything_is_in_exactly_one_part(given_facts: list[str], parts: int) -> None:
    split = [list(of_part(given_facts, number, parts)) for number in range(parts)]  # type: ignore[arg-type]  # not async
    assert sorted(repr(fact) for part in split for fact in part) == sorted(map(repr, given_facts))


@pytest.mark.parametrize("other", [None, 7, {}, "", "x" * 501, "\ud800", FactOutcome(0, None, "invalid")])
def test_what_is_no_fact_belongs_to_the_first_part(other: object) -> None:
    assert part_of(other, 5) == 0  # type: ignore[arg-type]  # that is what is tested


async def test_a_source_that_is_waited_for_is_split_and_closed() -> None:
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            for number in range(100):
                yield f"fact {number}"
        finally:
            closed.append(True)

    taken = of_part(source(), 1, 4)
    first = await anext(taken)  # type: ignore[arg-type]  # it is async, as its source
    assert part_of(first, 4) == 1
    await taken.aclose()  # type: ignore[union-attr]
    assert closed == [True]


def test_the_number_is_the_same_in_each_process() -> None:
    """Not Python's own hash, which another process salts in another way."""
    code = "from omi_async.workers import part_of; print(*[part_of(f'fact {n}', 7) for n in range(50)])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    numbers = [part_of(f"fact {number}", 7) for number in range(50)]
    assert [*map(int, run.stdout.split())] == numbers
    assert set(numbers) == set(range(7))


def test_numbers_that_were_given_out_stay() -> None:
    """They are kept in the store: another version must not split an import that has begun in another way."""
    assert [part_of(f"fact {number}", 10) for number in range(12)] == [5, 3, 7, 2, 7, 6, 5, 1, 3, 1, 3, 4]


def test_there_is_at_least_one_part() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        part_of("a", 0)
