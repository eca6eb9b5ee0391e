"""A session's configuration and its life: unopened, open, closed."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import math
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from yarl import URL

import omi_async
from omi_async import ConfigurationError, Memory, ResponseLostError, Retry, Session
from omi_async.local import Fault, LocalServer
from tests.raw_server import Call, raw_server

KEY = "omi_dev_0123456789abcdef"


def base_of(given: Any = None, **more: Any) -> str:
    return Session(KEY, base_url=given, **more).base_url


# The base URL


def test_the_official_service_is_the_default() -> None:
    assert base_of() == "https://api.omi.me"


def test_the_base_url_is_the_environment_s_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_API_BASE", "https://self.example/omi/")
    assert base_of() == "https://self.example/omi"
    assert base_of("https://other.example") == "https://other.example"
    monkeypatch.setenv("OMI_API_BASE", "")
    assert base_of() == "https://api.omi.me"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.omi.me/", "https://api.omi.me"),
        ("https://api.omi.me//", "https://api.omi.me"),
        ("  https://api.omi.me \n", "https://api.omi.me"),
        ("HTTPS://API.Omi.Me", "https://api.omi.me"),
        ("https://h.example/a/b/", "https://h.example/a/b"),
        ("https://h.example/a%20b/%2F", "https://h.example/a%20b/%2F"),
        ("https://h.example:8443", "https://h.example:8443"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
        (URL("https://h.example/a/"), "https://h.example/a"),
        ("https://api.omi.me.", "https://api.omi.me"),
        ("https://h.example.:8443/a/", "https://h.example:8443/a"),
        ("http://localhost.:1", "http://localhost:1"),
        ("http://[::1%25lo]:1", "http://[::1%25lo]:1"),
        ("http://localhost", "http://localhost"),
        ("http://LOCALHOST:1/", "http://localhost:1"),
        ("http://api.localhost:1", "http://api.localhost:1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_usable_base_url(given: str | URL, kept: str) -> None:
    assert base_of(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        "/",
        "api.omi.me",
        "//api.omi.me",
        "https://",
        "https:///x",
        "https://h.example:99999",
        "https://h.example:x",
        "https://[::1",
        "ftp://h.example",
        "ws://h.example",
        "file:///etc/passwd",
        "https://user@h.example",
        "https://user:hunter2@h.example",
        "https://:hunter2@h.example",
        "ftp://user:hunter2@h.example/hunter2",
        "https://h.example/?token=hunter2",
        "gopher://h.example?token=hunter2",
        "https://h.example?",
        "https://h.example/#hunter2",
        "https://h.example/#",
        "omi_dev_hunter2",
        "http://127.0.0.1%00.evil.example",
        "https://127.0.0.1%2f.evil.example",
        "https://.",
        "http://\x1b[31mhunter2",
        URL("/relative"),
        7,
        b"https://h.example",
    ],
    ids=repr,
)
def test_an_unusable_base_url_is_refused_without_its_secrets(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="base URL") as caught:
        base_of(given)
    assert "hunter2" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        f"https://h.example/{KEY}",
        f"https://{KEY}.example",
        f"https://h.example/{KEY.upper()}/x",
        "https://h.example/omi_mcp_aaaabbbbccccdddd",
        f"https://h.example/%6F{KEY[1:]}",
        f"ftp://h.example/{KEY}",
        KEY,
    ],
)
def test_a_key_in_a_base_url_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^the base URL must not hold an API key$"):
        base_of(given)


def test_a_key_of_another_form_is_none_of_a_base_urls_business_either() -> None:
    with pytest.raises(ConfigurationError, match=r"^the base URL must not hold an API key$"):
        Session("my-own-key", base_url="https://h.example/my-own-key/")


NOT_HERE = [
    "http://api.omi.me",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1.evil.example.",
    "http://notlocalhost",
    "http://10.0.0.1",
    "http://0.0.0.0",
    "http://[::]",
    "http://[2001:db8::1]",
    "http://2130706433",
    "http://127.1",
]


@pytest.mark.parametrize("given", NOT_HERE)
def test_plain_http_goes_no_further_than_this_machine(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for refusing in ("", "0", "no", "false"):
        monkeypatch.setenv("OMI_ALLOW_HTTP", refusing)
        with pytest.raises(ConfigurationError, match="the key would cross the network in clear"):
            base_of(given)
    monkeypatch.setenv("OMI_ALLOW_HTTP", "1")
    assert base_of(given)
    with pytest.raises(ConfigurationError, match="allow_http=True or OMI_ALLOW_HTTP=1"):
        base_of(given, allow_http=False)
    monkeypatch.delenv("OMI_ALLOW_HTTP")
    assert base_of(given, allow_http=True)


def test_what_counts_as_this_machine_is_what_the_standard_library_says() -> None:
    assert all(ipaddress.ip_address(host).is_loopback for host in ("127.0.0.1", "127.8.9.10", "::1"))


@pytest.mark.parametrize(
    ("base", "path"),
    [("", ""), ("/", ""), ("/omi", "/omi"), ("/omi/", "/omi"), ("/a%2Fb/c d/", "/a%2Fb/c%20d")],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_calls_go_below_the_base_url(base: str, path: str, host: str) -> None:
    async def handle(call: Call) -> None:
        await call.answer(body={"success": True})

    async with raw_server(handle, host=host) as server, Session(KEY, base_url=server.url + base) as session:
        await session.memories.delete("a/../b c%")
        assert server.sent == [f"DELETE {path}/v1/dev/user/memories/a%2F..%2Fb%20c%25"]


# The key


def test_the_key_is_the_environment_s_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no API key: set OMI_API_KEY"):
        Session()
    monkeypatch.setenv("OMI_API_KEY", " omi_dev_1\n")
    assert Session()._headers["Authorization"] == "Bearer omi_dev_1"
    assert Session("omi_dev_2")._headers["Authorization"] == "Bearer omi_dev_2"
    for empty in ("", "  "):
        with pytest.raises(ConfigurationError, match="no API key"):
            Session(empty)


@pytest.mark.parametrize(
    "key", ["a b", "a\nb", "a\r\nX-Evil: 1", "a\x00", "\u00e4", "a\u2026", "Bearer a", "a\tb"]
)
def test_a_key_that_is_no_header_value_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the API key holds a character that no key has") as caught:
        Session(key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("key", [5, 0, 1.5, True, b"omi_dev_1", ["omi_dev_1"]], ids=repr)
def test_a_key_that_is_no_string_is_refused_without_showing_it(key: Any) -> None:
    # Catches: a user's number in the place of a key, which becomes a key; bytes in a traceback's locals.
    with pytest.raises(ConfigurationError, match="must be a string, not") as caught:
        Session(key)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    assert frames
    assert all(key is not value for frame in frames for value in frame.f_locals.values())


async def test_the_key_and_the_headers_are_sent() -> None:
    async def handle(call: Call) -> None:
        await call.answer(body={"id": "1"})

    async with raw_server(handle) as server, Session(KEY, base_url=server.url) as session:
        await session.memories.create("a")
        headers = server.calls[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["accept"] == "application/json"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith(f"omi_async/{omi_async.__version__} ")
    assert "cookie" not in headers


async def test_an_own_pool_keeps_no_cookies() -> None:
    async def handle(call: Call) -> None:
        await call.answer(body=[], headers={"Set-Cookie": "session=1; Path=/"})

    async with raw_server(handle, host="localhost") as server:
        async with Session(KEY, base_url=server.url) as session:
            await session.memories.list()
            await session.memories.list()
        assert [call.headers.get("cookie") for call in server.calls] == [None, None]


# Other arguments


@pytest.mark.parametrize("name", ["timeout", "batch_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_timeout_is_a_positive_number(name: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be a positive number of seconds"):
        Session(KEY, **{name: seconds})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("connections", [0, -1])
def test_a_session_has_a_connection_at_least(connections: int) -> None:
    with pytest.raises(ConfigurationError, match="connections must be at least 1"):
        Session(KEY, connections=connections)


async def test_trace_configs_go_with_an_own_pool_only() -> None:
    async with aiohttp.ClientSession() as client:
        with pytest.raises(ConfigurationError, match="trace_configs"):
            Session(KEY, client=client, trace_configs=[aiohttp.TraceConfig()])


async def test_trace_configs_pass_through(server: LocalServer) -> None:
    seen = []

    async def note(
        _client: aiohttp.ClientSession, _context: Any, params: aiohttp.TraceRequestEndParams
    ) -> None:
        seen.append((params.method, params.response.status))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    async with Session(server.api_key, base_url=server.url, trace_configs=[trace]) as session:
        await session.memories.list()
    assert seen == [("GET", 200)]


# Unopened, open, closed


def test_a_session_is_constructed_without_a_loop_and_opened_by_its_first_call() -> None:
    with LocalServer.in_thread() as server:
        session = Session(server.api_key, base_url=server.url)
        assert repr(session) == f"<omi_async.Session {server.url} unopened>"

        async def use() -> list[Memory]:
            try:
                return await session.memories.list()
            finally:
                assert repr(session).endswith(" open>")
                await session.close()

        assert asyncio.run(use()) == []
    assert repr(session).endswith(" closed>")


def test_an_unopened_session_leaves_nothing_behind() -> None:
    session = Session(KEY)
    assert not session.closed
    dead = weakref.ref(session)
    del session
    gc.collect()
    assert dead() is None


async def test_a_block_opens_and_closes(server: LocalServer) -> None:
    session = Session(server.api_key, base_url=server.url)
    async with session as same:
        assert same is session
        assert repr(session).endswith(" open>")
        client = session._client
        assert client is not None
    assert session.closed
    assert client.closed


async def test_a_block_closes_whatever_happens_in_it() -> None:
    session = Session(KEY)
    with pytest.raises(ZeroDivisionError):
        async with session:
            raise ZeroDivisionError
    assert session.closed


@pytest.mark.parametrize("opened", [True, False])
async def test_closing_twice_is_fine_and_reopening_is_not(opened: bool) -> None:
    session = Session(KEY)
    if opened:
        session._open()
    await session.close()
    await session.close()
    await asyncio.gather(session.close(), session.close())
    for use in (session.__aenter__, session.memories.list):
        with pytest.raises(ConfigurationError, match="a closed Session cannot be opened again"):
            await use()


async def test_closing_with_calls_under_way_fails_them_and_what_waits_for_a_turn() -> None:
    started = asyncio.Event()

    async def handle(_call: Call) -> None:
        started.set()
        await asyncio.Event().wait()

    async with raw_server(handle) as server:
        session = Session(KEY, base_url=server.url, connections=1)
        calls = [asyncio.create_task(session.memories.list()) for _ in range(3)]
        await started.wait()
        await session.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [ResponseLostError, ConfigurationError, ConfigurationError]
    assert len(server.calls) == 1


@pytest.mark.virtual_clock
async def test_closing_between_two_tries_ends_the_tries(server: LocalServer) -> None:
    server.faults.add(Fault.rate_limited(retry_after=3600))
    session = Session(server.api_key, base_url=server.url, max_wait=3600)
    call = asyncio.create_task(session.memories.list())
    await asyncio.sleep(1)
    await session.close()
    with pytest.raises(ConfigurationError, match="closed"):
        await call
    assert len(server.requests) == 1


def in_another_loop(coroutine: Callable[[], Any]) -> Any:
    """Run in a loop of a thread of its own."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(asyncio.run(coroutine()))
        except Exception as error:  # noqa: BLE001  # each is looked at below
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]


