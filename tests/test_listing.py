"""Reading a list by offset while it changes under the reader."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import Memory, ResponseFormatError
from omi_async._api.endpoints import list_for_import, list_memories
from omi_async._api.messages import ListedMemory, Page, Request
from omi_async._api.paging import MOST_BARREN_READINGS, MOST_STALE_PAGES, Paginator

Change = Callable[[list[str]], None]


@attrs.define
class Server:
    """A list of ids; those in `bad` are unreadable, and dropped after the offset was applied."""

    ids: list[str]
    bad: frozenset[str] = frozenset()
    clamp: int = 1000
    changes: Sequence[Change] = ()  # one before each call
    ignores_offset_after: float = math.inf  # calls
    truncated_from: int | None = None
    calls: int = 0

    def answer(self, request: Request[Any]) -> Page[Memory]:
        query = parse_qs(urlsplit(request.path).query)
        limit, offset = min(int(query["limit"][0]), self.clamp), int(query["offset"][0])
        assert 1 <= limit <= 1000
        assert offset >= 0
        if self.calls < len(self.changes):
            self.changes[self.calls](self.ids)
        self.calls += 1
        assert self.calls < 5000, "it does not end"
        start = 0 if self.calls > self.ignores_offset_after else offset
        rows = self.ids[start : start + limit]
        truncated = self.truncated_from is not None and offset + limit > self.truncated_from
        if truncated:
            rows = rows[: max(0, (self.truncated_from or 0) - offset)]
        return Page([Memory(id=row) for row in rows if row not in self.bad], truncated)


@attrs.define
class Reading:
    listing: Paginator[Memory]
    ids: list[str]
    always_there: set[str]

    @property
    def missed(self) -> set[str]:
        return self.always_there - set(self.ids)


def read(server: Server, page_size: int) -> Reading:
    listing = Paginator[Memory](list_memories, page_size)
    found: list[str] = []
    there = set(server.ids)
    while (request := listing.next_request()) is not None:
        page = server.answer(request)
        there &= set(server.ids)
        found += [memory.id for memory in listing.take(page)]
    return Reading(listing, found, there - server.bad)


def drain(listing: Paginator[Memory], server: Server, found: list[str]) -> None:
    while (request := listing.next_request()) is not None:
        found += [memory.id for memory in listing.take(server.answer(request))]


def ids(count: int, prefix: str = "m") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def insert(where: float, name: str) -> Change:
    return lambda rows: rows.insert(round(where * len(rows)), name)


def delete(where: float, many: int = 1) -> Change:
    def change(rows: list[str]) -> None:
        start = round(where * len(rows))
        del rows[start : start + many]

    return change


def to_front(where: float) -> Change:
    """What an edit does to a list whose order is: last edited first."""

    def change(rows: list[str]) -> None:
        if rows:
            rows.insert(0, rows.pop(min(round(where * len(rows)), len(rows) - 1)))

    return change


def shuffle(seed: int) -> Change:
    return lambda rows: random.Random(seed).shuffle(rows)


def unchanged(rows: list[str]) -> None:
    pass


places = st.floats(0, 1)
new_names = st.uuids().map(str)
comings_and_goings = st.one_of(
    st.just(unchanged), st.builds(insert, places, new_names), st.builds(delete, places, st.integers(1, 5))
)
edits = st.one_of(st.just(unchanged), st.builds(insert, st.just(0.0), new_names), st.builds(to_front, places))
anything = st.one_of(comings_and_goings, edits, st.builds(shuffle, st.integers(0, 99)))


def servers(changes: st.SearchStrategy[Change], most: int = 30) -> st.SearchStrategy[Server]:
    """Servers of which every other record, at most, is unreadable."""
    return st.builds(
        Server,
        ids=st.integers(0, 40).map(ids),
        bad=st.frozensets(st.integers(0, 19).map(lambda number: f"m{2 * number + 1}"), max_size=6),
        clamp=st.sampled_from([1000, 7, 5]),
        changes=st.lists(changes, max_size=most),
    )


sizes = st.integers(4, 12)


@given(servers(st.just(unchanged)), st.integers(1, 1000))
def test_a_list_at_rest_is_read_whole_in_its_order(server: Server, page_size: int):
    if page_size < 4:
        server.bad = frozenset()
    reading = read(server, page_size)
    assert reading.ids == [row for row in server.ids if row not in server.bad]
    assert reading.listing.steady


@given(servers(comings_and_goings), sizes)
@example(Server(ids(10)), 5)  # certainly steady
@example(Server(ids(10), changes=[unchanged, delete(0.0)]), 5)
@example(Server(ids(4), changes=[unchanged, delete(0.0), unchanged, unchanged, delete(0.0)]), 2)
def test_nothing_is_doubled_or_missed_where_memories_come_and_go(server: Server, page_size: int):
    reading = read(server, page_size)
    assert len(reading.ids) == len(set(reading.ids))
    if reading.listing.steady:
        assert not reading.missed


@given(servers(comings_and_goings, most=MOST_BARREN_READINGS), sizes)
def test_it_ends_steady_where_the_list_comes_to_rest(server: Server, page_size: int):
    reading = read(server, page_size)
    assert reading.listing.steady
    assert not reading.missed


@given(servers(edits, most=4), sizes)
@example(Server(ids(4), changes=[unchanged, to_front(0.5)]), 2)
@example(Server(ids(4), changes=[unchanged, to_front(1.0)]), 2)
def test_a_memory_that_is_edited_and_moves_to_the_front_is_not_missed(server: Server, page_size: int):
    server.bad = frozenset()
    reading = read(server, page_size)
    assert len(reading.ids) == len(set(reading.ids))
    assert not reading.missed


@given(servers(anything, most=200), sizes)
def test_whatever_happens_it_ends_and_nothing_is_doubled(server: Server, page_size: int):
    reading = read(server, page_size)
    assert len(reading.ids) == len(set(reading.ids))


@pytest.mark.parametrize("order", range(20))
def test_another_order_at_every_call_ends(order: int):
    generator = random.Random(order)
    server = Server(ids(30), changes=[generator.shuffle] * 5000)
    reading = read(server, 4)
    assert len(reading.ids) == len(set(reading.ids))


@pytest.mark.parametrize(
    ("count", "size", "calls"), [(0, 5, 1), (4, 5, 2), (5, 5, 2), (6, 5, 3), (100, 1000, 2)]
)
def test_a_list_at_rest_costs_one_call_more_than_it_has_pages(count: int, size: int, calls: int):
    server = Server(ids(count))
    assert read(server, size).ids == ids(count)
    assert server.calls == calls


def test_a_memory_put_in_front_costs_one_call_more():
    server = Server(ids(100), changes=[unchanged, insert(0.0, "new")])
    reading = read(server, 10)
    assert [*reading.ids[:100], "new"] == [*ids(100), "new"]
    assert (
        server.calls == 11 + 1 + 1 + 1
    )  # pages, the end, the front; the front's second page holds nothing new


def test_the_user_may_delete_what_was_yielded():
    server = Server(ids(50))
    listing = Paginator[Memory](list_memories, 10)
    yielded = []
    while (request := listing.next_request()) is not None:
        for memory in listing.take(server.answer(request)):
            yielded.append(memory.id)
            server.ids.remove(memory.id)
    assert sorted(yielded) == sorted(ids(50))
    assert server.ids == []


def test_a_removal_is_noticed_in_every_reading():
    # m8 slips through in the first reading, and again in the second, where what stands in its place is known.
    changes: list[Change] = [unchanged] * 9
    changes[2] = delete(0.0, 2)
    changes[6] = lambda rows: rows.__setitem__(slice(0, 0), ["x", "y"])
    changes[8] = delete(0.0, 2)
    reading = read(Server(ids(20), changes=changes), 4)
    assert "m8" in reading.ids
    assert not reading.missed
    assert reading.listing.steady


def test_a_server_that_ignores_the_offset_is_given_up():
    server = Server(ids(3), ignores_offset_after=0)
    listing = Paginator[Memory](list_memories, 10)
    found: list[str] = []
    with pytest.raises(
        ResponseFormatError, match="does not end: 10 pages in a row held nothing new after 3 mem"
    ):
        drain(listing, server, found)
    assert found == ids(3)
    assert server.calls == 1 + MOST_STALE_PAGES


def test_a_server_that_ignores_the_offset_only_in_the_second_reading_is_given_up():
    server = Server(ids(6), changes=[unchanged, delete(0.0, 3)], ignores_offset_after=3)
    listing = Paginator[Memory](list_memories, 3)
    found: list[str] = []
    with pytest.raises(ResponseFormatError, match="does not end"):
        drain(listing, server, found)


@pytest.mark.parametrize("readable", [0, 1, 10, 15])
def test_a_list_that_the_server_itself_cut_short_is_no_whole_list(readable: int):
    server = Server(ids(40), truncated_from=readable)
    listing = Paginator[Memory](list_memories, 10)
    found: list[str] = []
    with pytest.raises(ResponseFormatError, match=f"after {readable} memories .X-Omi-List-Truncated"):
        drain(listing, server, found)
    assert found == ids(40)[:readable]


def test_a_page_that_was_cut_short_is_gone_on_behind():
    listing = Paginator[Memory](list_memories, 10)
    pages = [Page([Memory(id="a"), Memory(id="b")], truncated=True), Page([Memory(id="b"), Memory(id="c")])]
    pages.append(Page([Memory(id="c")]))
    found = []
    for page in pages:
        assert listing.next_request() is not None
        found += [memory.id for memory in listing.take(page)]
    assert found == ["a", "b", "c"]
    assert listing.next_request() is None


def test_unreadable_elements_count_as_places():
    listing = Paginator[ListedMemory](list_for_import, 10)
    pages = [
        Page([ListedMemory("a", "x", "")], unreadable=2),
        Page(list[ListedMemory](), unreadable=3),
        Page([ListedMemory("b", "x", "")], unreadable=1),
        Page(list[ListedMemory]()),
    ]
    found = []
    offsets = []
    for page in pages:
        request = listing.next_request()
        assert request is not None
        offsets.append(parse_qs(urlsplit(request.path).query)["offset"][0])
        found += [identity.id for identity in listing.take(page)]
    assert found == ["a", "b"]
    assert offsets == ["0", "2", "4", "5"]


def test_a_page_that_names_a_memory_twice_yields_it_once():
    listing = Paginator[Memory](list_memories, 10)
    assert [memory.id for memory in listing.take(Page([Memory(id="a"), Memory(id="a")]))] == ["a"]


def test_pages_hold_no_more_than_the_server_gives():
    for size in (1, 999, 1000):
        listing = Paginator[Memory](list_memories, size, categories=["work"])
        first = listing.next_request()
        listing.take(Page([Memory(id=str(number)) for number in range(size)]))
        second = listing.next_request()
        assert first is not None
        assert second is not None
        assert parse_qs(urlsplit(first.path).query)["limit"] == [str(size)]
        assert parse_qs(urlsplit(second.path).query)["limit"] == [str(min(size + 1, 1000))]
        assert "categories=work" in second.path


@pytest.mark.parametrize("page_size", [0, -1, 1001])
def test_the_page_size_is_checked_before_anything_is_read(page_size: int):
    with pytest.raises(ValueError, match="page_size must be from 1 to 1000"):
        Paginator[Memory](list_memories, page_size)
