"""The session: one connection pool, one attempt, and what happens between attempts.

The edge to the network is `Session._attempt`. What goes into it is built in `_api.endpoints`; what comes out
of it is read by `interpret`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from omi_async import _observing
from omi_async._api import json
from omi_async._api.endpoints import interpret, key_info
from omi_async._api.messages import Request, Response
from omi_async._api.retry import Retry, wait_after, waits
from omi_async._quota.ledger import Ledger
from omi_async._quota.pacer import Pacer
from omi_async._quota.permit import Permit
from omi_async._quota.policy import QuotaPolicy, QuotaState
from omi_async._quota.sharing import SharedQuotas
from omi_async._quota.store import LedgerFile, fingerprint
from omi_async._settings import (
    Secret,
    flag,
    parse_api_key,
    parse_base_url,
    parse_seconds,
    parse_share,
    parse_timeout,
    proxy_for,
    within_pool,
)
from omi_async._transport import call, close_pool, let_go_unclosed, open_pool
from omi_async._version import __version__
from omi_async.errors import (
    ConfigurationError,
    OmiError,
    RateLimitError,
)
from omi_async.importing.stopping import carried_through
from omi_async.key import KeyInfo
from omi_async.resources.memories import Memories

__all__ = ["Session"]

T = TypeVar("T")

JSON: Final = "application/json"


class Session:
    """A client of one Omi account, over one pool of connections, for one event loop.

    It is constructed anywhere, also without a running loop, and opened by ``async with`` or by its first
    call. It is meant to live long and be shared: any number of tasks may call it at the same time. Close it
    (``async with`` does) to give the connections back.

    *Writes of one account, one at a time.* The service takes parallel writes of one account badly: each of
    them advances one counter of the account, tries that three times without a pause, and then fails with a
    500, with a part of its work done. Two creates at the same time fail now and then, four mostly. An import
    finds out by itself how many a server takes. An application that writes from several tasks should have one
    lock for each account, and hold it for each write::

        locks = defaultdict(asyncio.Lock)

        async def remember(user: str, text: str) -> Memory:
            async with locks[user]:
                return await sessions[user].memories.create(text)

    Reads need no lock, and other accounts have locks of their own. Several processes need a lock that they
    share, or one of them that does all the writing.

    Args:
        api_key: a Developer API key (``omi_dev_...``); None for `OMI_API_KEY`.
        base_url: the server; None for `OMI_API_BASE`, else ``https://api.omi.me``. May have a path prefix.
        timeout: seconds for one attempt, from its permit to the last byte.
        batch_timeout: the same for batch calls, which the server may work on for long.
        connections: calls on the wire at the same time, at most; others wait for a permit, and that wait
            counts against no timeout (other calls in a `client` of your own may make it wait again).
        retry: attempts and waits.
        client: an aiohttp session of your own to use instead of our own pool. It is used as it is, never
            changed and never closed; proxies, TLS and tracing are configured there. What is left of a call
            that is given up may still be delivered by it: only our own pool throws that away.
        allow_http: allow plain ``http://`` to hosts other than this machine; None for `OMI_ALLOW_HTTP` (1).
            The key then crosses the network readable by all on the way.
        trace_configs: aiohttp trace configurations for the own pool.
        quotas: what is known beforehand of the server's quotas. If None, the documented ones are assumed of
            the official service, and none of any other server; an empty one assumes none at all. What the
            server says of its quotas, by headers and refusals, is learned in any case.
        max_wait: seconds that a call may wait for quota windows, in all; if it would have to wait longer, it
            raises `RateLimitError` with `retry_after` at once. Imports have a `max_wait` of their own.
        reserve: the share of each quota window, from 0 to below 1, that imports leave to other calls. It is
            rounded up to whole calls, but one call of each window is for imports too, so that they get on:
            with a limit of 1 nothing can be reserved.
        ledger: a file that keeps what is known and spent of this key's quotas for later processes, and tells
            others beside this one when they are refused; None keeps it in memory. It is read at the start and
            after each refusal, and written when something was learned and at the end; no call waits for it.
            Any number of Sessions may have the same. It holds fingerprints of keys only. Or a
            `workers.RedisStore`: then each call is counted there before it leaves, so that any number of
            processes on any number of machines spend the windows of a key together.
        trust_env: use the proxies that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name. Credentials of ~/.netrc are
            not used, since they would contradict the key.

    Raises:
        ConfigurationError: no key, a key that is no header value, an unusable base URL, ...

    Attributes:
        memories: the calls on memories.
        pacing: who may call now; for those who build on Sessions, as the importer does.
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
        quotas: Iterable[QuotaPolicy] | None = None,
        max_wait: float = 60.0,
        reserve: float = 0.0,
        ledger: str | os.PathLike[str] | SharedQuotas | None = None,
        trust_env: bool = False,
    ) -> None:
        kind = type(api_key)
        api_key = None if api_key is None else Secret(api_key)  # this frame stands in tracebacks
        self._base = "?"
        self._closed = True  # until everything below has been found usable
        self._client: aiohttp.ClientSession | None = None
        if client is not None and (trace_configs or trust_env):
            raise ConfigurationError(
                "trace_configs and trust_env belong to the aiohttp session that is given as client"
            )
        if connections < 1:
            raise ConfigurationError(f"connections must be at least 1, not {connections}")
        key = parse_api_key(api_key, kind)
        allow_http = flag("OMI_ALLOW_HTTP") if allow_http is None else allow_http
        self._base = parse_base_url(base_url, allow_http, key)
        self._headers = _headers_with(key)
        self._headers_of_call = {} if client is None else self._headers  # an own pool has them
        self._headers_with_body = {**self._headers_of_call, "Content-Type": JSON}
        self._key = key
        self._retry = retry
        self._timeout = parse_timeout("timeout", timeout)
        self._batch_timeout = parse_timeout("batch_timeout", batch_timeout)
        self._connections = connections
        self._max_wait = parse_seconds("max_wait", max_wait)
        self.pacing = Pacer(
            Ledger.for_server(
                self._base,
                quotas,
                reserve=parse_share("reserve", reserve),
                retry=retry,
                chance=random.random,
            ),
            within_pool(connections, client),
        )
        self._keep_quotas(ledger)
        self._proxy = proxy_for(self._base) if trust_env else None
        self._borrowed = client
        self._trace_configs = list(trace_configs)
        self._loop: asyncio.AbstractEventLoop  # of the client, once there is one
        self.memories = Memories(self)
        self._closed = False

    def _keep_quotas(self, ledger: str | os.PathLike[str] | SharedQuotas | None) -> None:
        if isinstance(ledger, str | os.PathLike):
            self.pacing.keep(LedgerFile(ledger, fingerprint(self._key), self._base))
        elif ledger is not None:
            self.share_quotas(ledger)

    # Life: unopened, open, closed

    @property
    def base_url(self) -> str:
        """The server's base URL, without a slash at its end."""
        return self._base

    @property
    def quotas(self) -> tuple[QuotaState, ...]:
        """What is known of the server's quotas at this moment: how much is used, and when they open."""
        return self.pacing.states()

    @property
    def longest_call(self) -> float:
        """Seconds after which a call that leaves now has ended, with an answer or without."""
        return max(self._timeout.total or 0.0, self._batch_timeout.total or 0.0)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called; a closed Session stays closed."""
        return self._closed

    async def __aenter__(self) -> Self:
        await self.pacing.open()
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
        self.pacing.close(_is_closed)
        # Also when cancelled: else what was learned of the quotas would not be written.
        await carried_through(self._close())

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None and client is not self._borrowed:
            await close_pool(client, self._loop)
        await self.pacing.save()

    def share_quotas(self, store: SharedQuotas) -> None:
        """Count this key's calls in a store from now on, unless the Session has a ledger already."""
        self.pacing.share(store.quotas_of(fingerprint(self._key), self._base))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "unopened" if self._client is None else "open"
        return f"<omi_async.Session {self._base} {state}>"

    def __del__(self) -> None:
        client = getattr(self, "_client", None)
        if not (self._closed or client is None or client is self._borrowed):
            let_go_unclosed(self, client, self._loop)

    def _open(self) -> aiohttp.ClientSession:
        """Return the aiohttp session for the running loop, made at the first call."""
        if self._closed:
            raise _is_closed()
        loop = asyncio.get_running_loop()
        if self._client is None:
            self._client = self._borrowed or open_pool(
                self._connections, self._headers, self._trace_configs, self._proxy
            )
            self._loop = getattr(self._client, "_loop", loop)
        if self._loop is not loop:
            raise ConfigurationError("this Session belongs to another event loop; make one for each loop")
        return self._client

    # Calls

    async def send(self, request: Request[T], /, *, permit: Permit | None = None) -> T:
        """Send a request, again if that is safe, and return what its answer means.

        Args:
            request: what to send.
            permit: from `pacing`: leave to send it now, once. None waits for one, and tries again.

        Raises:
            TransportError: no usable answer.
            RateLimitError: out of quota, for longer than `max_wait` or for all attempts.
            APIError: the server refused or failed.
            ResponseFormatError: a success that does not decode.
            ConfigurationError: the Session is closed, or belongs to another event loop.
        """
        if permit is not None:
            return self._interpret(request, await self._attempt(request, permit), repeated=False)
        with _observing.call(request.kind, self._base):
            return await self._repeat(request)

    async def _repeat(self, request: Request[T]) -> T:
        """Make attempts until there is an answer, or an error that another attempt would not help."""
        lost = False
        patience = self._max_wait
        for number, longest in enumerate(waits(self._retry, request.attempts), 1):
            self._open()  # tells a closed Session apart at once, and not only when there is a permit
            permit = await self.pacing.acquire(request.kind, patience=patience)
            patience -= permit.waited
            try:
                return self._interpret(request, await self._attempt(request, permit), repeated=lost)
            except OmiError as error:
                lost = lost or error.maybe_applied
                wait = self._wait_after(error, request, longest, patience)
                if wait is None:
                    raise
                _observing.log_retry(request, number, error, max(wait, self.pacing.wait(request.kind)))
            await asyncio.sleep(wait)
        raise AssertionError("after the last attempt there is no wait")

    def _wait_after(
        self, error: OmiError, request: Request[Any], longest: float | None, patience: float
    ) -> float | None:
        """Return the seconds until the next attempt, or None if there is none."""
        if isinstance(error, RateLimitError) and (shut := self.pacing.wait(request.kind)) > patience:
            # The caller waits no longer, and is told when to come back, if the server has not said it.
            error.retry_after = error.retry_after or shut
            return None
        if self._closed:
            return None
        return wait_after(error, longest, idempotent=request.idempotent, chance=random.random())  # noqa: S311  # jitter

    async def key_info(self) -> KeyInfo:
        """Ask the server about the key: its name, and what it may do. It needs no scope.

        Raises:
            AuthenticationError: the server does not know the key.
            NotFoundError: the server is too old to tell.
        """
        return await self.send(key_info())

    async def _attempt(self, request: Request[Any], permit: Permit) -> Response:
        """Make one call, once. Raises `TransportError` for all that can go wrong on the way."""
        answer: Response | OmiError | None = None
        try:
            answer = await call(
                self._open(),
                request,
                self._base,
                proxy=self._proxy,
                headers=self._headers_of_call if request.body is None else self._headers_with_body,
                timeout=self._batch_timeout if request.slow else self._timeout,
            )
            if isinstance(answer, OmiError):
                permit.failed(answer)
            else:
                permit.answered(answer)
        except asyncio.CancelledError as error:
            permit.failed(error)  # the server may have got it, and counted it
            raise
        finally:
            permit.give_back()  # if nothing else has become of it
            _observing.attempted(answer, permit.waited)
        _observing.log_attempt(request, answer)
        if isinstance(answer, OmiError):
            try:
                raise answer
            finally:
                del answer  # else the error would keep this frame alive, and this frame the error
        return answer

    def _interpret(self, request: Request[T], response: Response, *, repeated: bool) -> T:
        """Return what an answer means, or raise the error that it is, with no trace of the key."""
        try:
            return interpret(request, response, repeated=repeated)
        except OmiError:
            pass  # raised again below
        # What stands before the server may echo the request. So the error is made again, of an answer without
        # the key; and that takes the name of the other one, since the frames of an error are looked at too.
        response = self._without_key(response)
        return interpret(request, response, repeated=repeated)

    def _without_key(self, response: Response) -> Response:
        """Return the answer without the key, for an error that is kept, copied and pickled with it."""
        headers = CIMultiDict[str]()
        for name, text in response.headers.items():
            headers.add(name.replace(self._key, "***"), text.replace(self._key, "***"))
        body = response.body
        for spelling in (self._key.encode(), json.dumps(str.__str__(self._key))[1:-1]):
            body = body.replace(spelling, b"***")
        return attrs.evolve(response, headers=headers, body=body)


def _headers_with(key: Secret) -> dict[str, str]:
    return {
        "Authorization": Secret(f"Bearer {key}"),
        "Accept": JSON,
        "User-Agent": f"omi_async/{__version__} aiohttp/{aiohttp.__version__}",
    }


def _is_closed() -> OmiError:
    return ConfigurationError("this Session is closed; a closed Session cannot be opened again")
