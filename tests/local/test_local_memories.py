"""The memories API: what is stored, what is shown, in which order."""

import hashlib
import re
import uuid
from typing import Any

import pytest

from omi_async.local.account import choose_category
from tests.local.local_client import MEMORIES, SEARCH, Clock, serving

CREATED = {
    "content": "Likes tea",
    "category": "manual",
    "visibility": "public",
    "tags": ["drinks"],
    "created_at": "2026-11-22T12:00:00.250000Z",
    "updated_at": "2026-11-22T12:00:00.250000Z",
    "manually_added": True,
    "scoring": None,
    "reviewed": False,
    "user_review": None,
    "edited": False,
}


def _text_id(text: Any) -> Any:
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))


async def test_create_stores_the_stripped_text_and_shows_the_memory() -> None:
    async with serving(clock=Clock(1_795_348_800.25)) as (server, client):
        answer = await client.create(" Likes tea\n", category="manual", visibility="public", tags=["drinks"])
        assert (answer.status, answer.json) == (200, {"id": _text_id("Likes tea")} | CREATED)
        (row,) = server.memories()
    assert (row["content"], row["locked"], row["scoring"]) == ("Likes tea", False, None)


async def test_a_batch_gives_the_memories_in_order_and_their_number() -> None:
    async with serving() as (_, client):
        answer = await client.batch("a", "b", "a")
        empty = await client.batch()
    assert [memory["content"] for memory in answer.json["memories"]] == ["a", "b", "a"]
    assert answer.json["created_count"] == 3
    assert answer.json["memories"][0] == answer.json["memories"][2]
    assert (empty.status, empty.json) == (200, {"memories": [], "created_count": 0})


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("public", "public"), ("private", "private"), ("Public", "private"), ("friends", "private")],
)
async def test_visibility_of_a_create_is_not_validated(sent: Any, shown: Any) -> None:
    async with serving() as (server, client):
        assert (await client.create("a", visibility=sent)).json["visibility"] == shown
        assert server.memories()[0]["visibility"] == shown


async def test_unknown_fields_are_ignored_and_a_null_category_is_chosen_by_the_server() -> None:
    async with serving() as (_, client):
        answer = await client.create("Loves hiking daily", category=None, colour="red")
    assert answer.json["category"] == "hobbies"
    assert "colour" not in answer.json


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Works at a bank", "work"),
        ("Speaks Dutch", "skills"),
        ("Lives in Ghent", "lifestyle"),
        ("x", "interesting"),
    ],
)
def test_categories_are_chosen_by_words(text: Any, category: Any) -> None:
    assert choose_category(text) == category


async def test_a_repeat_gives_the_stored_memory_unchanged() -> None:
    async with serving(clock=(clock := Clock())) as (server, client):
        first = (await client.create("a", category="manual", tags=["x"])).json
        clock.now += 60
        assert (await client.create(" a ", category="work", visibility="public", tags=["y"])).json == first
        assert (await client.batch("a", "A")).json["memories"][0] == first
        assert [row["content"] for row in server.memories()] == ["a", "A"]


async def test_a_repeat_carries_the_defaults_of_a_new_one_whatever_is_stored() -> None:
    async with serving() as (server, client):
        server.add("a", reviewed=True, user_review=True, edited=True, scoring="01_999_1733482500")
        repeated = (await client.create("a")).json
        (listed,) = (await client.listed()).json
    keys = ("reviewed", "user_review", "edited", "scoring")
    assert [repeated[key] for key in keys] == [False, None, False, None]
    assert [listed[key] for key in keys] == [True, True, True, "01_999_1733482500"]


async def test_a_deleted_text_comes_back_with_an_opaque_id() -> None:
    async with serving() as (_, client):
        first = (await client.create("a")).json["id"]
        deleted = await client.delete(first)
        second = (await client.create("a")).json["id"]
        await client.delete(second)
        third = (await client.create("a")).json["id"]
    assert (deleted.status, deleted.json) == (200, {"success": True})
    assert first == _text_id("a")
    assert re.fullmatch("mem_[0-9a-f]{32}", second)
    assert re.fullmatch("mem_[0-9a-f]{32}", third)
    assert second != third


async def test_without_text_identity_every_create_stores_a_new_memory() -> None:
    async with serving(text_identity=False) as (server, client):
        ids = {
            (await client.create("a")).json["id"],
            *(m["id"] for m in (await client.batch("a", "a")).json["memories"]),
        }
        assert len(ids) == len(server.memories()) == 3
    assert {uuid.UUID(memory_id).version for memory_id in ids} == {4}
    assert _text_id("a") not in ids


