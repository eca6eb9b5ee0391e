"""What becomes of a connection: after a 5xx, after a call that was given up, through a proxy."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from omi_async import (
    ConfigurationError,
    ConnectError,
    OmiError,
    ResponseLostError,
    Retry,
    ServerError,
    Session,
)
from omi_async._api.endpoints import list_memories
from omi_async._api.messages import Request
from tests.raw_server import Call, raw_server

KEY = "omi_dev_0123456789abcdef"
ONCE = Retry(attempts=1)


# After a 5xx


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize(
    "body", [b"Internal Server Error", b"", b"x" * 1_000_000], ids=["short", "none", "long"]
)
async def test_a_connection_that_carried_a_5xx_is_not_used_again(body: bytes, *, borrowed: bool) -> None:
    # Catches: the next call, on a connection that the server closes without having said so, is lost.
    async def handle(call: Call) -> None:
        if call.on_connection > 1:
            call.drop()  # as uvicorn does, at some time after the 500
        elif call.method == "POST":
            await call.answer(500, body)
        else:
            await call.answer(body=[])

    async with raw_server(handle) as server, aiohttp.ClientSession() as client:
        own: dict[str, Any] = {"client": client} if borrowed else {}
        async with Session(KEY, base_url=server.url, retry=ONCE, **own) as session:
            for _ in range(3):
                with pytest.raises(ServerError):
                    await session.memories.create("a")
            assert await session.memories.list() == []
        assert server.connections == 4


async def test_other_answers_keep_their_connection() -> None:
    async def handle(call: Call) -> None:
        await call.answer([200, 404, 422, 429][call.number % 4], [])

    async with raw_server(handle) as server, Session(KEY, base_url=server.url, retry=ONCE) as session:
        for _ in range(4):
            await asyncio.gather(session.memories.list(), return_exceptions=True)
        assert server.connections == 1


# Calls that were given up


async def test_the_sockets_of_the_own_pool_throw_away_what_was_not_delivered() -> None:
    lingers = []

    class Watched(socket.socket):
        def close(self) -> None:
            if self.fileno() >= 0 and self.type == socket.SOCK_STREAM:
                lingers.append(self.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
            super().close()

    async def handle(call: Call) -> None:
        await call.answer(body=[])

    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        await session.memories.list()
        assert session._client is not None
        pooled = getattr(session._client.connector, "_conns", {})
        (transport,) = [protocol.transport for line in pooled.values() for protocol, *_ in line]
        connection = transport.get_extra_info("socket")
        option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert struct.unpack("ii", option) == (1, 0)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("size", [1_000_000, 50_000_000], ids=["kernel", "more than the kernel takes"])
@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_the_rest_of_a_call_that_was_given_up_is_not_sent(how: str, size: int) -> None:
    # Catches: a kernel that goes on delivering, and a transport that is closed and goes on sending.
    arrived: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result((reader, writer))

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(serve, sock=listening, limit=1000)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    big = Request[None](
        kind="batch", operation="send much", method="POST", path="/", body=b"x" * size, decode=_nothing
    )
    async with Session(KEY, base_url=url, timeout=0.5, retry=ONCE) as session:
        call = asyncio.create_task(session.send(big))
        reader, writer = await arrived
        if how == "cancel":
            await asyncio.sleep(0.2)
            call.cancel()
        with pytest.raises((ResponseLostError, asyncio.CancelledError)):
            await call
        received = 0
        with pytest.raises(ConnectionResetError):  # noqa: PT012  # the loop raises
            while data := await reader.read(2**20):
                received += len(data)
        writer.close()
        server.close()
        assert received < size / 2


def _nothing(_answer: object) -> None:
    pass


OUTAGE = """
import asyncio, subprocess
from omi_async import ResponseLostError, Retry, Session

def network(state):
    subprocess.run(["ip", "link", "set", "lo", state], check=True)

async def main():
    methods = []

    async def serve(reader, writer):
        try:
            while True:
                methods.append((await reader.readuntil(b"\\r\\n\\r\\n")).split()[0].decode())
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Session("k", base_url=url, timeout=1.0, retry=Retry(attempts=1)) as session:
        await session.memories.list()
        network("down")
        try:
            await session.memories.create("a fact")
        except ResponseLostError:
            network("up")
        await asyncio.sleep(4)
    print(*methods)

