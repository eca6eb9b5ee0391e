"""A server made by hand, for answers that no decent server gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs

Handle = Callable[["Call"], Awaitable[None]]


@attrs.define
class Call:
    """One request, as it came, and the way back.

    Attributes:
        number: counts the requests of the server from 1.
        on_connection: counts the requests of this connection from 1.
    """

    number: int
    on_connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, status: int = 200, body: Any = b"", *, reason: str = "X", headers: dict[str, str] | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]).encode() + content)

    def drop(self) -> None:
        """Close the connection."""
        self.writer.close()


@attrs.define
class RawServer:
    url: str = ""
    calls: list[Call] = attrs.field(factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0

    @property
    def sent(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls]


async def _read_call(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _version = start.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


@contextlib.asynccontextmanager
async def raw_server(
    handle: Handle, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[RawServer]:
    """Serve with `handle`, which gets each request; a connection lives until it is dropped."""
    server = RawServer()
    tasks = set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        server.open += 1
        server.most_open = max(server.open, server.most_open)
        on_connection = 0
        try:
            while not writer.is_closing():
                request = await _read_call(reader)
                on_connection += 1
                call = Call(len(server.calls) + 1, on_connection, *request, writer)
                server.calls.append(call)
                await handle(call)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server closes
        finally:
            server.open -= 1
            writer.close()

    listening = await asyncio.start_server(serve, host, 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    at = f"[{host}]" if ":" in host else host
    server.url = f"{'https' if tls else 'http'}://{at}:{port}"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
