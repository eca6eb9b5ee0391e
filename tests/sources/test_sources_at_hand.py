"""What was read already may be taken without waiting, and nothing else changes by that."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Iterable
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_async import Fact
from omi_async.sources import Facts, SourceError, _facts, open_facts

LINES = st.sampled_from([b'"a"\n', b'{"content": "b"}\n', b"\n", b"no JSON\n", b'"half'])
PIECES = st.lists(st.lists(LINES, min_size=1, max_size=4).map(b"".join), max_size=5)
STEPS = st.lists(st.none() | st.integers(0, 9), max_size=9)
"""None is `anext`, a number what `at_hand` is asked for."""


class Pieces(io.RawIOBase):
    """Gives its pieces, one a read, and then ends or breaks."""

    def __init__(self, pieces: Iterable[bytes], *, breaks: bool = False) -> None:
        self.pieces = [*pieces]
        self.breaks = breaks

    def read(self, _size: int = -1) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.breaks:
            raise OSError(5, "Input/output error")
        return b""


def opened(pieces: Iterable[bytes], *, breaks: bool = False) -> Facts:
    return open_facts(Pieces(pieces, breaks=breaks), "jsonl")  # type: ignore[arg-type]  # half a file on purpose


def numbered(*pieces: range) -> list[bytes]:
    return [b"".join(b'"%d"\n' % number for number in piece) for piece in pieces]


def texts(items: Iterable[Any]) -> list[str]:
    return [item.content for item in items]


async def taken(facts: Facts, steps: Iterable[int | None]) -> tuple[list[str], str]:
    """Take everything by these steps, over and over; return it, and what ended it."""
    items: list[str] = []
    try:
        for most in cycle([*steps, None]):
            some = [await anext(facts)] if most is None else facts.at_hand(most)
            assert most is None or len(some) <= most
            items += map(repr, some)
    except (StopAsyncIteration, SourceError) as end:
        return items, repr(end)
    raise AssertionError


@given(PIECES, st.booleans(), STEPS)
async def test_any_mix_gives_what_waiting_for_each_gives(pieces, breaks, steps):
    alone, mixed = opened(pieces, breaks=breaks), opened(pieces, breaks=breaks)

    assert await taken(mixed, steps) == await taken(alone, [])
    assert mixed.at_hand(9) == []
    with pytest.raises(StopAsyncIteration):
        await anext(mixed)


async def test_nothing_is_opened_by_it():
    facts = open_facts("/no/such/file")
    assert facts.at_hand(25) == []
    assert all(thread.name != "omi_async.sources" for thread in threading.enumerate())


async def test_what_was_read_with_the_first_is_at_hand():
    async with opened(numbered(range(4))) as facts:
        assert texts([await anext(facts)]) == ["0"]
        assert texts(facts.at_hand(2)) == ["1", "2"]
        assert texts(facts.at_hand(25)) == ["3"]
        assert facts.at_hand(25) == []


async def test_a_closed_reader_has_nothing_at_hand():
    facts = opened(numbered(range(9)))
    await anext(facts)
    await facts.aclose()
    assert facts.at_hand(25) == []


async def test_what_was_read_too_late_is_not_handed_out():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb"):
        facts = open_facts(source, "jsonl")
        waiting = asyncio.ensure_future(anext(facts))
        await asyncio.sleep(0)
        closing = asyncio.create_task(facts.aclose())
        await asyncio.sleep(0)
        assert facts._bridge is not None
        facts._bridge._ready.append([Fact("late")])  # the thread was about to do it
        with pytest.raises(StopAsyncIteration):
            await waiting
        await closing
        assert facts.at_hand(25) == []


async def test_it_takes_nothing_from_behind_the_bridge():
    """Else a consumer that never waits would take a whole file in one turn of the loop."""
    pieces = numbered(*(range(at, at + 3) for at in range(0, 30, 3)))
    async with opened(pieces) as facts:
        await anext(facts)
        bridge = facts._bridge
        assert bridge is not None
        async with asyncio.timeout(5):
            while len(bridge._ready) < _facts.AHEAD:  # noqa: ASYNC110  # the thread tells of nothing else
                await asyncio.sleep(0)
        assert texts(facts.at_hand(99)) == ["1", "2"]
        assert facts.at_hand(99) == []
        assert len(bridge._ready) == _facts.AHEAD


async def test_a_cancelled_wait_loses_nothing():
    facts = opened(numbered(range(3), range(3, 6)))
    found = []
    for turns in range(50):
        waiting = asyncio.ensure_future(anext(facts))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        found += [item for item in await asyncio.gather(waiting, return_exceptions=True) if _is_fact(item)]
        found += facts.at_hand(2)
    found += [item async for item in facts]
    assert texts(found) == [str(number) for number in range(6)]


def _is_fact(item: object) -> bool:
    return isinstance(item, Fact)


async def test_two_consumers_share_what_is_at_hand():
    facts = opened(numbered(*(range(at, at + 7) for at in range(0, 700, 7))))

    async def consume() -> list[str]:
        found = []
        async for item in facts:
            found += texts([item, *facts.at_hand(4)])
        return found

    one, two = await asyncio.gather(consume(), consume())
    assert sorted([*one, *two], key=int) == [str(number) for number in range(700)]