async def test_a_session_belongs_to_the_loop_that_opened_it(server: LocalServer) -> None:
    async with Session(server.api_key, base_url=server.url, connections=1) as session:
        await session.memories.list()
        assert isinstance(in_another_loop(session.memories.list), ConfigurationError)
        permit = await session.pacing.acquire("list")  # also while all turns are taken
        error = in_another_loop(session.memories.list)
        permit.give_back()
        assert "another event loop" in str(error)
        assert await session.memories.list() == []


async def test_a_borrowed_client_belongs_to_its_loop_too() -> None:
    async with aiohttp.ClientSession() as client:
        session = Session(KEY, client=client)
        assert "another event loop" in str(in_another_loop(session.memories.list))
        assert not session.closed


def test_a_session_may_be_closed_after_its_loop(recwarn: pytest.WarningsRecorder) -> None:
    with LocalServer.in_thread() as server:
        session = Session(server.api_key, base_url=server.url)
        asyncio.run(session.memories.list())
        asyncio.run(session.close())
        assert session.closed
        del session
        gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


# A borrowed client


async def test_a_borrowed_client_is_used_as_it_is_and_left_open(server: LocalServer) -> None:
    trail: list[str] = []

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        trail.append(f"{request.method} {request.headers['X-Mine']}")
        return await handler(request)

    async with aiohttp.ClientSession(
        base_url="https://elsewhere.example/",
        headers={"X-Mine": "1", "Authorization": "Bearer theirs", "Content-Type": "text/plain"},
        cookies={"a": "b"},
        timeout=aiohttp.ClientTimeout(total=0.001),
        raise_for_status=True,
        middlewares=(middleware,),
    ) as client:
        before = {name: repr(value) for name, value in vars(client).items()}
        async with Session(
            server.api_key, base_url=server.url, client=client, retry=Retry(attempts=1)
        ) as session:
            memory = await session.memories.create("a")
            await session.memories.delete(memory.id)
            with pytest.raises(omi_async.NotFoundError):  # and not an error of raise_for_status
                await session.memories.delete("nothing")
        assert session.closed
        with pytest.raises(ConfigurationError, match="closed"):
            await session.memories.list()
        assert not client.closed
        assert {name: repr(value) for name, value in vars(client).items()} == before
    assert trail == ["POST 1", "DELETE 1", "DELETE 1"]


async def test_a_borrowed_client_that_is_closed_is_named() -> None:
    client = aiohttp.ClientSession()
    await client.close()
    async with Session(KEY, client=client) as session:
        with pytest.raises(
            ConfigurationError, match="the aiohttp session that was given as client is closed"
        ):
            await session.memories.list()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_borrowed_client_with_an_auth_of_its_own_is_refused(server: LocalServer) -> None:
    async with (
        aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "password")) as client,
        Session(server.api_key, base_url=server.url, client=client) as session,
    ):
        with pytest.raises(ConfigurationError, match="has an auth of its own"):
            await session.memories.list()
    assert not server.requests


@pytest.mark.virtual_clock
async def test_a_smaller_pool_of_a_borrowed_client_bounds_the_calls_so_that_no_timeout_counts_the_wait() -> (
    None
):
    async def handle(call: Call) -> None:
        await asyncio.sleep(20)
        await call.answer(body=[])

    async with (
        raw_server(handle) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50, limit_per_host=2)) as client,
        Session(KEY, base_url=server.url, client=client, connections=8, retry=Retry(attempts=1)) as session,
    ):
        assert await asyncio.gather(*(session.memories.list() for _ in range(10))) == [[]] * 10
        assert server.most_open == 2