network("up")
asyncio.run(main())
"""


def can_cut_the_network() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    tried = subprocess.run(
        ["unshare", "-rn", "ip", "link", "set", "lo", "up"], check=False, capture_output=True
    )
    return tried.returncode == 0


@pytest.mark.skipif(not can_cut_the_network(), reason="this machine gives no network namespace")
def test_what_an_outage_swallowed_does_not_arrive_after_it(tmp_path: Path) -> None:
    # Catches: the kernel's retransmission of a call that was given up, looked for, and sent again.
    program = tmp_path / "outage.py"
    program.write_text(OUTAGE)
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, program], check=False, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("GET\n", "")


# Proxies


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


FAR: dict[str, Any] = {"base_url": "http://omi.example", "allow_http": True, "retry": ONCE}


async def test_the_environments_proxy_is_used_if_wanted(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=[])

    (tmp_path / "netrc").write_text("machine omi.example login somebody password hunter2\n")
    environment.setenv("NETRC", str(tmp_path / "netrc"))
    async with raw_server(handle) as proxy:
        environment.setenv("HTTP_PROXY", proxy.url)
        async with Session(KEY, trust_env=True, **FAR) as session:
            assert await session.memories.list() == []
        (call,) = proxy.calls
        assert call.path.startswith("http://omi.example/v1/dev/user/memories")
        assert call.headers["authorization"] == f"Bearer {KEY}"  # and not what ~/.netrc holds


@pytest.mark.parametrize("exception", ["omi.example", ".example", "*"])
async def test_no_proxy_is_honoured(environment: pytest.MonkeyPatch, exception: str) -> None:
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    environment.setenv("NO_PROXY", exception)
    async with Session(KEY, trust_env=True, **FAR) as session:
        with pytest.raises(ConnectError, match=r"cannot list memories at http://omi\.example: "):
            await session.memories.list()


async def test_this_machine_is_never_reached_through_a_proxy(environment: pytest.MonkeyPatch) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=[])

    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # else it would be sent the key in clear
    async with raw_server(handle) as server, Session(KEY, base_url=server.url, trust_env=True) as session:
        assert await session.memories.list() == []


@pytest.mark.parametrize("base", ["http://omi.example", "https://omi.example"])
async def test_errors_name_the_proxy_without_its_password(environment: pytest.MonkeyPatch, base: str) -> None:
    environment.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9/")
    environment.setenv("HTTPS_PROXY", "http://user:hunter2@127.0.0.1:9/")
    async with Session(KEY, trust_env=True, **FAR | {"base_url": base}) as session:
        with pytest.raises(
            ConnectError, match=rf"at {base} through the proxy http://127\.0\.0\.1:9: .*not reached"
        ) as caught:
            await session.memories.list()
    assert "hunter2" not in repr(caught.value)


async def test_a_proxy_that_refuses_is_named_with_its_status(environment: pytest.MonkeyPatch) -> None:
    async def handle(call: Call) -> None:
        await call.answer(407, b"no")

    async with raw_server(handle) as proxy:
        environment.setenv("HTTPS_PROXY", proxy.url)
        async with Session(KEY, trust_env=True, **FAR | {"base_url": "https://omi.example"}) as session:
            with pytest.raises(ConnectError, match="the proxy answered 407"):
                await session.memories.create("a")
        assert [call.method for call in proxy.calls] == ["CONNECT"]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://x", "http://"])
async def test_a_proxy_that_cannot_be_used_is_told_beforehand(
    environment: pytest.MonkeyPatch, proxy: str
) -> None:
    environment.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="proxy"):
        Session(KEY, trust_env=True, **FAR)


async def test_without_trust_env_the_environment_names_no_proxy(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Session(KEY, **FAR) as session:
        with pytest.raises(ConnectError, match="not reached") as caught:
            await session.memories.list()
    assert "proxy" not in str(caught.value)


async def test_a_borrowed_client_has_proxies_of_its_own() -> None:
    async with aiohttp.ClientSession() as client:
        with pytest.raises(ConfigurationError, match="trust_env belong to the aiohttp session"):
            Session(KEY, client=client, trust_env=True)


# Answers that are odd on the wire


async def test_a_header_that_is_too_long_is_named() -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=[], headers={"X-Long": "x" * 9000})

    async with raw_server(handle) as server, Session(KEY, base_url=server.url, retry=ONCE) as session:
        with pytest.raises(ResponseLostError, match="a header of the answer is longer than the 8,190 bytes"):
            await session.memories.list()


@pytest.mark.parametrize("encoding", ["gzip", "br", "compress", "x-own"])
async def test_an_encoding_that_was_not_asked_for_is_named(encoding: str) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=b"\xff\x00no such thing", headers={"Content-Encoding": encoding})

    async with raw_server(handle) as server, Session(KEY, base_url=server.url, retry=ONCE) as session:
        with pytest.raises(OmiError, match="not asked for"):
            await session.send(list_memories())
