"""The session: one connection pool, one attempt, and what happens between attempts.

The I/O edge is `Session._attempt`. Everything before it is built in `_requests`, everything after it is
`interpret`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import backoff
from multidict import CIMultiDict
from yarl import URL

import omi_async
from omi_async import _json
from omi_async._failures import in_short
from omi_async._requests import Request, Response, interpret
from omi_async._retry import waits, worth_retrying
from omi_async._transport import abandon, only_once, read_bounded, translate
from omi_async.config import BASE_URL, MAX_RESPONSE, Retry
from omi_async.errors import (
    ConfigurationError,
    OmiError,
    ResponseFormatError,
    ServerError,
    TransportError,
)
from omi_async.resources.memories import Memories

__all__ = ["Session"]

T = TypeVar("T")

log: Final = logging.getLogger("omi_async")

CONNECT_TIMEOUT: Final = 10.0

_own_pools: Final = set[aiohttp.ClientSession]()
"""Keeps a pool alive until its Session is closed or found leaked; else aiohttp might find the leak first."""


class Secret(str):
    """A string that keeps itself out of every repr: of tracebacks' locals, of headers, of attributes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Session:
    """A client of one Omi account, over one pool of connections, for one event loop.

    It is constructed anywhere, also without a running loop, and opened by ``async with`` or by its first
    call. It is meant to live long and be shared: any number of tasks may call it at the same time. Close it
    (``async with`` does) to give the connections back.

    Args:
        api_key: a Developer API key (``omi_dev_...``); `OMI_API_KEY` where None.
        base_url: the server; `OMI_API_BASE` where None, else ``https://api.omi.me``. May have a path prefix.
        timeout: seconds for one attempt, from its turn to the last byte.
        batch_timeout: the same for batch calls, which the server may work on for long.
        connections: calls on the wire at the same time, at most; others wait for their turn, and that wait
            counts against no timeout (other calls in a `client` of yours may make it wait again).
        retry: attempts and waits.
        client: an aiohttp session of yours to use instead of an own pool. It is used as it is, never changed
            and never closed; proxies, TLS and tracing are configured there.
        allow_http: allow plain ``http://`` to hosts other than this machine; `OMI_ALLOW_HTTP=1` where None.
            The key then crosses the network readable by all on the way.
        trace_configs: aiohttp trace configurations for the own pool.

    Raises:
        ConfigurationError: no key, a key that is no header value, an unusable base URL.

    Attributes:
        memories: the calls on memories.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | URL | None = None,
        timeout: float = 30.0,
        batch_timeout: float = 120.0,
        connections: int = 8,
        retry: Retry = Retry(),  # noqa: B008  # immutable
        client: aiohttp.ClientSession | None = None,
        allow_http: bool | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        api_key = None if api_key is None else Secret(api_key)  # this frame stands in tracebacks
        self._base = "?"
        self._closed = True  # until everything below has been found usable
        self._client: aiohttp.ClientSession | None = None
        if client is not None and trace_configs:
            raise ConfigurationError("trace_configs belong to the aiohttp session that is given as client")
        if connections < 1:
            raise ConfigurationError(f"connections must be at least 1, not {connections}")
        key = _usable_key(api_key)
        self._base = _usable_base(base_url, _flag("OMI_ALLOW_HTTP") if allow_http is None else allow_http)
        self._headers = {
            "Authorization": Secret(f"Bearer {key}"),
            "Accept": "application/json",
            "User-Agent": f"omi_async/{omi_async.__version__} aiohttp/{aiohttp.__version__}",
        }
        self._key = key
        self._retry = retry
        self._timeout = _usable_timeout("timeout", timeout)
        self._batch_timeout = _usable_timeout("batch_timeout", batch_timeout)
        self._connections = connections
        self._slots = asyncio.Semaphore(_within_pool(connections, client))
        self._borrowed = client
        self._trace_configs = list(trace_configs)
        self._loop: asyncio.AbstractEventLoop  # of the client, once there is one
        self._made_at = _caller()
        self.memories = Memories(self)
        self._closed = False

    # Life: unopened, open, closed

    @property
    def base_url(self) -> str:
        """The server's base URL, without a slash at its end."""
        return self._base

    @property
    def closed(self) -> bool:
        """Whether `close` has been called; a closed Session stays closed."""
        return self._closed

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back. Closing twice is fine; calls under way fail with `ResponseLostError`."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and client is not self._borrowed:
            _own_pools.discard(client)
            if self._loop is asyncio.get_running_loop():
                await client.close()
            else:
                abandon(client, self._loop)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "unopened" if self._client is None else "open"
        return f"<omi_async.Session {self._base} {state}>"

    def __del__(self) -> None:
        client = getattr(self, "_client", None)
        if self._closed or client is None or client is self._borrowed:
            return
        try:
            warnings.warn(
                f"unclosed {self!r}, made at {self._made_at}: use `async with` or await close()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
        finally:  # warnings may be errors
            _own_pools.discard(client)
            abandon(client, self._loop)

    def _open(self) -> aiohttp.ClientSession:
        """Return the aiohttp session for the running loop, made at the first call."""
        if self._closed:
            raise ConfigurationError("this Session is closed; a closed Session cannot be opened again")
        loop = asyncio.get_running_loop()
        if self._client is None:
            self._client = self._borrowed or self._make_client()
            self._loop = getattr(self._client, "_loop", loop)
        if self._loop is not loop:
            raise ConfigurationError("this Session belongs to another event loop; make one for each loop")
        return self._client

    def _make_client(self) -> aiohttp.ClientSession:
        client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=self._trace_configs,
        )
        _own_pools.add(client)
        return client

    # Calls

    async def send(self, request: Request[T], /) -> T:
        """Send a request, again where that is safe, and return what its answer means.

        Raises:
            TransportError: no usable answer.
            APIError: the server refused or failed.
            ResponseFormatError: a success that does not decode.
            ConfigurationError: the Session is closed, or belongs to another event loop.
        """
        lost = False

        async def attempt() -> T:
            nonlocal lost
            try:
                return self._interpret(request, await self._attempt(request), repeated=lost)
            except (TransportError, ServerError) as error:
                lost = lost or error.maybe_applied
                raise

        attempts = self._retry.attempts if request.attempts is None else request.attempts
        if attempts <= 1:
            return await attempt()
        retrying = backoff.on_exception(
            functools.partial(waits, self._retry, random.random),
            OmiError,
            max_tries=attempts,
            giveup=lambda error: self._closed or not worth_retrying(error, idempotent=request.idempotent),
            on_backoff=functools.partial(_log_retry, request, attempts),
            jitter=None,  # the jitter is in the generator: backoff's own would cut a Retry-After short
            logger=None,
        )
        return await retrying(attempt)()

    async def _attempt(self, request: Request[Any]) -> Response:
        """Make one call, once. Raises `TransportError` for all that can go wrong on the way."""
        failure: OmiError | None = None
        self._open()  # says at once, and not after a turn was waited for, that it cannot
        async with self._slots:
            client = self._open()
            started = time.monotonic()
            try:
                async with client.request(
                    request.method,
                    URL(self._base + request.path, encoded=True),
                    data=request.body,
                    headers=self._headers_for(request),
                    timeout=self._timeout_for(request),
                    allow_redirects=False,
                    raise_for_status=False,
                    middlewares=only_once(client),
                ) as answer:
                    body, cut = await read_bounded(answer, MAX_RESPONSE)
                    response = Response(answer.status, answer.headers, body, cut, time.time())
            except Exception as error:  # noqa: BLE001  # translate() lets pass what is not the network's
                failure = translate(error, request, self._base)
        if failure is not None:
            # Raised out here, so that no frame of aiohttp's, which holds the headers, hangs on to it.
            log.debug("%s %s: %s", request.method, request.path, failure)
            try:
                raise failure
            finally:
                del failure  # else it would keep its own traceback alive
        log.debug(
            "%s %s: %d in %.3f s, %d bytes",
            request.method,
            request.path,
            response.status,
            time.monotonic() - started,
            len(body),
        )
        return response

    def _headers_for(self, request: Request[Any]) -> dict[str, str]:
        if request.body is None:
            return self._headers
        return {**self._headers, "Content-Type": "application/json"}

    def _timeout_for(self, request: Request[Any]) -> aiohttp.ClientTimeout:
        return self._batch_timeout if request.slow else self._timeout

    def _interpret(self, request: Request[T], response: Response, *, repeated: bool) -> T:
        """Interpret an answer so that neither its error nor the frames of that hold the key."""
        if response.status < 300:  # noqa: PLR2004  # the 2xx class
            with contextlib.suppress(ResponseFormatError):
                return interpret(request, response, repeated=repeated)
        response = self._without_key(response)
        return interpret(request, response, repeated=repeated)

    def _without_key(self, response: Response) -> Response:
        """Take the key out of an answer, should somebody on the way be so kind as to echo the request.

        What is left can be kept, copied and pickled with the error.
        """
        headers = CIMultiDict[str]()
        for name, text in response.headers.items():
            headers.add(name.replace(self._key, "***"), text.replace(self._key, "***"))
        body = response.body
        for spelling in (self._key.encode(), _json.dumps(str.__str__(self._key))[1:-1]):
            body = body.replace(spelling, b"***")
        return Response(response.status, headers, body, response.cut, response.received)


