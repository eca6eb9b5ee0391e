"""The key stands nowhere but in the request: not in an error, not in its frames, not in a log."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

import aiohttp
import pytest

from omi_async import APIError, ConfigurationError, OmiError, Retry, Session
from tests.raw_server import Call, RawServer, raw_server

KEY = 'omi_dev_0123456789"abcdef\\'
"""With characters that JSON spells otherwise; a server echoes it in both ways."""

SECRET = "0123456789"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, the members of groups: each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [it for it in (current.__cause__, current.__context__) if it is not None]
        waiting += getattr(current, "exceptions", ())


def frames(trace: TracebackType | None) -> Iterator[tuple[str, dict[str, Any]]]:
    while trace is not None:
        frame = trace.tb_frame
        if f"{__name__}." not in f"{frame.f_globals.get('__name__')}.":  # the test itself knows the key
            yield f"{frame.f_code.co_filename}:{trace.tb_lineno} {frame.f_code.co_name}", frame.f_locals
        trace = trace.tb_next


def shown(value: Any) -> str:
    try:
        return f"{value!r} {value!s}" if isinstance(value, BaseException) else repr(value)
    except Exception:  # noqa: BLE001  # whatever it is, it must not show the key
        return ""


def places_of_the_key(error: BaseException) -> list[str]:
    """Look everywhere that a log, a crash reporter or a curious colleague may look."""
    places = []

    def look(place: str, text: str) -> None:
        if SECRET in text:
            places.append(place)

    for link in chain(error):
        name = type(link).__name__
        look(f"{name}: words", shown(link))
        look(f"{name}: args", shown(link.args))
        look(f"{name}: attributes", shown(vars(link)))
        look(f"{name}: values", " ".join(shown(value) for value in vars(link).values()))
        look(f"{name}: notes", shown(getattr(link, "__notes__", ())))
        for place, variables in frames(link.__traceback__):
            for variable, value in variables.items():
                look(f"{name}: {place}: {variable}", shown(value))
        if isinstance(link, OmiError):
            look(f"{name}: pickle", pickle.dumps(link).decode("latin-1"))
            look(f"{name}: copy", shown(vars(copy.deepcopy(link))))
    return places


async def failing(call: Awaitable[Any]) -> BaseException:
    try:
        await call
    except BaseException as error:  # noqa: BLE001  # whatever it is, it must not show the key
        return error
    raise AssertionError("it did not fail")


def everything_said(call: Call) -> str:
    return f"{call.headers['authorization']} and again {KEY}"


async def echo_body(call: Call) -> None:
    await call.answer(int(call.path.rpartition("=")[2] or 0) or 400, everything_said(call).encode())


async def echo_json(call: Call) -> None:
    body = {"detail": {"message": everything_said(call), "headers": call.headers, "list": [KEY]}}
    await call.answer(403, body, headers={"Content-Type": "application/json"})


async def echo_validation(call: Call) -> None:
    detail = [{"loc": ["header", KEY], "msg": everything_said(call), "input": call.headers}]
    await call.answer(422, {"detail": detail})


async def echo_headers(call: Call) -> None:
    headers = {"X-Echo": everything_said(call), "Set-Cookie": f"key={KEY}", f"X-{SECRET}-Name": "x"}
    await call.answer(500, b"no", headers={**headers, "WWW-Authenticate": f'Bearer realm="{KEY}"'})


async def echo_reason(call: Call) -> None:
    await call.answer(401, b"", reason=everything_said(call))


async def echo_location(call: Call) -> None:
    await call.answer(302, b"", headers={"Location": f"https://{SECRET}.example/{KEY}"})


async def echo_page(call: Call) -> None:
    page = f"<html><title>{everything_said(call)}</title>".encode()
    await call.answer(502, page, headers={"Content-Type": "text/html"})


async def echo_success(call: Call) -> None:
    body = {"id": 5, "content": everything_said(call), KEY: [KEY], "tags": KEY, "created_at": KEY}
    await call.answer(200, body, headers={"X-Echo": everything_said(call), "Content-Type": KEY})


async def echo_garbage(call: Call) -> None:
    await call.answer(200, everything_said(call).encode())


async def echo_status_line(call: Call) -> None:
    await call.send(f"HTTP/9.9 {everything_said(call)}\r\n\r\n".encode())


async def echo_broken_header(call: Call) -> None:
    await call.send(f"HTTP/1.1 200 OK\r\n{everything_said(call)}\r\n\r\n".encode())


async def echo_half_body(call: Call) -> None:
    await call.send(f"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{everything_said(call)}".encode())
    call.drop()


async def echo_bad_chunk(call: Call) -> None:
    await call.send(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz {everything_said(call)}\r\n".encode()
    )


async def drop(call: Call) -> None:
    call.drop()


async def reset(call: Call) -> None:
    call.writer.transport.abort()


async def silent(_call: Call) -> None:
    await asyncio.Event().wait()


# A header name may hold no quote and no backslash: the server can only echo a part, and that is no key.
HANDLES = [
    echo_body,
    echo_json,
    echo_validation,
    echo_reason,
    echo_page,
    echo_success,
    echo_garbage,
    echo_status_line,
    echo_broken_header,
    echo_half_body,
    echo_bad_chunk,
    drop,
    reset,
    silent,
]

CALLS: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "create": lambda session: session.memories.create("a"),
    "delete": lambda session: session.memories.delete("a"),
    "list": lambda session: session.memories.list(),
}


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    lines = [f"{record.getMessage()} {record.args!r} {vars(record)!r}" for record in caplog.records]
    assert SECRET not in "".join(lines)


@pytest.mark.virtual_clock
@pytest.mark.parametrize("handle", HANDLES, ids=lambda handle: handle.__name__)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("attempts", [1, 2])
async def test_no_failure_of_a_call_shows_the_key(
    handle: Callable[[Call], Awaitable[None]], call: Callable[[Session], Awaitable[Any]], attempts: int
) -> None:
    once_or_twice = Retry(attempts=attempts)
    async with (
        raw_server(handle) as server,
        Session(KEY, base_url=server.url, retry=once_or_twice) as session,
    ):
        error = await failing(call(session))
    assert isinstance(error, OmiError)
    assert places_of_the_key(error) == []
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert SECRET not in text.replace(KEY, "")


@pytest.mark.parametrize("handle", [echo_headers, echo_location], ids=lambda handle: handle.__name__)
async def test_an_echo_in_the_headers_is_taken_out_of_them(handle: Callable[[Call], Awaitable[None]]) -> None:
    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        error = await failing(session.memories.create("a"))
    assert isinstance(error, APIError)
    assert KEY not in repr(sorted(error.headers.items()))
    assert KEY not in str(error)


async def test_the_headers_of_an_error_stay_what_they_were() -> None:
    async def handle(call: Call) -> None:
        await call.send(b"HTTP/1.1 418 X\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n")

    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        error = await failing(session.memories.create("a"))
    assert isinstance(error, APIError)
    twin = pickle.loads(pickle.dumps(error))
    for headers in (error.headers, twin.headers):
        assert headers["x-a"] == "1"
        assert [value for name, value in headers.items() if name == "X-A"] == ["1", "2"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9", "https://127.0.0.1:9", "https://nowhere.invalid", f"https://{'a' * 64}.example"],
)
async def test_no_failure_to_reach_the_server_shows_the_key(url: str) -> None:
    async with Session(KEY, base_url=url, retry=Retry(attempts=1)) as session:
        assert places_of_the_key(await failing(session.memories.create("a"))) == []


@pytest.mark.parametrize(
    "moment", ["connecting", "waiting", "reading", "sending", "between attempts", "for a permit"]
)
async def test_no_cancellation_shows_the_key(moment: str) -> None:
    arrived = asyncio.Event()

    async def handle(call: Call) -> None:
        arrived.set()
        if moment == "reading":
            await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[")
        elif moment == "between attempts":
            await call.answer(429, b"", headers={"Retry-After": "3600"})
        await asyncio.Event().wait()

    async def stuck(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed's WriteTransport cannot pause
        arrived.set()

    writers: list[asyncio.StreamWriter] = []
    deaf = await asyncio.start_server(stuck, "127.0.0.1", 0)
    async with raw_server(handle) as server:
        url = f"http://127.0.0.1:{deaf.sockets[0].getsockname()[1]}" if moment == "sending" else server.url
        async with Session(KEY, base_url=url, connections=1, max_wait=7200) as session:
            if moment == "for a permit":
                await session.pacing.acquire("list")
            many = ["x" * 490 + str(number) for number in range(25)]
            calls = [asyncio.create_task(session.memories.create_batch(many)) for _ in range(2)]
            if moment in {"waiting", "reading", "sending", "between attempts"}:
                await arrived.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            errors = await asyncio.gather(*map(failing, calls))
    for writer in writers:
        writer.close()
    deaf.close()
    assert {type(error) for error in errors} == {asyncio.CancelledError}
    assert [places_of_the_key(error) for error in errors] == [[], []]


async def test_what_a_middleware_or_a_hook_of_the_user_raises_does_not_show_it() -> None:
    async def breaking(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await (await handler(request)).read()
        raise ZeroDivisionError

    async def hook(*_args: Any) -> None:
        raise ZeroDivisionError

    async def handle(call: Call) -> None:
        await call.answer(body=[])

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(hook)
    async with raw_server(handle) as server:
        async with Session(KEY, base_url=server.url, trace_configs=[trace]) as session:
            hooked = await failing(session.memories.list())
        async with (
            aiohttp.ClientSession(middlewares=(breaking,)) as client,
            Session(KEY, base_url=server.url, client=client) as session,
        ):
            broken = await failing(session.memories.list())
    for error in (hooked, broken):
        assert isinstance(error, ZeroDivisionError)
        assert places_of_the_key(error) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": f"{KEY} "[:-1] + "\n1"},
        {"api_key": KEY, "base_url": "nonsense"},
        {"api_key": KEY, "base_url": KEY},
        {"api_key": KEY, "base_url": f"https://{KEY}@h.example"},
        {"api_key": KEY, "base_url": f"https://h.example/?{KEY}"},
        {"api_key": KEY, "base_url": f"ftp://h.example/{KEY}"},
        {"api_key": KEY, "base_url": "http://h.example"},
        {"api_key": KEY, "timeout": -1},
        {"api_key": KEY, "connections": 0},
        {"api_key": KEY, "connections": "many"},
        {"api_key": KEY, "timeout": "long"},
    ],
    ids=lambda settings: repr(settings)[-50:],
)
def test_no_mistake_in_the_configuration_shows_the_key(settings: dict[str, Any]) -> None:
    try:
        Session(**settings)
    except (ConfigurationError, TypeError) as error:
        hidden = {"base_url", "given", "text", "url"} if KEY in str(settings.get("base_url")) else set()
        places = places_of_the_key(error)
        assert [place for place in places if place.rpartition(": ")[2] not in hidden] == []
    else:
        raise AssertionError("it was accepted")


def test_a_key_from_the_environment_is_as_well_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_API_KEY", f"{KEY}\u00e4")
    with pytest.raises(ConfigurationError) as caught:
        Session()
    assert places_of_the_key(caught.value) == []


async def test_the_session_and_all_its_parts_do_not_show_it() -> None:
    async with Session(KEY, base_url="http://127.0.0.1:9") as session:
        client = session._client
        for thing in (
            session,
            vars(session),
            session._headers,
            session.memories,
            vars(session.memories),
            client,
        ):
            assert SECRET not in repr(thing)
        assert f"{session._key}" == KEY
        assert json.dumps(session._headers)  # it is a str all the same


async def test_the_search_finds_what_there_is_to_find() -> None:
    """The walk over errors and frames would see a key that is there."""

    def frame_with(variable: str) -> None:
        raise OmiError(f"{len(variable)} characters")

    error = OmiError("words")
    error.add_note(KEY)
    error.__cause__ = APIError("m", status=400, detail=[KEY], headers={"a": KEY})
    error.__context__ = ValueError(KEY)
    found = {place.partition(":")[0] for place in places_of_the_key(error)}
    assert found == {"OmiError", "APIError", "ValueError"}
    async with raw_server(drop) as server, aiohttp.ClientSession() as client:
        # What aiohttp itself would show: the reason for all of this.
        bare = await failing(client.get(server.url, headers={"Authorization": f"Bearer {KEY}"}))
    assert any("client.py" in place for place in places_of_the_key(bare))
    assert isinstance(RawServer(), RawServer)