async def test_identity_has_a_hole_if_a_text_was_changed() -> None:
    async with serving() as (server, client):
        first = (await client.create("a")).json["id"]
        await client.patch(first, content="b")
        assert (await client.create("b")).json["id"] == _text_id("b") != first
        assert (await client.create("a")).json["id"].startswith("mem_")
        assert sorted(row["content"] for row in server.memories()) == ["a", "b", "b"]


async def test_identity_has_a_hole_if_a_text_was_deleted() -> None:
    async with serving() as (server, client):
        await client.delete((await client.create("a")).json["id"])
        ids = {(await client.create("a")).json["id"] for _ in range(3)}
        assert len(ids) == len(server.memories()) == 3


async def test_to_delete_again_is_a_success_for_what_was_there() -> None:
    async with serving() as (_, client):
        first = (await client.create("a")).json["id"]
        answers = [await client.delete(first), await client.delete(first)]
        assert [(answer.status, answer.json) for answer in answers] == [(200, {"success": True})] * 2
        assert (await client.patch(first, content="b")).status == 404


async def test_patch_changes_what_it_names_and_nothing_else() -> None:
    async with serving(clock=(clock := Clock())) as (server, client):
        before = server.add("a", tags=["x"], category="manual")[0]
        clock.now += 1
        answer = await client.patch(before["id"], content=" b ", tags=[], category=None, visibility=None)
        expected = before | {
            "content": "b",
            "tags": [],
            "reviewed": True,
            "user_review": True,
            "updated_at": "2026-11-22T12:00:01.000000Z",
        }
        assert server.memories() == [expected]
    del expected["locked"]
    assert (answer.status, answer.json) == (200, expected)


async def test_patch_of_visibility_and_category_is_no_review() -> None:
    async with serving() as (server, client):
        (before,) = server.add("a")
        after = (await client.patch(before["id"], visibility="public", category="work")).json
    assert (after["visibility"], after["category"], after["reviewed"]) == ("public", "work", False)


async def test_a_bad_visibility_is_noticed_after_the_text_was_changed() -> None:
    async with serving() as (server, client):
        (before,) = server.add("a")
        answer = await client.patch(before["id"], content="b", visibility="friends", tags=["t"])
        (after,) = server.memories()
    assert (answer.status, answer.detail) == (422, "visibility must be 'public' or 'private'")
    assert (after["content"], after["tags"]) == ("b", [])


@pytest.mark.parametrize("fields", [{}, {"content": None, "tags": None}, {"colour": "red"}])
async def test_patch_needs_a_field(fields: Any) -> None:
    async with serving() as (server, client):
        (before,) = server.add("a")
        answer = await client.patch(before["id"], **fields)
    expected = "At least one field (content, visibility, tags, or category) must be provided"
    assert (answer.status, answer.detail) == (422, expected)


async def test_an_unknown_id_is_a_404() -> None:
    async with serving() as (_, client):
        answers = [await client.patch("nope", content="a"), await client.delete("nope")]
    assert [(answer.status, answer.detail) for answer in answers] == [(404, "Memory not found")] * 2


async def test_a_locked_memory_asks_for_a_plan_and_is_listed_cut() -> None:
    async with serving() as (server, client):
        (locked,) = server.add("x" * 100, locked=True)
        answers = [await client.patch(locked["id"], content="a"), await client.delete(locked["id"])]
        (listed,) = (await client.listed()).json
    said = "A paid plan is required to access this memory."
    assert [(answer.status, answer.detail) for answer in answers] == [(402, said)] * 2
    assert listed["content"] == "x" * 70 + "..."
    assert "locked" not in listed


async def test_the_list_is_newest_first_and_a_change_makes_a_memory_new() -> None:
    async with serving(clock=(clock := Clock())) as (server, client):
        ids = [row["id"] for row in server.add("a", "b", "c")]
        assert await client.texts() == ["c", "b", "a"]
        clock.now += 1
        await client.patch(ids[0], tags=["x"])
        assert await client.texts() == ["a", "c", "b"]
        assert [row["content"] for row in server.memories()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 25), ({"limit": 3}, 3), ({"limit": 0}, 1), ({"limit": -5}, 1), ({"limit": 9999}, 1000),
        ({"offset": 1003}, 2), ({"offset": -1, "limit": 2}, 2), ({"offset": 4000, "limit": 1000}, 0),
        ({"limit": "2.0"}, 2),
    ],
)  # fmt: skip
async def test_limit_and_offset_are_clamped(query: Any, expected: Any) -> None:
    async with serving() as (server, client):
        server.add(*map(str, range(1005)))
        assert len(await client.texts(**query)) == expected


async def test_pages_of_a_thousand_give_every_memory_once() -> None:
    async with serving() as (server, client):
        server.add(*[f"fact {n}" for n in range(2500)])
        pages = [await client.texts(limit=1000, offset=offset) for offset in (0, 1000, 2000, 3000)]
    assert list(map(len, pages)) == [1000, 1000, 500, 0]
    assert [text for page in pages for text in page] == [f"fact {n}" for n in reversed(range(2500))]


