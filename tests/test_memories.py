"""The calls on memories, over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from omi_async import (
    AuthenticationError,
    Fact,
    InvalidFactError,
    InvalidRequestError,
    ListLimitError,
    Memory,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    ResponseFormatError,
    Session,
)
from omi_async.local import Fault, LocalServer
from tests.raw_server import Call, raw_server


async def test_create_returns_the_memory(server: LocalServer, session: Session) -> None:
    memory = await session.memories.create(
        " User is vegetarian ", category="work", visibility="public", tags=["a"]
    )
    assert (memory.content, memory.category, memory.visibility, memory.tags) == (
        "User is vegetarian",
        "work",
        "public",
        ("a",),
    )
    assert [stored["id"] for stored in server.memories()] == [memory.id]


async def test_create_takes_a_whole_fact(session: Session) -> None:
    fact = Fact("a", category="work", visibility="public", tags=["x"], origin="f:1")
    memory = await session.memories.create(fact)
    assert (memory.category, memory.visibility, memory.tags) == ("work", "public", ("x",))


@pytest.mark.parametrize("more", [{"category": "work"}, {"visibility": "public"}, {"tags": ["x"]}], ids=repr)
async def test_a_fact_brings_its_own_fields(
    server: LocalServer, session: Session, more: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="a Fact brings its own"):
        await session.memories.create(Fact("a"), **more)
    assert not server.requests


@pytest.mark.parametrize("content", ["", " ", "x" * 501, "\ud800", None, 7, ["a"], {}])
async def test_what_is_no_fact_is_not_sent(server: LocalServer, session: Session, content: str) -> None:
    with pytest.raises(InvalidFactError):
        await session.memories.create(content)
    with pytest.raises(InvalidFactError):
        await session.memories.create_batch(["good", content])
    assert not server.requests


async def test_the_same_text_again_is_the_same_memory(session: Session) -> None:
    assert (await session.memories.create("a")).id == (await session.memories.create("a ")).id


async def test_a_batch_is_one_call(server: LocalServer, session: Session) -> None:
    facts = [f"fact {number}" for number in range(25)]
    memories = await session.memories.create_batch(fact for fact in facts)
    assert [memory.content for memory in memories] == facts
    assert [(record.kind, record.items) for record in server.requests] == [("batch", 25)]


async def test_a_batch_takes_facts_texts_and_mappings(session: Session) -> None:
    memories = await session.memories.create_batch([Fact("a"), "b", {"content": "c", "category": "work"}])
    assert [(memory.content, memory.category == "work") for memory in memories] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]


async def test_a_batch_of_nothing_is_no_call(server: LocalServer, session: Session) -> None:
    assert await session.memories.create_batch([]) == []
    assert not server.requests


async def test_a_batch_of_26_is_no_call(server: LocalServer, session: Session) -> None:
    with pytest.raises(ValueError, match="at most 25 facts, not 26; import_facts"):
        await session.memories.create_batch(["a"] * 26)
    assert not server.requests


async def test_a_batch_with_one_broken_memory_shows_the_others() -> None:
    async def handle(call: Call) -> None:
        memories = [{"id": str(number), "content": "a"} for number in range(25)]
        memories[3] = {"id": "3", "content": 7}  # type: ignore[dict-item]  # wrong on purpose
        await call.answer(body={"memories": memories, "created_count": 25})

    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        with pytest.raises(ResponseFormatError) as caught:
            await session.memories.create_batch(["a"] * 25)
    assert caught.value.problems == ("memories[3].content: expected a string, got a number",)
    assert len(caught.value.memories) == 24
    assert caught.value.maybe_applied


async def test_update_changes_what_is_given_and_nothing_else(server: LocalServer, session: Session) -> None:
    before = await session.memories.create("a", category="work", tags=["x"])
    after = await session.memories.update(before.id, content=" b ")
    assert (after.content, after.category, after.visibility, after.tags) == ("b", "work", "private", ("x",))
    after = await session.memories.update(before.id, tags=[], visibility="public", category="system")
    assert (after.content, after.category, after.visibility, after.tags) == ("b", "system", "public", ())


async def test_an_update_is_checked_before_it_is_sent(server: LocalServer, session: Session) -> None:
    with pytest.raises(ValueError, match="nothing to update"):
        await session.memories.update("x")
    for broken in ({"content": ""}, {"visibility": "x"}, {"category": "a b"}, {"tags": "abc"}):
        with pytest.raises(InvalidFactError):
            await session.memories.update("x", **broken)
    for memory_id in ("", ".", ".."):
        with pytest.raises(ValueError, match="not a memory id"):
            await session.memories.update(memory_id, content="a")
        with pytest.raises(ValueError, match="not a memory id"):
            await session.memories.delete(memory_id)
    assert not server.requests


async def test_delete_deletes_once(server: LocalServer, session: Session) -> None:
    memory = await session.memories.create("a")
    await session.memories.delete(memory.id)
    assert server.memories() == []
    with pytest.raises(NotFoundError):
        await session.memories.delete("nothing")
    with pytest.raises(NotFoundError):
        await session.memories.update(memory.id, content="b")


async def test_a_locked_memory_wants_a_plan(server: LocalServer, session: Session) -> None:
    locked = server.add("x" * 200, locked=True)[0]["id"]
    assert [memory.content for memory in await session.memories.list()] == ["x" * 70 + "..."]
    with pytest.raises(PaymentRequiredError):
        await session.memories.delete(locked)


async def test_a_page_of_the_list(server: LocalServer, session: Session) -> None:
    server.add(*(f"fact {number}" for number in range(30)))
    server.add("of work", category="work")
    assert len(await session.memories.list()) == 25
    assert len(await session.memories.list(limit=1000)) == 31
    assert len(await session.memories.list(limit=10, offset=25)) == 6
    assert [memory.content for memory in await session.memories.list(categories=["work"])] == ["of work"]
    assert [memory.content for memory in await session.memories.list(categories="work")] == ["of work"]
    with pytest.raises(InvalidRequestError, match="category"):
        await session.memories.list(categories=["no-such"])
    for limit, offset in ((0, 0), (1001, 0), (1, -1)):
        with pytest.raises(ValueError, match=r"limit must be|offset must"):
            await session.memories.list(limit=limit, offset=offset)


@pytest.mark.parametrize(("page_size", "calls"), [(1000, 2), (100, 4), (7, 37)])
async def test_iterate_reads_every_page(
    server: LocalServer, session: Session, page_size: int, calls: int
) -> None:
    server.add(*(f"fact {number}" for number in range(250)))
    memories = [memory async for memory in session.memories.iterate(page_size=page_size)]
    assert sorted(memory.content for memory in memories) == sorted(f"fact {number}" for number in range(250))
    assert all(isinstance(memory, Memory) for memory in memories)
    assert len(server.requests) == calls


async def test_iterate_reads_one_category(server: LocalServer, session: Session) -> None:
    server.add("a", "b", category="work")
    server.add("c")
    assert {memory.content async for memory in session.memories.iterate(categories=["work"])} == {"a", "b"}


async def test_iterate_reads_no_further_than_it_is_asked(server: LocalServer, session: Session) -> None:
    server.add(*(f"fact {number}" for number in range(50)))
    async for _ in session.memories.iterate(page_size=10):
        break
    assert len(server.requests) == 1


async def test_everything_can_be_deleted_while_iterating(server: LocalServer, session: Session) -> None:
    server.add(*(f"fact {number}" for number in range(250)))
    async for memory in session.memories.iterate(page_size=20):
        await session.memories.delete(memory.id)
    assert server.memories() == []


async def test_what_is_edited_while_iterating_is_yielded_once(server: LocalServer, session: Session) -> None:
    server.add(*(f"fact {number}" for number in range(40)))
    unread = (await session.memories.list(limit=1, offset=35))[0]
    seen = []
    async for memory in session.memories.iterate(page_size=10):
        seen.append(memory.id)
        if len(seen) == 15:
            await session.memories.update(unread.id, tags=["edited"])
    assert len(seen) == len(set(seen)) == 40


async def test_a_page_size_out_of_range_is_refused(server: LocalServer, session: Session) -> None:
    with pytest.raises(ValueError, match="page_size must be from 1 to 1000"):
        await anext(session.memories.iterate(page_size=0))
    assert not server.requests


async def test_a_failing_page_ends_the_iteration_with_its_error(
    server: LocalServer, session: Session
) -> None:
    server.add(*(f"fact {number}" for number in range(30)))
    seen: list[Memory] = []
    with pytest.raises(AuthenticationError):  # noqa: PT012  # the loop is what raises
        async for memory in session.memories.iterate(page_size=10):
            if not seen:
                server.faults.add(Fault.answer(401, "no"), on="list")
            seen.append(memory)
    assert len(seen) == 10


async def test_a_key_without_the_scope_is_told_so(server: LocalServer) -> None:
    key = server.add_key(scopes=["memories:read"])
    async with Session(key, base_url=server.url) as session:
        assert await session.memories.list() == []
        with pytest.raises(PermissionDeniedError, match="Required scope: memories:write"):
            await session.memories.create("a")


def listing_of(*memories: object) -> Callable[[Call], Awaitable[None]]:
    """A server whose list is that, of two pages of two, whatever it is asked for."""

    async def handle(call: Call) -> None:
        query = parse_qs(urlsplit(call.path).query)
        offset, limit = int(query["offset"][0]), int(query["limit"][0])
        await call.answer(body=[*memories[offset : offset + limit]])

    return handle


ODD = {"id": "2", "content": "b", "category": None, "created_at": "some day", "tags": ["x"]}


async def test_an_odd_memory_blocks_nothing_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    handle = listing_of({"id": "1", "content": "a"}, ODD, {"id": "3", "content": "c"})
    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        expected = [Memory(id="1", content="a"), Memory(id="2", content="b", tags=("x",))]
        expected.append(Memory(id="3", content="c"))
        assert await session.memories.list() == expected
        assert [memory async for memory in session.memories.iterate(page_size=2)] == expected
    assert [vars(record).get("omi_odd") for record in caplog.records] == [1, 1]


async def test_what_is_no_memory_is_told_after_all_that_are() -> None:
    handle = listing_of({"id": "1", "content": "a"}, 7, {"content": "of no id"}, {"id": "4", "content": "d"})
    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        with pytest.raises(ResponseFormatError) as caught:
            await session.memories.list()
        assert [memory.id for memory in caught.value.memories] == ["1", "4"]
        read = []
        with pytest.raises(ResponseFormatError, match="2 of the memories listed"):  # noqa: PT012
            async for memory in session.memories.iterate(page_size=3):
                read.append(memory)  # noqa: PERF401  # what was read before it raised
        assert [memory.id for memory in read] == ["1", "4"]


async def test_an_account_that_is_too_large_to_list_is_not_taken_for_an_empty_one() -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=[], headers={"X-Omi-List-Truncated": "true"})

    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        with pytest.raises(ListLimitError):
            await session.memories.list()
        with pytest.raises(ListLimitError) as caught:
            [memory async for memory in session.memories.iterate()]
    assert caught.value.read == 0


@pytest.mark.parametrize("page_size", [100, 1000])
@pytest.mark.parametrize(("count", "shown"), [(4_500, None), (5_000, 5_000), (7_000, 5_000)])
async def test_a_long_list_is_read_as_far_as_the_server_shows_it(
    server: LocalServer, session: Session, count: int, shown: int | None, page_size: int
) -> None:
    server.add(*(f"fact {number}" for number in range(count)))
    read: list[Memory] = []
    hidden: ListLimitError | None = None
    try:
        async for memory in session.memories.iterate(page_size=page_size):
            read.append(memory)  # what was read before it raised
            if len(read) % 1000 == 1:
                await session.memories.create(f"meanwhile {len(read)}")
    except ListLimitError as error:
        hidden = error
    # The server cannot be asked whether 5,000 are all of them.
    assert (hidden is None) is (shown is None)
    assert len({memory.id for memory in read}) == len(read)
    old = [memory for memory in read if memory.content.startswith("fact")]
    assert len(old) >= (count if shown is None else shown - 10)
    if hidden is not None:
        assert hidden.read == len(read)
