"""One attempt over real HTTP: turns, time, bounds, redirects, and servers that behave badly."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import omi_async._transport
from omi_async import (
    APIError,
    ConnectError,
    Memory,
    OmiError,
    ResponseFormatError,
    ResponseLostError,
    Retry,
    ServerError,
    Session,
)
from omi_async.local import Fault, LocalServer
from tests.clock import elapsed
from tests.raw_server import Call, RawServer, raw_server

KEY = "omi_dev_0123456789abcdef"
ONCE = Retry(attempts=1)

PAGE = json.dumps([{"id": f"m{number}"} for number in range(40)]).encode()


async def listed(server: RawServer, **settings: Any) -> list[Memory]:
    async with Session(KEY, base_url=server.url, **{"retry": ONCE, **settings}) as session:
        return await session.memories.list()


def now() -> float:
    return asyncio.get_running_loop().time()


# Turns


@pytest.mark.virtual_clock
@pytest.mark.parametrize(("callers", "connections"), [(1, 8), (50, 8), (50, 3), (5, 1), (120, 120)])
async def test_no_more_calls_than_connections_are_on_the_wire(callers: int, connections: int) -> None:
    async with LocalServer() as server:
        server.faults.add(Fault.slow(1.0), times=callers)
        async with Session(server.api_key, base_url=server.url, connections=connections) as session:
            started = now()
            results = await asyncio.gather(*(session.memories.create(f"fact {n}") for n in range(callers)))
            assert elapsed(started) == pytest.approx(-(-callers // connections), rel=0.1)
        assert server.max_in_flight == min(callers, connections)
        assert [memory.content for memory in results] == [f"fact {n}" for n in range(callers)]


@pytest.mark.virtual_clock
async def test_the_wait_for_a_turn_counts_against_no_timeout() -> None:
    async def handle(call: Call) -> None:
        await asyncio.sleep(9)
        await call.answer(body=[])

    async with raw_server(handle) as server:
        async with Session(KEY, base_url=server.url, connections=1, timeout=10, retry=ONCE) as session:
            started = now()
            await asyncio.gather(*(session.memories.list() for _ in range(5)))
            assert elapsed(started) == pytest.approx(45, abs=1)
        assert server.most_open == 1


@pytest.mark.parametrize("when", ["waiting for the answer", "waiting for a permit"])
async def test_a_cancelled_call_gives_its_turn_and_its_connection_back(when: str) -> None:
    arrived = asyncio.Event()

    async def handle(call: Call) -> None:
        if call.number == 1:
            arrived.set()
            await asyncio.Event().wait()
        await call.answer(body=[])

    async with raw_server(handle) as server:
        async with Session(KEY, base_url=server.url, connections=1, retry=ONCE) as session:
            first = asyncio.create_task(session.memories.list())
            await arrived.wait()
            second = asyncio.create_task(session.memories.list())
            await asyncio.sleep(0)
            if when == "waiting for a permit":
                second.cancel()
                await asyncio.wait([second])
                assert second.cancelled()
            first.cancel()
            await asyncio.wait([first, second])
            assert first.cancelled()
            assert await session.memories.list() == []
            (await asyncio.wait_for(session.pacing.acquire("list"), 1)).give_back()
            client = session._client
            assert client is not None
            assert client.connector is not None
            assert not client.connector._acquired
        assert server.most_open <= 2


# Time


@pytest.mark.virtual_clock
@pytest.mark.parametrize("stuck", ["before the answer", "in the headers", "in the body", "in the chunks"])
async def test_an_answer_that_does_not_come_in_time_is_lost(stuck: str) -> None:
    parts = {
        "before the answer": b"",
        "in the headers": b"HTTP/1.1 200 OK\r\nContent-",
        "in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
        "in the chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n",
    }

    async def handle(call: Call) -> None:
        await call.send(parts[stuck])
        await asyncio.Event().wait()

    async with raw_server(handle) as server:
        started = now()
        with pytest.raises(
            ResponseLostError, match=r"cannot list memories at http.*: no answer in time"
        ) as caught:
            await listed(server, timeout=30)
        assert elapsed(started) == pytest.approx(30, abs=1)
        assert caught.value.maybe_applied


@pytest.mark.virtual_clock
async def test_an_answer_that_trickles_forever_is_lost_in_time() -> None:
    async def handle(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await call.send(b"1\r\n \r\n")
            await asyncio.sleep(1)

    async with raw_server(handle) as server:
        started = now()
        with pytest.raises(ResponseLostError, match="no answer in time"):
            await listed(server)
        assert elapsed(started) == pytest.approx(30, abs=1.5)


@pytest.mark.virtual_clock
async def test_a_batch_may_take_longer() -> None:
    async def handle(call: Call) -> None:
        await asyncio.sleep(100)
        await call.answer(body={"memories": [{"id": "1"}]})

    async with raw_server(handle) as server, Session(KEY, base_url=server.url, retry=ONCE) as session:
        assert len(await session.memories.create_batch(["a"])) == 1
        with pytest.raises(ResponseLostError):
            await session.memories.create("a")


# Not reached


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_server_that_is_not_there_was_never_reached() -> None:
    with pytest.raises(ConnectError, match=r"the server was not reached .Connect") as caught:
        await listed(RawServer(f"http://127.0.0.1:{unused_port()}"))
    assert not caught.value.maybe_applied
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_host_without_an_address_was_never_reached() -> None:
    with pytest.raises(ConnectError, match=r"no address for the host nowhere.invalid"):
        await listed(RawServer("https://nowhere.invalid"))


async def test_a_host_name_that_none_can_have_is_a_matter_of_configuration() -> None:
    with pytest.raises(OmiError):
        await listed(RawServer(f"https://{'a' * 64}.example"))


async def test_plain_http_if_tls_is_expected_was_never_reached(server: LocalServer) -> None:
    with pytest.raises(ConnectError, match="not reached"):
        await listed(RawServer(server.url.replace("http://", "https://")))


@pytest.mark.virtual_clock
async def test_a_server_that_does_not_shake_hands_was_never_reached() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    started = now()
    with pytest.raises(ConnectError, match="connecting took too long"):
        await listed(RawServer(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"))
    assert elapsed(started) == pytest.approx(10, abs=1)
    listening.close()
    for writer in held:
        writer.close()


CERTIFICATE = Path(__file__).parent / "wire" / "localhost.pem"


async def test_a_certificate_that_no_one_signed_was_never_reached() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)

    async def handle(call: Call) -> None:
        await call.answer(body=[])

    async with raw_server(handle, tls=tls) as server:
        with pytest.raises(ConnectError, match="its certificate is not valid: self-signed certificate"):
            await listed(server)
        assert server.calls == []


# Lost answers


async def _dropped(call: Call) -> None:
    call.drop()


async def _reset(call: Call) -> None:
    call.writer.transport.abort()


def _sends(data: bytes, *, drop: bool = True) -> Callable[[Call], Awaitable[None]]:
    async def handle(call: Call) -> None:
        await call.send(data)
        if drop:
            call.drop()

    return handle


OK = b"HTTP/1.1 200 OK\r\n"
GZIP = OK + b"Content-Encoding: gzip\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

LOST = {
    "dropped": _dropped,
    "reset": _reset,
    "half a status line": _sends(b"HTTP/1.1 20"),
    "no HTTP": _sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a status that is no number": _sends(b"HTTP/1.1 abc OK\r\n\r\n"),
    "half a header": _sends(OK + b"Content-Le"),
    "a header without a name": _sends(OK + b": x\r\n\r\n"),
    "two lengths": _sends(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n[]"),
    "a length that is no number": _sends(OK + b"Content-Length: many\r\n\r\n[]"),
    "a header of 100,000 bytes": _sends(OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n"),
    "half a body": _sends(OK + b"Content-Length: 10\r\n\r\n[]"),
    "half a chunk": _sends(CHUNKED + b"10\r\n[]"),
    "no last chunk": _sends(CHUNKED + b"2\r\n[]\r\n"),
    "a chunk of no size": _sends(CHUNKED + b"zz\r\n[]\r\n"),
    "no gzip": _sends(GZIP + b"Content-Length: 2\r\n\r\n[]"),
    "no deflate": _sends(OK + b"Content-Encoding: deflate\r\nContent-Length: 2\r\n\r\n[]"),
}


@pytest.mark.parametrize("handle", LOST.values(), ids=LOST.keys())
async def test_an_answer_that_is_no_answer_is_lost(handle: Callable[[Call], Awaitable[None]]) -> None:
    async with raw_server(handle) as server:
        async with Session(KEY, base_url=server.url) as session:
            with pytest.raises(ResponseLostError, match="cannot create a memory at http") as caught:
                await session.memories.create("a secret")
        assert caught.value.maybe_applied
        assert "secret" not in str(caught.value)
        assert len(server.calls) == 1  # a POST is not made again


async def test_half_a_gzip_is_no_answer_either() -> None:
    data = gzip.compress(PAGE)[:30]
    async with raw_server(_sends(GZIP + b"Content-Length: 30\r\n\r\n" + data)) as server:
        with pytest.raises((ResponseLostError, ResponseFormatError)):
            await listed(server)


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (GZIP + b"Content-Length: %d\r\n\r\n%s" % (len(gzip.compress(PAGE)), gzip.compress(PAGE)), 40),
        (OK + b"Content-Encoding: deflate\r\nConnection: close\r\n\r\n" + zlib.compress(PAGE), 40),
        (CHUNKED + b"1\r\n[\r\n1\r\n]\r\n0\r\n\r\n", 0),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", 0),
        (OK + b"Content-Type: text/plain; charset=utf-16\r\nContent-Length: 2\r\n\r\n[]", 0),
    ],
    ids=["gzip", "deflate", "chunked", "HTTP/1.0", "100 Continue", "another charset is declared"],
)
async def test_an_unusual_answer_is_an_answer(data: bytes, result: int) -> None:
    async with raw_server(_sends(data)) as server:
        assert len(await listed(server)) == result


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"], ids=["of no length", "of 5 bytes"])
async def test_an_answer_that_switches_protocols_leaves_nothing_open(length: bytes) -> None:
    # Catches: a body that is read to its end, and a connection that aiohttp does not take back for all that.
    asyncio.get_running_loop().set_debug(True)  # aiohttp warns then
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    async with (
        raw_server(_sends(switching + length + b"\r\nhello")) as server,
        Session(KEY, base_url=server.url, retry=ONCE) as session,
    ):
        with pytest.raises(APIError, match="101 Switching Protocols") as caught:
            await session.memories.list()
        assert caught.value.status == 101
        client = session._client
        assert client is not None
        assert client.connector is not None
        assert not client.connector._acquired
        assert not client.connector._conns


# Bounds


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(omi_async._transport, "MAX_RESPONSE", 100_000)
    return 100_000


async def endless(call: Call) -> None:
    await call.send(CHUNKED)
    while True:
        await call.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


async def bomb(call: Call) -> None:
    packed = gzip.compress(b" " * 50_000_000)
    await call.answer(200 if call.number == 1 else 500, packed, headers={"Content-Encoding": "gzip"})


async def told_too_long(call: Call) -> None:
    await call.send(OK + b"Content-Length: 999999999999\r\n\r\n" + b" " * 200_000)
    await asyncio.Event().wait()


@pytest.mark.parametrize("handle", [endless, bomb, told_too_long])
async def test_an_answer_without_bounds_is_refused(
    handle: Callable[[Call], Awaitable[None]], bound: int
) -> None:
    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        with pytest.raises(ResponseFormatError, match="too long to be one of this API") as caught:
            await session.memories.create("a")
        assert caught.value.maybe_applied
        client = session._client
        assert client is not None
        assert client.connector is not None
        if handle is not bomb:  # that one may have come whole before it went off
            assert not client.connector._conns  # what is still to come is not kept for the next call


async def test_an_error_without_bounds_keeps_its_status(bound: int) -> None:
    async with raw_server(bomb) as server, Session(KEY, base_url=server.url) as session:
        with pytest.raises(ResponseFormatError):
            await session.memories.create("a")
        with pytest.raises(ServerError) as caught:
            await session.memories.create("a")
    assert caught.value.status == 500


@pytest.mark.parametrize(("spaces", "readable"), [(99_998, True), (99_999, False)])
async def test_the_bound_is_met_to_the_byte(spaces: int, readable: bool, bound: int) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=b"[]" + b" " * spaces)

    async with raw_server(handle) as server:
        try:
            assert await listed(server) == []
            assert readable
        except ResponseFormatError:
            assert not readable


# Redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_redirect_is_not_followed_and_takes_the_key_nowhere(status: int, elsewhere: bool) -> None:
    async def other(call: Call) -> None:
        await call.answer(body=[])

    async with raw_server(other) as foreign:

        async def handle(call: Call) -> None:
            await call.answer(status, headers={"Location": f"{foreign.url if elsewhere else ''}/x"})

        async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
            for call in (session.memories.list(), session.memories.create("a"), session.memories.delete("a")):
                with pytest.raises(APIError, match="redirects are not followed") as caught:
                    await call
                assert caught.value.status == status
            assert len(server.calls) == 3
    assert foreign.calls == []


# What it leaves in the log


@pytest.fixture
async def logged(caplog: pytest.LogCaptureFixture) -> AsyncIterator[list[str]]:
    caplog.set_level(logging.DEBUG, logger="omi_async")
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    handler = Lines()
    logging.getLogger("omi_async").addHandler(handler)
    yield lines
    logging.getLogger("omi_async").removeHandler(handler)


@pytest.mark.virtual_clock
async def test_each_attempt_and_each_retry_leaves_a_line(logged: list[str]) -> None:
    async def handle(call: Call) -> None:
        match call.number:
            case 1:
                await call.answer(429, {"detail": "a secret"}, headers={"Retry-After": "7"})
            case 2:
                call.drop()
            case _:
                await call.answer(body=[{"id": "1", "content": "a secret"}])

    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        await session.memories.list()
    place = "GET /v1/dev/user/memories?limit=25&offset=0"
    lost = f"cannot list memories at {server.url}: the answer was lost (the server closed the connection)"
    assert [line.partition(" in ")[0] for line in logged] == [
        f"DEBUG {place}: 429",
        f"WARNING {place}: attempt 1 failed (429 RateLimitError); the next",
        f"DEBUG {place}: {lost}",
        f"WARNING {place}: attempt 2 failed ({lost}); the next",
        f"DEBUG {place}: 200",
    ]
    assert logged[1].endswith(" in 7.00 s")
    assert "secret" not in "".join(logged)


async def test_without_logging_set_up_nothing_is_logged_elsewhere(
    server: LocalServer, session: Session
) -> None:
    await session.memories.list()
    assert not logging.getLogger("omi_async").handlers
    assert logging.getLogger("omi_async").level == logging.NOTSET
