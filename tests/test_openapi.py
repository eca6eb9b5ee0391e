"""Requests and answers against the service's official OpenAPI document (its part on memories)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_async import Fact, Session
from omi_async._api.endpoints import (
    create_batch,
    create_memory,
    delete_memory,
    import_batch,
    import_single,
    list_for_import,
    list_memories,
    update_memory,
)
from omi_async._api.messages import Request
from omi_async.fact import fact_payload
from omi_async.local import LocalServer

DOCUMENT: Final = json.loads((Path(__file__).parent / "wire/omi_openapi_memories.json").read_bytes())
PATHS: Final[dict[str, Any]] = DOCUMENT["paths"]


def validate(instance: Any, schema: dict[str, Any]) -> None:
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "components": DOCUMENT["components"],
    }
    jsonschema.validate(instance, whole)


def operation(method: str, path: str) -> dict[str, Any]:
    template = path if path in PATHS else path.rpartition("/")[0] + "/{memory_id}"
    found: dict[str, Any] = PATHS[template][method.lower()]
    return found


def check(request: Request[Any]) -> None:
    """Hold a request against the document: its path, its query, its body."""
    parts = urlsplit(request.path)
    described = operation(request.method, parts.path)
    allowed = {
        parameter["name"] for parameter in described.get("parameters", ()) if parameter["in"] == "query"
    }
    assert parse_qs(parts.query).keys() <= allowed
    body = described.get("requestBody")
    assert (request.body is not None) == (body is not None)
    if body is not None and request.body is not None:
        schema = body["content"]["application/json"]["schema"]
        validate(json.loads(request.body), schema)
        properties = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
        assert json.loads(request.body).keys() <= properties.keys()


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=500).filter(str.strip)
categories = DOCUMENT["components"]["schemas"]["MemoryCategory"]["enum"]
facts = st.builds(
    Fact,
    texts,
    category=st.none() | st.sampled_from(categories),
    visibility=st.sampled_from(["private", "public"]),
    tags=st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=3),
)


@given(facts, st.lists(facts, min_size=1, max_size=25))
def test_what_is_sent_is_what_the_document_describes(fact, batch) -> None:
    payloads = [fact_payload(each) for each in batch]
    requests = create_memory(fact), import_single(payloads[0]), create_batch(batch), import_batch(payloads)
    for request in requests:
        check(request)
    check(update_memory("mem_1", {"content": fact.content, "visibility": fact.visibility, "tags": fact.tags}))


@pytest.mark.parametrize(
    "request_",
    [
        list_memories(),
        list_memories(limit=1000, offset=5, categories=["interesting", "system"]),
        list_for_import(limit=10, offset=0),
        delete_memory("mem/1 ä"),
        update_memory("..x", {"category": "work"}),
    ],
    ids=str,
)
def test_reading_and_changing_as_the_document_describes(request_) -> None:
    check(request_)


async def test_the_stand_in_answers_as_the_document_describes(server: LocalServer, session: Session) -> None:
    await session.memories.import_facts([f"User likes {n}" for n in range(3)])
    headers = {"Authorization": f"Bearer {server.api_key}"}
    memory_id = server.memories()[0]["id"]
    calls: list[tuple[str, str, Any, int]] = [
        ("GET", "", None, 200),
        ("GET", "?limit=x", None, 422),
        ("POST", "", {"content": "User sings"}, 200),
        ("POST", "", {"content": ""}, 422),
        ("POST", "/batch", {"memories": [{"content": "a"}, {"content": "b"}]}, 200),
        ("POST", "/batch", {"memories": [{"content": "a"}] * 26}, 422),
        ("PATCH", f"/{memory_id}", {"content": "User hums"}, 200),
        ("PATCH", "/nowhere", {"content": "User hums"}, 404),
        ("DELETE", f"/{memory_id}", None, 200),
    ]
    async with aiohttp.ClientSession(headers=headers) as client:
        for method, path, body, status in calls:
            async with client.request(
                method, f"{server.url}/v1/dev/user/memories{path}", json=body
            ) as answer:
                assert answer.status == status
                described = operation(method, f"/v1/dev/user/memories{path.partition('?')[0]}")["responses"]
                described = described[str(status)]
                if "$ref" in described:
                    described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
                validate(await answer.json(), described["content"]["application/json"]["schema"])
