"""All that is known of aiohttp: its pools and calls, its errors, its silent replays.

An error of aiohttp's holds the headers of the request, in its attributes and in the frames of its
traceback, and with them the key. An error of ours that was raised while one of aiohttp's is handled would
hold on to it as its `__context__`, and whoever logs or pickles the one would have the other. Therefore
`call` *returns* what was the matter, and its caller raises it when no frame of aiohttp's is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from yarl import URL

from omi_async._api.messages import Request, Response
from omi_async.constants import MAX_RESPONSE
from omi_async.errors import ConfigurationError, ConnectError, OmiError, ResponseLostError

__all__ = ["abandon", "call", "close_pool", "open_pool", "translate"]

_own_pools: Final = set[aiohttp.ClientSession]()
"""Keeps a pool alive until its Session is closed or found leaked; else aiohttp might find the leak first, and
warn of parts of ours that the user knows nothing of."""


def open_pool(
    connections: int, headers: Mapping[str, str], trace_configs: Sequence[aiohttp.TraceConfig]
) -> aiohttp.ClientSession:
    """Return a pool of our own, for the running loop."""
    client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        # A cookie of one call has no business in another: the key says who is calling.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        trace_configs=[*trace_configs],
    )
    _own_pools.add(client)
    return client


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


async def call(
    client: aiohttp.ClientSession,
    request: Request[Any],
    base: str,
    *,
    headers: Mapping[str, str],
    timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's own
) -> Response | OmiError:
    """Make one call, once; return its answer, whatever it says, or the error that came in its place.

    Raises only what is neither the network's doing nor the configuration's.
    """
    sent = time.time()
    try:
        answer = await client.request(
            request.method,
            URL(base + request.path, encoded=True),
            data=request.body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            raise_for_status=False,
            middlewares=_only_once(client, request),
        )
        body, cut = await _read_bounded(answer)
    except Exception as error:  # noqa: BLE001  # translate() raises again what is no doing of the network's
        return translate(error, request, base)
    return Response(answer.status, answer.headers, body, cut, sent, time.time())


async def _read_bounded(answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Read a body of at most MAX_RESPONSE bytes; return it, and whether it was cut there.

    The answer's connection is given back. A cut one's is closed: what is still to come is not worth reading.
    """
    body = bytearray()  # not a list of chunks: a server may send a byte at a time
    async with answer:
        # Counted after decompression: a small body may hold a thousand times as much.
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > MAX_RESPONSE:
                answer.close()
                return bytes(body[:MAX_RESPONSE]), True
    return bytes(body), False


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
    """Turn what aiohttp raised into an error of ours, which holds neither headers nor frames of aiohttp's.

    Raises the error itself if it is neither the network's doing nor the configuration's.
    """
    if isinstance(error, OmiError):
        return error
    what = f"cannot {request.operation} at {base}"
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | UnicodeError):
        return ConfigurationError(f"{what}: this is no URL that can be called")
    if isinstance(error, _NEVER_REACHED):
        reached = ConnectError(f"{what}: the server was not reached ({_reason(error)})")
        reached.__cause__ = _harmless_cause(error)
        return reached
    if isinstance(error, TimeoutError):
        return ResponseLostError(f"{what}: no answer in time")
    if isinstance(error, aiohttp.ClientError | OSError | asyncio.IncompleteReadError):
        return ResponseLostError(f"{what}: the answer was lost ({_reason(error)})")
    for kind, words, meaning in _UNUSABLE_CLIENTS:
        if type(error) is kind and str(error).startswith(words):
            return ConfigurationError(f"the aiohttp session that was given as client {meaning}")
    raise error


def _reason(error: BaseException) -> str:
    """Say in a few words what happened, without a repr of aiohttp's: those show the request's headers."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            words = f"no address for the host {error.host}"
        case aiohttp.ClientConnectorCertificateError():
            words = f"its certificate is not valid: {_verify_message(error.certificate_error)}"
        case aiohttp.ConnectionTimeoutError():
            words = "connecting took too long"
        case aiohttp.ClientConnectorError():
            words = error.os_error.strerror or str(error.os_error)
        case aiohttp.ServerDisconnectedError():
            words = "the server closed the connection"
        case aiohttp.ClientPayloadError():
            words = "the body was cut short or cannot be decompressed"
        case aiohttp.ClientResponseError():
            words = "what came back is no HTTP"
        case OSError():
            words = error.strerror or type(error).__name__
        case _:
            words = type(error).__name__
    return words


def _verify_message(error: Exception) -> str:
    # Only OpenSSL's own errors have the attribute; those made in Python do not.
    return getattr(error, "verify_message", None) or type(error).__name__


def _harmless_cause(error: Exception) -> BaseException | None:
    """Return the operating system's error behind aiohttp's; it knows no headers."""
    cause = getattr(error, "os_error", None)
    return cause.with_traceback(None) if isinstance(cause, OSError) else None
