"""Folding: which texts came before."""

from __future__ import annotations

import gc
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from omi_async.importing.intake import SeenTexts

chunks = st.lists(st.lists(st.integers(0, 60).map(str), min_size=1, max_size=9), max_size=30)


@given(chunks)
def test_a_text_came_again_if_it_came_before(chunks: list[list[str]]) -> None:
    seen = SeenTexts()
    told = [seen.came_again(chunk) for chunk in chunks]
    texts = [*chain.from_iterable(chunks)]
    assert [*chain.from_iterable(told)] == [text in texts[:place] for place, text in enumerate(texts)]


def test_no_part_of_it_is_so_large_that_the_loop_would_wait_for_it() -> None:
    """Neither while it grows, nor for the garbage collector."""
    seen = SeenTexts()
    for start in range(0, 100_000, 25):
        assert True not in seen.came_again(map(str, range(start, start + 25)))
    shards = seen._shards  # there is no other way to see it
    assert sum(map(len, shards)) == 100_000
    assert max(map(len, shards)) < 600
    assert not any(map(gc.is_tracked, shards))
