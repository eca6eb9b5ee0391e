"""Reading a list by offset while it changes under the reader, as far as the server shows it."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import InvalidRequestError, ListLimitError, Memory, ResponseFormatError
from omi_async._api.endpoints import interpret, list_for_import, list_memories
from omi_async._api.messages import ListedMemory, Page, Request, Response
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


def insert(place: float, name: str) -> Change:
    return lambda rows: rows.insert(round(place * len(rows)), name)


def delete(place: float, many: int = 1) -> Change:
    def change(rows: list[str]) -> None:
        start = round(place * len(rows))
        del rows[start : start + many]

    return change


def to_front(place: float) -> Change:
    """What an edit does to a list whose order is: last edited first."""

    def change(rows: list[str]) -> None:
        if rows:
            rows.insert(0, rows.pop(min(round(place * len(rows)), len(rows) - 1)))

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
def test_a_list_at_rest_is_read_whole_in_its_order(server: Server, page_size: int) -> None:
    if page_size < 4:
        server.bad = frozenset()
    reading = read(server, page_size)
    assert reading.ids == [row for row in server.ids if row not in server.bad]
    assert reading.listing.steady


@given(servers(comings_and_goings), sizes)
@example(Server(ids(10)), 5)  # certainly steady
@example(Server(ids(10), changes=[unchanged, delete(0.0)]), 5)
@example(Server(ids(4), changes=[unchanged, delete(0.0), unchanged, unchanged, delete(0.0)]), 2)
def test_nothing_is_doubled_or_missed_when_memories_come_and_go(server: Server, page_size: int) -> None:
    reading = read(server, page_size)
    assert len(reading.ids) == len(set(reading.ids))
    if reading.listing.steady:
        assert not reading.missed


@given(servers(comings_and_goings, most=MOST_BARREN_READINGS), sizes)
def test_it_ends_steady_once_the_list_comes_to_rest(server: Server, page_size: int) -> None:
    reading = read(server, page_size)
    assert reading.listing.steady
    assert not reading.missed


@given(servers(edits, most=4), sizes)
@example(Server(ids(4), changes=[unchanged, to_front(0.5)]), 2)
@example(Server(ids(4), changes=[unchanged, to_front(1.0)]), 2)
def test_a_memory_that_is_edited_and_moves_to_the_front_is_not_missed(server: Server, page_size: int) -> None:
    server.bad = frozenset()
    reading = read(server, page_size)
    assert len(reading.ids) == len(set(reading.ids))
    assert not reading.missed


@given(servers(anything, most=200), sizes)
def test_whatever_happens_it_ends_and_nothing_is_doubled(server: Server, page_size: int) -> None:
    reading = read(server, page_size)
    assert len(reading.ids) == len(set(reading.ids))


@pytest.mark.parametrize("order", range(20))
def test_another_order_at_every_call_ends(order: int) -> None:
    generator = random.Random(order)
    server = Server(ids(30), changes=[generator.shuffle] * 5000)
    reading = read(server, 4)
    assert len(reading.ids) == len(set(reading.ids))


@pytest.mark.parametrize(
    ("count", "size", "calls"), [(0, 5, 1), (4, 5, 2), (5, 5, 2), (6, 5, 3), (100, 1000, 2)]
)
def test_a_list_at_rest_costs_one_call_more_than_it_has_pages(count: int, size: int, calls: int) -> None:
    server = Server(ids(count))
    assert read(server, size).ids == ids(count)
    assert server.calls == calls


def test_a_memory_put_in_front_costs_one_call_more() -> None:
    server = Server(ids(100), changes=[unchanged, insert(0.0, "new")])
    reading = read(server, 10)
    assert [*reading.ids[:100], "new"] == [*ids(100), "new"]
    assert (
        server.calls == 11 + 1 + 1 + 1
    )  # pages, the end, the front; the front's second page holds nothing new


def test_the_user_may_delete_what_was_yielded() -> None:
    server = Server(ids(50))
    listing = Paginator[Memory](list_memories, 10)
    yielded = []
    while (request := listing.next_request()) is not None:
        for memory in listing.take(server.answer(request)):
            yielded.append(memory.id)
            server.ids.remove(memory.id)
    assert sorted(yielded) == sorted(ids(50))
    assert server.ids == []


def test_a_removal_is_noticed_in_every_reading() -> None:
    # m8 slips through in the first reading, and again in the second, when what stands in its place is known.
    changes: list[Change] = [unchanged] * 9
    changes[2] = delete(0.0, 2)
    changes[6] = lambda rows: rows.__setitem__(slice(0, 0), ["x", "y"])
    changes[8] = delete(0.0, 2)
    reading = read(Server(ids(20), changes=changes), 4)
    assert "m8" in reading.ids
    assert not reading.missed
    assert reading.listing.steady


def test_a_server_that_ignores_the_offset_is_given_up() -> None:
    server = Server(ids(3), ignores_offset_after=0)
    listing = Paginator[Memory](list_memories, 10)
    found: list[str] = []
    with pytest.raises(
        ResponseFormatError, match="does not end: 10 pages in a row held nothing new after 3 mem"
    ):
        drain(listing, server, found)
    assert found == ids(3)
    assert server.calls == 1 + MOST_STALE_PAGES


def test_a_server_that_ignores_the_offset_only_in_the_second_reading_is_given_up() -> None:
    server = Server(ids(6), changes=[unchanged, delete(0.0, 3)], ignores_offset_after=3)
    listing = Paginator[Memory](list_memories, 3)
    found: list[str] = []
    with pytest.raises(ResponseFormatError, match="does not end"):
        drain(listing, server, found)


@pytest.mark.parametrize("readable", [0, 1, 10, 15])
def test_a_list_that_the_server_itself_cut_short_is_no_whole_list(readable: int) -> None:
    server = Server(ids(40), truncated_from=readable)
    listing = Paginator[Memory](list_memories, 10)
    found: list[str] = []
    with pytest.raises(ListLimitError, match=f"shows {readable} memories of this list") as caught:
        drain(listing, server, found)
    assert found == ids(40)[:readable]
    assert caught.value.read == readable
    assert not caught.value.maybe_applied
    assert not listing.steady


# The window: offset + limit


def categories_of(server: Server) -> Callable[[str], str]:
    """Every memory has one of three categories, of which the server's official document knows two."""
    names = ("work", "system", "brand-new")
    return lambda name: names[int(name[1:]) % 3] if name[1:].isdigit() else "work"


