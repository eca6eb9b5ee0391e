"""All that is known of aiohttp: its pools and calls, its errors, its silent replays.

An error of aiohttp's holds the headers of the request, in its attributes and in the frames of its
traceback, and with them the key. Our own error, raised while one of aiohttp's is handled,
would hold on to it as its `__context__`, and whoever logs or pickles the one would have the other. Therefore
`call` *returns* what was the matter, and its caller raises it when no frame of aiohttp's is left.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from yarl import URL

from omi_async._api.messages import Request, Response
from omi_async._settings import proxy_name
from omi_async.constants import MAX_RESPONSE
from omi_async.errors import ConfigurationError, ConnectError, OmiError, ResponseLostError

__all__ = ["abandon", "call", "close_pool", "open_pool", "translate"]

_own_pools: Final = set[aiohttp.ClientSession]()
"""Keeps a pool alive until its Session is closed or found leaked; else aiohttp might find the leak first, and
warn of our inner parts, of which the user knows nothing."""


_NO_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def open_pool(
    connections: int,
    headers: Mapping[str, str],
    trace_configs: Sequence[aiohttp.TraceConfig],
    proxy: str | None,
) -> aiohttp.ClientSession:
    """Return a pool of our own, for the running loop."""
    # aiohttp has read the certificates when it was imported, which may be before SSL_CERT_FILE was set.
    tls = ssl.create_default_context() if os.environ.get("SSL_CERT_FILE") else True
    client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, socket_factory=_hard_socket, ssl=tls),
        # A cookie of one call has no business in another: the key says who is calling.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        trace_configs=[*trace_configs],
        response_class=_Answer,
        # Not aiohttp's trust_env, which reads ~/.netrc too: credentials from there contradict the key.
        proxy=proxy,
    )
    _own_pools.add(client)
    return client


def _hard_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket that throws away, when it is closed, what was not delivered.

    The kernel would go on trying to deliver a call that was given up, for minutes. After an outage it arrives
    when it has been looked for, found absent and sent again, and then its facts are stored twice.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    return made


class _Answer(aiohttp.ClientResponse):
    """An answer that throws away what is left of its call if it is not waited for any longer."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Wait for the answer to begin."""
        transport = connection.transport
        try:
            return await super().start(connection)
        except BaseException:
            # aiohttp closes it too, but a transport that is closed goes on sending what it holds; and that is
            # more of the call than what the kernel holds.
            if transport is not None:
                transport.abort()
            raise


def _never_again(answer: aiohttp.ClientResponse) -> None:
    """Have the answer's connection serve no other call.

    A server that answered 5xx may close it without having said so (uvicorn does after an unforeseen
    exception), and the next call on it, perhaps one that must not be repeated, would be lost.
    """
    # If the body has come with the headers, the connection is back in its pool by now, and aiohttp has no
    # public way to it; but the pool gives out no connection that is closed.
    protocol = getattr(answer, "_protocol", None)
    if protocol is None:
        return
    protocol.force_close()
    if answer.connection is None:
        protocol.close()


