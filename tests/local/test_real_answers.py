"""The stand-in answers 322 raw requests as the public backend's own code did.

`real_answers.jsonl` holds the requests and the answers of that run, one a line, in order: each builds on
those before it. ``{KEY:rw}``, ``{KEY:ro}`` and ``{KEY:wo}`` are keys with both, the read and the write
scope, ``{FIRST_ID}`` is the id of the first memory; ids are written ``<uuid>`` or ``<mem>``, moments
``<T>``, a long list as its count and its first memory, another long answer as its first 500 characters.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yarl

from omi_async.local import LocalServer

FILE = Path(__file__).parent / "real_answers.jsonl"
RECORDS = [json.loads(line) for line in FILE.read_text().splitlines()]

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MEM = re.compile(r"mem_[0-9a-f]{32}")
LONG = 500


@attrs.frozen
class Raw:
    """An answer as it came: aiohttp's client would tidy it up."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool


def body_of(record: dict[str, Any]) -> bytes:
    """Return the body of a request; two large ones are described only."""
    if "body_base64" in record:
        return base64.b64decode(record["body_base64"])
    if record["name"] == "big body":
        return json.dumps({"content": "x" * 3_000_000, "category": "work"}).encode()
    if record["name"] == "many tags big":
        tags = [f"t{number}" for number in range(20_000)]
        return json.dumps({"content": "many tags", "category": "work", "tags": tags}).encode()
    return str(record["body"]).encode()


def wire(record: dict[str, Any], names: dict[str, str]) -> bytes:
    """Write a request as it goes over the wire."""
    how, body = record.get("how", {}), body_of(record)
    head = [f"{record['method']} {record['path']} HTTP/{how.get('version', '1.1')}", "Host: x"]
    head += [f"{name}: {value}" for name, value in record["headers"].items()]
    if how.get("chunked"):
        head += ["Transfer-Encoding: chunked"]
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    elif body or record["method"] in {"POST", "PATCH"}:
        head += [f"Content-Length: {len(body)}"]
    text = "\r\n".join([*head, "", ""])
    for name, value in names.items():
        text = text.replace(name, value)
    return text.encode() + body


async def exchange(host: str, port: int, request: bytes, *, head: bool) -> Raw:
    """Send a request on a connection of its own, then a second one to learn whether that is still open."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        status, headers, body = await read_answer(reader, head=head)
        writer.write(b"GET /still-open HTTP/1.1\r\nHost: x\r\n\r\n")
        closed = await reader.read(1) == b""
    except ConnectionError:
        closed = True
    finally:
        writer.close()
    return Raw(status, headers, body, closed)


async def read_answer(reader: asyncio.StreamReader, *, head: bool) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {}
    for line in filter(None, lines[1:]):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b"" if head else await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, body


def shown(body: bytes) -> Any:
    """Write an answer as the file does."""
    text = UUID.sub("<uuid>", MEM.sub("<mem>", body.decode()))
    try:
        value = json.loads(text)
    except ValueError:
        return text
    for memory in memories_in(value):
        for name in ("created_at", "updated_at", "last_used_at"):
            if name in memory:
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", memory[name])
                memory[name] = "<T>"
    return value


def memories_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = value.get("memories")
    if isinstance(value, list):
        yield from value


CHOSEN_BY_A_MODEL = {"nocat", "nocat2", "cat None", "batch nocat 1", "batch nocat 22"}
"""Texts sent without a category: the service asks a language model for one, the stand-in guesses."""


def without_choices(value: Any) -> Any:
    """Leave out what a language model chose, and what an account has of its own."""
    if isinstance(value, list):
        return [without_choices(item) for item in value]
    if not isinstance(value, dict):
        return value
    left_out = {"category"} if value.get("content") in CHOSEN_BY_A_MODEL else set()
    if "key_prefix" in value:
        left_out = {"name", "key_prefix", "last_used_at"}
    return {name: without_choices(item) for name, item in value.items() if name not in left_out}


def abridged(value: Any, expected: Any) -> Any:
    """Shorten a long answer as the expected one is shortened."""
    if isinstance(expected, str) and len(expected) == LONG:
        return json.dumps(value)[:LONG]
    if isinstance(expected, dict) and expected.keys() == {"count", "first"}:
        return {"count": len(value), "first": value[0]}
    return value


async def test_every_recorded_request_is_answered_as_the_backend_answered_it() -> None:
    async with LocalServer() as server:
        url = yarl.URL(server.url)
        assert url.host is not None
        assert url.port is not None
        names = {
            "{KEY:rw}": server.api_key,
            "{KEY:ro}": server.add_key(scopes=["memories:read"]),
            "{KEY:wo}": server.add_key(scopes=["memories:write"]),
            "{KEY_UPPER:rw}": server.api_key.upper(),
        }
        for record in RECORDS:
            head = record["method"] == "HEAD"
            answer = await exchange(url.host, url.port, wire(record, names), head=head)
            if "{FIRST_ID}" not in names:
                names["{FIRST_ID}"] = json.loads(answer.body)["id"]
            expected = record["answer"]
            what = f"{record['name']}: {record['method']} {record['path']}"
            assert answer.status == record["status"], what
            assert answer.closed is record["connection_closed"], what
            found = abridged(shown(answer.body), expected)
            assert without_choices(found) == without_choices(expected), what
            for name in record["answer_headers"].keys() - {"connection"}:
                assert answer.headers[name] == record["answer_headers"][name], what


def test_the_records_are_all_there() -> None:
    assert len(RECORDS) == 322
    assert {record["status"] for record in RECORDS} == {200, 307, 400, 401, 403, 404, 405, 413, 422, 500}
