"""Searching by meaning, and asking about the key; and what users get as JSON."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_async import (
    AuthenticationError,
    Fact,
    FactOutcome,
    FoundMemory,
    KeyInfo,
    Memory,
    NotFoundError,
    PermissionDeniedError,
    QuotaPolicy,
    RateLimitError,
    ResponseFormatError,
    Session,
)
from omi_async.local import Fault, LocalServer
from tests.raw_server import Call, raw_server


@pytest.mark.virtual_clock
async def test_a_search_gives_what_fits_best_first(server: LocalServer, session: Session) -> None:
    server.add("User likes tea", "User likes green tea a lot", "User lives in Oslo")
    await asyncio.sleep(7200)  # only what the server has processed is found
    found = await session.memories.search("user likes green tea a lot", limit=2)
    assert [memory.content for memory in found] == ["User likes green tea a lot", "User likes tea"]
    assert 1 >= found[0].relevance_score > found[1].relevance_score > 0
    assert await session.memories.search("nothing of the kind") == []
    assert [record.kind for record in server.requests] == ["search", "search"]


@pytest.mark.parametrize(
    ("query", "limit"), [("", 10), (" \n", 10), ("\ud800", 10), ("tea", 0), ("tea", 101)], ids=repr
)
async def test_a_search_that_is_none_is_not_sent(
    server: LocalServer, session: Session, query: str, limit: int
) -> None:
    with pytest.raises(ValueError, match=r"nothing to search for|limit must be|surrogate"):
        await session.memories.search(query, limit=limit)
    assert not server.requests


async def test_a_search_is_asked_as_it_is_written() -> None:
    async def handle(call: Call) -> None:
        await call.answer(body={"items": [], "returned_count": 0})

    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        await session.memories.search("tea & cake? +1 é")
    path = "/v1/dev/user/memories/vector/search?query=tea+%26+cake%3F+%2B1+%C3%A9&limit=10"
    assert server.sent == [f"GET {path}"]


@pytest.mark.parametrize(
    ("items", "read"),
    [
        ([{"id": "1", "relevance_score": 1}], [FoundMemory(id="1", relevance_score=1.0)]),
        ([{"id": "1", "content": None, "relevance_score": "high"}], [FoundMemory(id="1")]),
        ([{"id": "1", "relevance_score": True, "extra": {}}], [FoundMemory(id="1")]),
    ],
)
async def test_an_odd_find_hides_no_other(items: list[Any], read: list[FoundMemory]) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body={"items": [*items, {"id": "2", "content": "b"}]})

    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        assert await session.memories.search("x") == [*read, FoundMemory(id="2", content="b")]


@pytest.mark.parametrize("body", [[], {}, {"items": None}, {"items": [7]}, "x"], ids=repr)
async def test_an_answer_that_is_no_search_is_named(body: Any) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=body)

    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        with pytest.raises(ResponseFormatError, match="items"):
            await session.memories.search("x")


@pytest.mark.virtual_clock
async def test_a_search_spends_the_quota_of_lists(server: LocalServer) -> None:
    policy = QuotaPolicy(2, 60, kinds=["list", "search"])
    async with Session(server.api_key, base_url=server.url, quotas=[policy], max_wait=0) as session:
        await session.memories.list()
        await session.memories.search("x")
        with pytest.raises(RateLimitError):
            await session.memories.search("x")


async def test_the_key_says_what_it_is_and_may_do(server: LocalServer) -> None:
    key = server.add_key(scopes=["memories:read"])
    async with Session(key, base_url=server.url) as session:
        info = await session.key_info()
        assert isinstance(info, KeyInfo)
        assert info.scopes == ("memories:read",)
        assert info.created_at is not None
        assert info.id
        assert info.key_prefix not in repr(info)
    assert [record.kind for record in server.requests] == ["key"]


async def test_a_wrong_key_is_told(server: LocalServer) -> None:
    async with Session("omi_dev_0", base_url=server.url) as session:
        with pytest.raises(AuthenticationError, match="cannot ask about the key: 401"):
            await session.key_info()


async def test_an_older_server_that_cannot_tell_says_so(server: LocalServer, session: Session) -> None:
    server.faults.add(Fault.answer(404, "Not Found"), on="key")
    with pytest.raises(NotFoundError, match=r"404 Not Found: Not Found \(this server is too old to tell"):
        await session.key_info()


async def test_a_key_without_a_scope_searches_nothing(server: LocalServer) -> None:
    async with Session(server.add_key(scopes=["memories:write"]), base_url=server.url) as session:
        with pytest.raises(PermissionDeniedError, match="memories:read"):
            await session.memories.search("x")


@pytest.mark.parametrize("scopes", [None, [], ["a", "b"]])
async def test_a_key_may_have_no_scopes_of_its_own(scopes: list[str] | None) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body={"id": "k", "name": "lab", "scopes": scopes, "last_used_at": None, "x": 1})

    async with raw_server(handle) as server, Session("key", base_url=server.url) as session:
        assert await session.key_info() == KeyInfo(id="k", name="lab", scopes=tuple(scopes or ()))


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            Fact("a", category="work", tags=["x"], origin="f.csv:1"),
            {"content": "a", "category": "work", "visibility": "private", "tags": ["x"], "origin": "f.csv:1"},
        ),
        (
            FoundMemory(id="1", content="a", relevance_score=0.5),
            {"id": "1", "content": "a", "category": "interesting", "relevance_score": 0.5},
        ),
        (
            KeyInfo(id="1", name="lab", key_prefix="omi_dev_a...b", scopes=("s",), created_at=NOON),
            {
                "id": "1",
                "name": "lab",
                "key_prefix": "omi_dev_a...b",
                "scopes": ["s"],
                "created_at": "2026-11-22T12:00:00Z",
                "last_used_at": None,
            },
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_users_get_is_json_ready(value: Any, expected: dict[str, Any]) -> None:
    assert value.to_dict() == expected
    assert json.loads(json.dumps(value.to_dict())) == expected


def test_a_memory_as_json_is_what_the_service_shows() -> None:
    memory = Memory(id="1", content="a", tags=("x",), created_at=NOON, scoring="01")
    shown = json.loads(json.dumps(memory.to_dict()))
    assert shown == {
        "id": "1",
        "content": "a",
        "category": "interesting",
        "visibility": "private",
        "tags": ["x"],
        "created_at": "2026-11-22T12:00:00Z",
        "updated_at": None,
        "manually_added": False,
        "scoring": "01",
        "reviewed": False,
        "user_review": None,
        "edited": False,
    }


@given(
    st.builds(
        Fact,
        st.text(st.characters(codec="utf-8"), min_size=1).filter(
            lambda text: text.strip() != "" and len(text) < 500
        ),
    )
)
def test_a_fact_survives_json(fact: Fact) -> None:
    assert Fact(**json.loads(json.dumps(fact.to_dict()))) == fact


@pytest.mark.virtual_clock
async def test_a_report_and_its_outcomes_are_json_ready(server: LocalServer, session: Session) -> None:
    outcomes: list[FactOutcome] = []
    facts: list[Any] = [Fact("a", tags=["x"], origin="f.csv:1"), {"content": 7}, "b", "b"]
    report = await session.memories.import_facts(facts, on_outcome=outcomes.append)
    shown = json.loads(json.dumps(report.to_dict()))
    assert {
        name: shown[name] for name in ("pulled", "created", "invalid", "duplicate", "ok", "complete")
    } == {
        "pulled": 4,
        "created": 2,
        "invalid": 1,
        "duplicate": 1,
        "ok": False,
        "complete": True,
    }
    assert (shown["resume_at"], shown["waiting_for"]) == (None, None)
    assert shown["failures"] == [outcome.to_dict() for outcome in report.failures]
    assert shown["failures"][0]["error"] == "content: must be a string, not int"
    stored = next(outcome for outcome in outcomes if outcome.index == 0)
    assert json.loads(json.dumps(stored.to_dict())) == {
        "index": 0,
        "state": "created",
        "fact": facts[0].to_dict(),
        "memory_id": stored.memory_id,
        "error": None,
        "origin": "f.csv:1",
    }


@pytest.mark.virtual_clock
async def test_a_report_that_waits_says_for_what(server: LocalServer) -> None:
    seen: list[dict[str, Any]] = []
    policy = QuotaPolicy(1, 3600, kinds=["batch"])
    async with Session(server.api_key, base_url=server.url, quotas=[policy]) as session:
        await session.memories.import_facts(
            (f"fact {number}" for number in range(50)),
            on_progress=lambda report: seen.append(json.loads(json.dumps(report.to_dict()))),
        )
        states = [state.to_dict() for state in session.quotas]
    assert json.loads(json.dumps(states))[0]["kinds"] == ["batch"]
    assert "1-an-hour" in [(it["waiting_for"] or {}).get("policy") for it in seen]