def _log_retry(request: Request[Any], attempts: int, details: Any) -> None:
    log.warning(
        "%s %s: try %d of %d failed (%s); the next in %.2f s",
        request.method,
        request.path,
        details["tries"],
        attempts,
        in_short(details["exception"]),
        details["wait"],
    )


def _flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}


def _caller() -> str:
    """Name the place outside this module that makes the Session."""
    frame = sys._getframe(1)  # noqa: SLF001  # as the warnings module itself does
    while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _usable_key(given: Secret | None) -> Secret:
    key = Secret((os.environ.get("OMI_API_KEY", "") if given is None else given).strip())
    if not key:
        raise ConfigurationError("no API key: set OMI_API_KEY, or give Session(api_key=...)")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError("the API key holds a character that no key has; was it pasted whole?")
    return key


def _usable_timeout(name: str, seconds: float) -> aiohttp.ClientTimeout:
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{name} must be a positive number of seconds, not {seconds!r}")
    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_TIMEOUT))


def _within_pool(connections: int, client: aiohttp.ClientSession | None) -> int:
    """Return how many calls may be on the wire: never more than a smaller pool of somebody else's lets."""
    connector = None if client is None else client.connector
    limits = () if connector is None else (connector.limit, connector.limit_per_host)
    return min([connections, *(limit for limit in limits if limit)])


def _usable_base(given: str | URL | None, allow_http: bool) -> str:
    """Return the base URL without a slash at its end."""
    text = str(given if given is not None else os.environ.get("OMI_API_BASE") or BASE_URL).strip()
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or url.scheme not in {"http", "https"}:
        raise ConfigurationError(f"the base URL must look like {BASE_URL}, not {_harmless(text)}")
    if url.user is not None or url.password is not None:
        raise ConfigurationError("the base URL must not hold a user or a password")
    if url.query_string or url.fragment or text.endswith(("?", "#")):
        raise ConfigurationError("the base URL must not hold a query or a fragment")
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"the key would cross the network in clear: {host} is not this machine and the base URL is "
            f"http://. Use https://, or allow it with allow_http=True or OMI_ALLOW_HTTP=1"
        )
    return str(url).rstrip("/")


def _harmless(text: str) -> str:
    """Shorten a base URL for a message, without a password, a token or the key that may be in its place."""
    scheme, colon, rest = text.partition("://")
    host = re.split(r"[/?#]", rest.rpartition("@")[2])[0]
    return f"{scheme}://{host[:100]}" if colon else "what was given"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