@attrs.define
class Windowed(Server):
    """Shows each list, of all or of a category, only so far."""

    window: int = 5000
    per_category: float = math.inf
    refused: int = 0
    knows: frozenset[str] | None = None  # the categories, if not all

    def answer(self, request: Request[Any]) -> Page[Memory]:
        query = parse_qs(urlsplit(request.path).query)
        limit, offset = int(query["limit"][0]), int(query["offset"][0])
        if self.calls < len(self.changes):
            self.changes[self.calls](self.ids)
        self.calls += 1
        of = categories_of(self)
        rows, shown = self.ids, math.inf
        if "categories" in query:
            (category,) = query["categories"]
            if self.knows is not None and category not in self.knows:
                return self.refuse(request, 400)
            rows, shown = [row for row in rows if of(row) == category], self.per_category
        if offset + limit > self.window:
            return self.refuse(request, 413)
        end = min(offset + limit, shown)
        memories = [Memory(id=row, category=of(row)) for row in rows[offset : int(end)]]
        cut = offset + limit > shown and len(rows) > shown
        return Page(memories, cut, categories=frozenset(memory.category for memory in memories))

    def refuse(self, request: Request[Any], status: int) -> Page[Memory]:
        self.refused += status == 413
        return interpret(request, Response(status, body=b'{"detail": "no"}'))  # type: ignore[no-any-return]  # as it decodes


@pytest.mark.parametrize("page_size", [100, 999, 1000])
@pytest.mark.parametrize("count", [4000, 4001, 4500, 4999])
def test_what_fits_into_the_window_is_read_without_a_refusal(count: int, page_size: int) -> None:
    server = Windowed(ids(count))
    reading = read(server, page_size)
    assert reading.ids == ids(count)
    assert reading.listing.steady
    assert server.refused == 0


@pytest.mark.parametrize("page_size", [100, 1000])
@pytest.mark.parametrize("count", [5000, 5001, 7000])
def test_what_lies_beyond_is_found_by_category(count: int, page_size: int) -> None:
    server = Windowed(ids(count))
    reading = read(server, page_size)
    assert sorted(reading.ids) == sorted(ids(count))
    assert reading.listing.steady
    assert server.refused == 1  # one memory beyond was asked for


