"""What the session needs to know of aiohttp: its errors, its replays, its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from omi_async._api.messages import Request
from omi_async.errors import ConfigurationError, ConnectError, OmiError, ResponseLostError

__all__ = ["abandon", "only_once", "read_bounded", "translate"]

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

    Raises the error itself where it is neither the network's doing nor the configuration's.
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


async def read_bounded(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """Read a body of at most `most` bytes, counted after decompression, and say whether it was cut there.

    The answer's connection is given back. A cut one's is closed: what is still to come is not worth reading.
    """
    length = answer.content_length
    if length is not None and length <= most and "Content-Encoding" not in answer.headers:
        whole = await answer.read()
        if not answer.closed:  # read() has closed it, unless the server has switched to another protocol
            answer.close()
        return whole, False
    body = bytearray()  # not a list: a server may send a byte at a time
    async with answer:
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > most:
                answer.close()
                return bytes(body[:most]), True
    return bytes(body), False


class _Once:
    """A client middleware that lets no call pass after one whose answer was lost.

    aiohttp makes a GET or DELETE a second time by itself when the connection turns out to be dead. That would
    be an attempt that nobody counted, and the 404 of a DELETE would be a lie.
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


def only_once(
    client: aiohttp.ClientSession, request: Request[Any]
) -> Sequence[aiohttp.ClientMiddlewareType] | None:
    """Return the middlewares for a call: the client's own, and a guard where aiohttp makes silent replays."""
    if not request.idempotent:
        return None  # the client's own
    return (*getattr(client, "_middlewares", ()), _Once())


def abandon(client: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Let go of a pool that nobody closed: no awaiting, from any thread, with its loop running or gone.

    aiohttp offers nothing for this, and would add warnings of its own for each of its parts.
    """
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
