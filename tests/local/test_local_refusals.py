"""The refusals of FastAPI and pydantic, recorded from an app with the models of the published document."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yarl

from tests.local.local_client import BATCH, MEMORIES, serving

RECORDED = json.loads(Path(__file__).with_name("fastapi_refusals.json").read_text())


def _name(case: Any) -> Any:
    return f"{case['method']} {case['path'].removeprefix(MEMORIES)} {case['body'][:30]}"


@pytest.mark.parametrize("case", RECORDED, ids=_name)
async def test_refuses_in_the_words_of_fastapi(case: Any) -> None:
    headers = {"Content-Type": case["content_type"]} if case["content_type"] else {}
    data = case["body"].encode("latin-1") or None
    async with serving() as (server, client):
        answer = await client.call(
            case["method"],
            yarl.URL(case["path"], encoded=True),
            data=data,
            headers=headers,
            skip_auto_headers=["Content-Type"],
        )
        assert server.memories() == []
    assert answer.status == case["status"]
    if answer.headers["Content-Type"] == "application/json" and answer.body:
        assert _told(answer.json) == _told(case["answer"])
    else:
        assert answer.body.decode() == case["answer"]


def _told(answer: Any) -> Any:
    """Leave json's own column and words out if they are not those of 3.11, on which FastAPI was asked."""
    match answer:
        case {"detail": [{"type": "json_invalid", "msg": message}]} if sys.version_info >= (3, 13):
            return message
        case _:
            return answer


async def test_a_redirect_and_a_405_say_where_to_go() -> None:
    async with serving() as (server, client):
        redirect = await client.call("GET", f"{MEMORIES}/")
        not_allowed = await client.call("POST", f"{MEMORIES}/1")
        assert redirect.status == 307
        assert redirect.headers["Location"] == f"{server.url}{MEMORIES}"
    assert not_allowed.headers["Allow"] == "DELETE"


@pytest.mark.parametrize("blank", ["  ", "\n\t", "\u00a0", "\u3000"])
async def test_blank_content_is_refused_in_a_sentence_of_its_own(blank: Any) -> None:
    async with serving() as (server, client):
        (memory,) = server.add("kept")
        single = await client.create(blank)
        batch = await client.batch("good", blank)
        patch = await client.patch(memory["id"], content=blank)
        assert [row["content"] for row in server.memories()] == ["kept"]
    assert (single.status, single.detail) == (422, "content cannot be empty")
    assert (batch.status, batch.detail) == (422, "All memories must have non-empty content")
    assert (patch.status, patch.detail) == (422, "content must not be empty")


async def test_the_length_is_checked_before_stripping_and_counts_code_points() -> None:
    async with serving() as (server, client):
        assert (await client.create("\N{PILE OF POO}" * 500)).status == 200
        assert (await client.create(" " + "x" * 500)).detail[0]["type"] == "string_too_long"
        assert (await client.create("x" * 498 + "  ")).json["content"] == "x" * 498
        assert [len(row["content"]) for row in server.memories()] == [500, 498]


async def test_a_batch_that_is_too_long_is_refused_whole() -> None:
    async with serving() as (server, client):
        answer = await client.batch(*map(str, range(26)))
        assert server.memories() == []
    (problem,) = answer.detail
    assert (problem["type"], problem["loc"], len(problem["input"])) == ("too_long", ["body", "memories"], 26)


async def test_a_bad_item_is_named_by_its_index_and_nothing_is_stored() -> None:
    items = [{"content": "a"}, {"content": "b", "category": "nonsense"}, {"content": ""}]
    async with serving() as (server, client):
        answer = await client.call("POST", BATCH, json={"memories": items})
        assert server.memories() == []
    assert [problem["loc"][2:] for problem in answer.detail] == [[1, "category"], [2, "content"]]


async def test_the_largest_honest_batch_fits_and_a_larger_body_is_a_413() -> None:
    fact = {"content": "\x00" * 500, "tags": ["t" * 1000] * 500}
    batch = json.dumps({"memories": [fact] * 25}).encode()
    headers = {"Content-Type": "application/json"}
    async with serving() as (server, client):
        assert (await client.call("POST", BATCH, data=io.BytesIO(batch), headers=headers)).status == 200
        too_large = await client.call("POST", BATCH, data=io.BytesIO(batch * 2), headers=headers)
        assert too_large.status == 413
        assert [record.status for record in server.requests] == [200, 413]


async def test_a_body_with_a_byte_order_mark_is_read_as_the_service_reads_it() -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    async with serving() as (_, client):
        answer = await client.call(
            "POST", MEMORIES, data=b'\xef\xbb\xbf{"content": "a", "unknown": NaN}', headers=headers
        )
    assert (answer.status, answer.json["content"]) == (200, "a")


async def test_a_body_nested_beyond_reason_is_no_body() -> None:
    async with serving() as (_, client):
        answer = await client.call(
            "POST", MEMORIES, data=b"[" * 100_000, headers={"Content-Type": "application/json"}
        )
    assert (answer.status, answer.detail) == (400, "There was an error parsing the body")
