"""The edge of the server: aiohttp requests to calls, replies to the socket."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from email.utils import formatdate
from typing import Final

import attrs
from aiohttp import web

from omi_async.local import validation
from omi_async.local.faults import Sleep
from omi_async.local.messages import ABSENT, Call, Refusal, Reply
from omi_async.local.plan import Faults, happen
from omi_async.local.records import Calls
from omi_async.local.service import Service

__all__ = ["Endpoint"]

MEMORIES: Final = "/v1/dev/user/memories"

# The first method of a path is the one that a 405 names: FastAPI has one route for each method.
_ROUTES: Final = {
    MEMORIES: {"GET": "list", "POST": "create"},
    f"{MEMORIES}/batch": {"POST": "batch"},
    f"{MEMORIES}/vector/search": {"GET": "search"},
    "/v1/dev/key": {"GET": "key"},
}
_ONE: Final = {"DELETE": "delete", "PATCH": "update"}

_LARGEST_BODY: Final = 16 * 2**20
"""Bytes. A batch of the longest texts, every character escaped, has 150,000; tags have no limit."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)


def route(method: str, path: str, host: str) -> tuple[str, str]:
    """Return the kind and the memory's id. Raises `Refusal` (404, 405, 307) as FastAPI's router does."""
    methods = _ROUTES.get(path, {})
    if method in methods:
        return methods[method], ""
    memory_id = path.removeprefix(f"{MEMORIES}/")
    if memory_id and "/" not in memory_id and memory_id != path:
        methods = methods | _ONE
        if method in _ONE:
            return _ONE[method], memory_id
    if methods:
        raise Refusal.because(405, "Method Not Allowed", headers=(("Allow", next(iter(methods))),))
    if path.endswith("/") and path[:-1] in _ROUTES:
        raise Refusal(Reply(307, b"", (("Location", f"http://{host}{path[:-1]}"),)))
    raise Refusal.because(404, "Not Found")


@attrs.define
class Endpoint:
    """Handles aiohttp's requests with the service, its faults and its record."""

    service: Service
    faults: Faults
    calls: Calls
    sleep: Sleep

    def make_server(self) -> web.Server:
        """Make aiohttp's low-level server: the routes are few, so the calls are spared its router."""
        make_request = functools.partial(
            web.BaseRequest, loop=asyncio.get_running_loop(), client_max_size=_LARGEST_BODY
        )
        # The backend does not unpack what a client packed, and finds no JSON in it.
        return web.Server(self.handle, request_factory=make_request, access_log=None, auto_decompress=False)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and keep the record of it."""
        kind, memory_id, refusal = "", "", None
        try:
            kind, memory_id = route(request.method, request.path, request.host)
        except Refusal as no_route:
            refusal = no_route
        started = self.calls.begin(kind)
        status: int | None = None  # for a client that is gone before it can be answered
        items = 0
        try:
            call = await self._read(request, kind, memory_id, refusal)
            items = call.item_count()
            reply = await self._answer(call)
            response: web.StreamResponse = await _send(request, reply, self.service.clock())
            status = None if reply.reset else reply.status
        except ConnectionError:  # the client went away
            response = _Dropped()
        finally:
            self.calls.end(
                method=request.method,
                path=request.rel_url.raw_path,
                kind=kind,
                status=status,
                items=items,
                started=started,
            )
        return response

    async def _read(
        self, request: web.BaseRequest, kind: str, memory_id: str, refusal: Refusal | None
    ) -> Call:
        """Read the body before anything else is checked, as FastAPI does."""
        authorization = request.headers.get("Authorization")
        payload = ABSENT
        if refusal is None and request.body_exists and self._worth_reading(request, authorization):
            try:
                payload = validation.read_payload(await request.read(), request.headers.get("Content-Type"))
            except web.HTTPRequestEntityTooLarge:
                refusal = Refusal.because(413, "Request body is too large")
            except Refusal as no_json:
                refusal = no_json
        # Of a name that stands twice in a query, the last value counts.
        query = {name: request.query.getall(name)[-1] for name in request.query}
        return Call(kind, memory_id, query, authorization, payload, refusal)

    def _worth_reading(self, request: web.BaseRequest, authorization: str | None) -> bool:
        """Return whether to wait for a body: a caller without a key gets no memory and no patience.

        A body that came together with its headers is looked at all the same: the backend refuses broken JSON
        before an unknown key.
        """
        try:
            self.service.keys.find(authorization)
        except Refusal:
            return request.content.is_eof()
        return True

    async def _answer(self, call: Call) -> Reply:
        taken = self.faults.take(call.kind, call.contents)
        if not taken:
            return await self.service.answer(call)
        return await happen(taken, lambda twist: self.service.answer(call, twist), self.sleep)


class _Dropped(web.StreamResponse):
    """What is left to answer on a connection that was dropped: nothing."""

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002 - aiohttp's signature
        """Tell aiohttp what a lost connection tells it."""
        raise ConnectionResetError("the connection is dropped on purpose")


async def _send(request: web.BaseRequest, reply: Reply, now: float) -> web.StreamResponse:
    if reply.reset:
        return _reset(request)
    # The Date is of the clock by which windows end, as a server's is.
    about = {"Content-Type": reply.content_type, "Date": formatdate(now, usegmt=True)}
    headers = {**about, **dict(reply.headers)}
    if reply.cut is None and not reply.closes:
        return web.Response(status=reply.status, body=reply.body, headers=headers)
    # Written by hand: aiohttp would announce the end of the connection in a header, which the service does
    # not.
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(reply.body)
    await response.prepare(request)
    await response.write(reply.body[: reply.cut])
    if request.transport is not None:
        request.transport.close()  # what was written still goes out
    return _Dropped()


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection so that the peer sees a reset, not an orderly end."""
    # An orderly end would look like an answer that was cut, which is another fault.
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        request.transport.abort()
    return _Dropped()