async def test_the_category_filter() -> None:
    async with serving() as (server, client):
        for category in ("work", "manual", "system"):
            server.add(category, category=category)
        assert await client.texts(categories="work, system") == ["system", "work"]
        assert await client.texts(categories="") == ["system", "manual", "work"]
        assert await client.texts(categories="skills") == []
        refused = await client.listed(categories="work,nonsense")
    assert (refused.status, refused.detail) == (400, "Invalid category. Please provide a valid category.")


@pytest.mark.parametrize(("limit", "offset"), [(1000, 4001), (1, 5000), (25, 10**30)])
async def test_the_list_has_a_wall(limit: int, offset: int) -> None:
    async with serving() as (server, client):
        server.add(*(f"fact {n}" for n in range(5002)))
        assert (await client.texts(limit=1000, offset=4000))[-1] == "fact 2"
        assert await client.texts(limit=1, offset=4999) == ["fact 2"]
        refused = await client.listed(limit=limit, offset=offset)
    assert (refused.status, refused.detail) == (413, "Memory pagination window exceeded")


async def test_the_wall_of_a_list_can_be_elsewhere_or_nowhere() -> None:
    async with serving(list_window=10) as (_, client):
        assert (await client.listed(limit=10)).status == 200
        assert (await client.listed(limit=11)).status == 413
    async with serving(list_window=None) as (_, client):
        assert await client.texts(offset=10**30) == []


async def test_a_list_by_category_reads_the_account_again_for_every_500_memories() -> None:
    async with serving(list_budget=2500) as (server, client):
        server.add(*(f"work {n}" for n in range(20)), category="work")
        server.add(*(f"fact {n}" for n in range(980)), category="manual")
        assert len(await client.texts(categories="work,manual", limit=1000)) == 1000
        assert await client.texts(categories="work") == [f"work {n}" for n in reversed(range(20))]
        server.add(*(f"fact {n}" for n in range(980, 1000)), category="manual")
        answer = await client.listed(categories="work")
        assert (answer.json, answer.headers["X-Omi-List-Truncated"]) == ([], "true")
        full = await client.listed(categories="manual", limit=1000)
        assert (len(full.json), full.headers.get("X-Omi-List-Truncated")) == (1000, None)
        assert len(await client.texts(limit=1000, offset=20)) == 1000  # without categories it reads once


async def test_a_very_large_account_lists_as_none() -> None:
    async with serving(list_budget=100) as (server, client):
        ids = [memory["id"] for memory in server.add(*map(str, range(100)))]
        assert len(await client.texts(limit=1000)) == 100
        await client.delete(ids[0])
        server.add("one more")  # the deleted one still counts
        for query in ({}, {"categories": "interesting"}):
            answer = await client.listed(**query)
            assert (answer.status, answer.json) == (200, [])
            assert answer.headers["X-Omi-List-Truncated"] == "true"


async def test_search_finds_what_an_hourly_job_has_seen() -> None:
    async with serving(clock=(clock := Clock())) as (_, client):
        await client.create("Likes tea")
        counts = []
        for _ in range(2):
            answer = await client.call("GET", SEARCH, params={"query": "tea"})
            counts.append(answer.json["returned_count"])
            clock.now += 3600
    assert counts == [0, 1]


async def test_search_scores_by_common_words() -> None:
    async with serving(search_lag=0) as (server, client):
        server.add("Likes green tea", "Likes coffee", "Lives in Ghent", category="manual")
        answer = await client.call("GET", SEARCH, params={"query": "GREEN tea", "limit": 2})
        everything = await client.call("GET", SEARCH, params={"query": "likes"})
    (item,) = answer.json["items"]
    assert (item["content"], item["category"], item["relevance_score"]) == (
        "Likes green tea",
        "interesting",
        2 / 3,
    )
    assert answer.json["policy"]["consumer"] == "developer_api"
    assert [item["content"] for item in everything.json["items"]] == ["Likes coffee", "Likes green tea"]
    assert everything.json["returned_count"] == 2


async def test_search_gives_twenty_at_most() -> None:
    async with serving(search_lag=0) as (server, client):
        server.add(*[f"tea {n}" for n in range(30)])
        answer = await client.call("GET", SEARCH, params={"query": "tea", "limit": 100})
    assert answer.json["returned_count"] == len(answer.json["items"]) == 20


async def test_ids_are_taken_as_they_come_percent_encoded() -> None:
    async with serving() as (_, client):
        answer = await client.call("DELETE", f"{MEMORIES}/a%20b%3F")
    assert answer.status == 404
    assert answer.detail == "Memory not found"
