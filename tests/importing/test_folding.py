"""Folding: which texts came before."""

from __future__ import annotations

import gc
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_async.importing import folding
from omi_async.importing.folding import Folding

chunks = st.lists(st.lists(st.integers(0, 60).map(str), min_size=1, max_size=9), max_size=30)


@given(chunks, st.sampled_from([0, 3, 20, 1000]))
def test_a_text_came_again_where_it_came_before(chunks: list[list[str]], together: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "TOGETHER", together)
        patch.setattr(folding, "SHARDS", 4)
        seen = Folding()
        told = [seen.came_again(chunk) or [False] * len(chunk) for chunk in chunks]
    texts = [*chain.from_iterable(chunks)]
    assert [*chain.from_iterable(told)] == [text in texts[:place] for place, text in enumerate(texts)]


def test_no_part_of_it_is_so_large_that_the_loop_would_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while it grows, nor for the garbage collector, which looks through sets."""
    monkeypatch.setattr(folding, "TOGETHER", 2_000)
    seen = Folding()
    for start in range(0, 50_000, 25):
        assert seen.came_again([str(number) for number in range(start, start + 25)]) is None
    first, further = seen._first, seen._further  # there is no other way to see it
    assert len(first) <= 2_025
    assert len(first) + sum(map(len, further)) == 50_000
    assert max(map(len, further)) < 200
    assert not any(map(gc.is_tracked, further))