def test_what_no_list_shows_is_an_error_that_says_how_many_were_read() -> None:
    server = Windowed(ids(7000), per_category=1500)
    listing = Paginator[Memory](list_memories, 1000)
    found: list[str] = []
    with pytest.raises(ListLimitError, match="shows 5,000 memories") as caught:
        drain(listing, server, found)
    assert found == ids(5000)
    assert caught.value.read == 5000
    assert not listing.steady


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [4990, 5000, 6000])
def test_a_long_list_is_read_beside_a_writer(count: int, place: float) -> None:
    changes: list[Change] = [insert(place, f"m{count + number}") for number in range(30)]
    reading = read(Windowed(ids(count), changes=changes), 500)
    assert not reading.missed
    assert len(reading.ids) == len(set(reading.ids))


def test_a_writer_in_front_does_not_make_forget_that_the_list_was_cut() -> None:
    # Catches: the reading of the front, which is not cut, in place of the verdict on the whole list.
    server = Windowed(ids(7000), per_category=100, changes=[unchanged, insert(0.0, "new")])
    with pytest.raises(ListLimitError):
        read(server, 1000)


def test_a_server_without_a_window_is_read_to_its_end() -> None:
    server = Server(ids(12_345))
    assert read(server, 1000).ids == ids(12_345)


@pytest.mark.parametrize("window", [1, 7, 60, 3333])
def test_another_window_is_found_out(window: int) -> None:
    server = Windowed(ids(3500), window=window)
    if window < 50:
        with pytest.raises(InvalidRequestError):  # a first page that is refused is just a refusal
            read(server, 50)
        return
    listing = Paginator[Memory](list_memories, 50)
    found: list[str] = []
    with contextlib.suppress(ListLimitError):
        drain(listing, server, found)
    assert found[:window] == ids(window)
    assert server.refused < 30


def test_an_older_server_knows_fewer_categories() -> None:
    server = Windowed(ids(6000), knows=frozenset({"work", "system", "brand-new"}))
    assert sorted(read(server, 1000).ids) == sorted(ids(6000))


def test_one_category_is_divided_no_further() -> None:
    server = Windowed([f"m{3 * number}" for number in range(6000)])
    listing = Paginator[Memory](list_memories, 1000, categories="work")
    found: list[str] = []
    with pytest.raises(ListLimitError):
        drain(listing, server, found)
    assert len(found) == 5000
    assert server.calls < 10


@pytest.mark.parametrize("categories", ["work,system", ["work", "system"]])
def test_some_categories_are_divided_into_these(categories: str | list[str]) -> None:
    asked = []
    listing = Paginator[Memory](list_memories, 1000, categories=categories)
    page = Page([Memory(id="1")], truncated=True)
    while (request := listing.next_request()) is not None:
        asked.append(parse_qs(urlsplit(request.path).query)["categories"][0])
        page = Page([Memory(id="1")], truncated=len(asked) < 3)
        listing.take(page)
    assert asked == ["work,system", "work,system", "work", "work", "system", "system"]


def test_what_cannot_be_read_is_counted_once() -> None:
    listing = Paginator[Memory](list_memories, 3)
    memory = {name: Memory(id=name) for name in "abcde"}
    pages = [
        Page([memory["a"], memory["b"]], unreadable=1, odd=frozenset("b")),  # the last one is unreadable
        Page([memory["c"], memory["d"]], unreadable=1),  # and is the first one here
        Page([memory["d"], memory["e"]], odd=frozenset("e")),
        Page([memory["e"]], odd=frozenset("e")),
    ]
    found: list[Memory] = []
    for page in pages:
        assert listing.next_request() is not None
        found += listing.take(page)
    assert listing.next_request() is None
    assert [it.id for it in found] == [*"abcde"]
    assert (listing.unreadable, listing.odd) == (1, 2)


def test_a_page_that_was_cut_short_is_gone_on_behind() -> None:
    listing = Paginator[Memory](list_memories, 10)
    pages = [Page([Memory(id="a"), Memory(id="b")], truncated=True), Page([Memory(id="b"), Memory(id="c")])]
    pages.append(Page([Memory(id="c")]))
    found = []
    for page in pages:
        assert listing.next_request() is not None
        found += [memory.id for memory in listing.take(page)]
    assert found == ["a", "b", "c"]
    assert listing.next_request() is None


def test_unreadable_elements_count_as_places() -> None:
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


def test_a_page_that_names_a_memory_twice_yields_it_once() -> None:
    listing = Paginator[Memory](list_memories, 10)
    assert [memory.id for memory in listing.take(Page([Memory(id="a"), Memory(id="a")]))] == ["a"]


def test_pages_hold_no_more_than_the_server_gives() -> None:
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
def test_the_page_size_is_checked_before_anything_is_read(page_size: int) -> None:
    with pytest.raises(ValueError, match="page_size must be from 1 to 1000"):
        Paginator[Memory](list_memories, page_size)