async def close_pool(client: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close a pool of our own, which belongs to that loop."""
    if loop is asyncio.get_running_loop():
        _own_pools.discard(client)
        await client.close()
    else:
        abandon(client, loop)


def abandon(client: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Let go of a pool of our own that was not closed: without awaiting, from any thread, loop or no loop.

    aiohttp offers nothing for this, and would add warnings of its own for each of its parts.
    """
    _own_pools.discard(client)
    pooled = getattr(client.connector, "_conns", {})
    idle = [protocol.transport for line in pooled.values() for protocol, *_ in line]
    pooled.clear()
    client.detach()
    for transport in idle:
        if transport is None:
            continue
        if not loop.is_closed():
            loop.call_soon_threadsafe(transport.abort)
        elif hasattr(transport, "_call_connection_lost"):
            transport._call_connection_lost(None)  # noqa: SLF001  # closes the socket; abort() needs the loop


def let_go_unclosed(owner: object, client: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Warn that a pool's owner is deleted without having been closed, and let go of the pool."""
    try:
        warnings.warn(
            f"unclosed {owner!r}: use `async with` or await close()",
            ResourceWarning,
            source=owner,  # python -X tracemalloc says where it was made
            stacklevel=3,
        )
    finally:  # warnings may be errors
        abandon(client, loop)


async def call(
    client: aiohttp.ClientSession,
    request: Request[Any],
    base: str,
    *,
    proxy: str | None,
    headers: Mapping[str, str],
    timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's own
) -> Response | OmiError:
    """Make one call, once; return its answer, whatever it says, or the error that came in its place.

    Raises only what is neither the network's doing nor the configuration's.
    """
    sent = time.time()
    body = request.body
    data = body if body is None or request.guard is None else _Guarded(body, request.guard)
    try:
        answer = await client.request(
            request.method,
            _url(base + request.path),
            data=data,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            raise_for_status=False,
            middlewares=_only_once(client, request),
        )
        if answer.status >= 500:  # noqa: PLR2004  # the 5xx class
            _never_again(answer)
        text, cut = await _read_bounded(answer)
    except Exception as error:  # noqa: BLE001  # translate() raises again what is no doing of the network's
        if isinstance(data, _Guarded) and data.held_back:
            return ConnectError(f"cannot {request.operation} at {base}: it was held back before it left")
        way = base if proxy is None else f"{base} through the proxy {proxy_name(proxy)}"
        return translate(error, request, way)
    return Response(answer.status, answer.headers, text, cut, sent, time.time())


@lru_cache(maxsize=16)
def _url(text: str) -> URL:
    """Make a URL; the same for the calls of an import, so that aiohttp finds its parts ready."""
    return URL(text, encoded=True)


class _Guarded(aiohttp.BytesPayload):
    """A body whose bytes leave only if a guard still says so, at the latest moment at which it can be asked.

    aiohttp sends the headers together with the first bytes of the body, so that nothing leaves without it.
    """

    def __init__(self, body: bytes, guard: Callable[[], bool]) -> None:
        super().__init__(body)
        self._guard = guard
        self.held_back = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write it, or raise: then aiohttp closes the connection."""
        self.held_back = not self._guard()
        if self.held_back:
            raise _HeldBackError
        await super().write_with_length(writer, content_length)


class _HeldBackError(Exception):
    """The guard has said no."""


async def _read_bounded(answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Read a body of at most MAX_RESPONSE bytes; return it, and whether it was cut there.

    The answer's connection is given back. A cut one's is closed: what is still to come is not worth reading.
    """
    body = bytearray()  # not a list of chunks: a server may send a byte at a time
    try:
        # Counted after decompression: a small body may hold a thousand times as much.
        while chunk := await answer.content.readany():
            body += chunk
            if len(body) > MAX_RESPONSE:
                return bytes(body[:MAX_RESPONSE]), True
        return bytes(body), False
    finally:
        if not answer.closed:  # it is by itself when it has been read to its end
            answer.close()


class _Once:
    """A client middleware that lets no call pass after one whose answer was lost.

    aiohttp makes a GET or DELETE a second time by itself if the connection turns out to be dead. That would
    be an attempt that is in no count, and the 404 of a DELETE would be a lie.
    """

    def __init__(self) -> None:
        self.lost: aiohttp.ClientError | OSError | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self.lost is not None:
            raise self.lost
        try:
            return await handler(request)
        except (aiohttp.ClientError, OSError) as error:
            self.lost = error
            raise


def _only_once(
    client: aiohttp.ClientSession, request: Request[Any]
) -> Sequence[aiohttp.ClientMiddlewareType] | None:
    """Return the middlewares for a call: the client's own, and a guard if aiohttp makes silent replays."""
    if not request.idempotent:
        return None  # the client's own
    return (*getattr(client, "_middlewares", ()), _Once())


_NEVER_REACHED: Final[tuple[type[Exception], ...]] = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorDNSError,
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ClientSSLError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ConnectionTimeoutError,
)

_UNUSABLE_CLIENTS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (RuntimeError, "Session is closed", "is closed"),
    (
        ValueError,
        "Cannot combine AUTHORIZATION header",
        "has an auth of its own, which leaves no place for the key",
    ),
)


def translate(error: Exception, request: Request[Any], base: str) -> OmiError:
    """Turn what aiohttp raised into our own error, which holds neither headers nor frames of aiohttp's.

    Raises the error itself if it is neither the network's doing nor the configuration's.
    """
    if isinstance(error, OmiError):
        return error
    what = f"cannot {request.operation} at {base}"
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | UnicodeError):
        return ConfigurationError(f"{what}: this is no URL that can be called")
    if isinstance(error, _NEVER_REACHED):
        reached = ConnectError(f"{what}: the server was not reached ({_why_unreached(error)})")
        reached.__cause__ = _harmless_cause(error)
        return reached
    if isinstance(error, TimeoutError):
        return ResponseLostError(f"{what}: no answer in time")
    if isinstance(error, aiohttp.ClientError | OSError | asyncio.IncompleteReadError):
        return ResponseLostError(f"{what}: the answer was lost ({_why_lost(error)})")
    for kind, words, meaning in _UNUSABLE_CLIENTS:
        if type(error) is kind and str(error).startswith(words):
            return ConfigurationError(f"the aiohttp session that was given as client {meaning}")
    raise error


# Why, in a few words of our own: a repr of aiohttp's errors shows the headers of the request.


def _why_unreached(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"no address for the host {error.host}"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not valid: {_verify_message(error.certificate_error)}"
        case aiohttp.ConnectionTimeoutError():
            return "connecting took too long"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}"
        case aiohttp.ClientConnectorError():
            return error.os_error.strerror or str(error.os_error)
        case _:
            return type(error).__name__


def _why_lost(error: Exception) -> str:
    if _is_caused_by(error, LineTooLong):
        return "a header of the answer is longer than the 8,190 bytes that are read"
    if _is_caused_by(error, ContentEncodingError):
        return "the body is compressed in a way that was not asked for, or damaged"
    match error:
        case aiohttp.ServerDisconnectedError():
            words = "the server closed the connection"
        case aiohttp.ClientPayloadError():
            words = "the body was cut short"
        case aiohttp.ClientResponseError():
            words = "what came back is no HTTP"
        case OSError():
            words = error.strerror or type(error).__name__
        case _:
            words = type(error).__name__
    return words


def _is_caused_by(error: BaseException | None, kind: type[Exception]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _verify_message(error: Exception) -> str:
    # Only OpenSSL's own errors have the attribute; those made in Python do not.
    return getattr(error, "verify_message", None) or type(error).__name__


def _harmless_cause(error: Exception) -> BaseException | None:
    """Return the operating system's error behind aiohttp's; it knows no headers."""
    cause = getattr(error, "os_error", None)
    return cause.with_traceback(None) if isinstance(cause, OSError) else None
