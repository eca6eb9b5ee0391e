"""The server's life: start, record, close; in a loop, in a thread, as a command."""

import asyncio
import logging
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import omi_async.local
from omi_async.fact import Fact
from omi_async.local import Fault, LocalServer, ThreadedServer, serve
from tests.local.local_client import BATCH, MEMORIES, Client, client_of, names, serving, stored


def test_the_public_names_are_listed_in_order() -> None:
    names = omi_async.local.__all__
    assert sorted(names, key=lambda name: (not name.isupper(), name.islower(), name)) == names
    assert all(hasattr(omi_async.local, name) for name in names)


async def test_the_url_is_that_of_a_free_port_and_has_no_slash_at_its_end() -> None:
    async with LocalServer() as first, LocalServer() as second:
        assert first.url.startswith("http://127.0.0.1:")
        assert not first.url.endswith("/")
        assert first.url != second.url
        assert repr(first) == f"<LocalServer {first.url} database=None>"
    assert repr(first) == "<LocalServer closed database=None>"


async def test_a_given_host_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with LocalServer(host="localhost", port=port) as server:
        assert server.url == f"http://localhost:{port}"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_an_ipv6_host_stands_in_brackets() -> None:
    try:
        async with LocalServer(host="::1") as server:
            assert server.url.startswith("http://[::1]:")
    except OSError:
        pytest.skip("no IPv6 loopback here")


async def test_a_taken_port_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    async with LocalServer() as server:
        other = LocalServer(tmp_path / "a.db", port=int(server.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="address"):
            await other.start()
        await other.close()
    assert names(tmp_path) == ["a.db"]  # no -wal, no -shm


async def test_a_closed_server_says_so() -> None:
    server = LocalServer()
    for use in (lambda: server.url, server.memories, lambda: server.add("a")):
        with pytest.raises(RuntimeError, match="not open"):
            use()
    async with server:
        with pytest.raises(RuntimeError, match="open already"):
            await server.start()
    await server.close()


async def test_calls_in_flight_get_a_moment_to_end() -> None:
    asleep = asyncio.Event()

    async def sleep(_seconds: Any) -> None:
        asleep.set()
        await asyncio.sleep(0)

    server = LocalServer(faults=[Fault.slow(1)], sleep=sleep)
    await server.start()
    async with client_of(server) as http:
        call = asyncio.create_task(Client(http).create("a"))
        await asleep.wait()
        await server.close()
        assert (await call).status == 200


async def test_calls_that_do_not_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omi_async.local.server._GRACE", 0.01)
    asleep = asyncio.Event()

    async def sleep(_seconds: Any) -> None:
        asleep.set()
        await asyncio.Event().wait()

    server = LocalServer(faults=[Fault.slow(1)], sleep=sleep)
    await server.start()
    async with client_of(server) as http:
        call = asyncio.create_task(Client(http).create("a"))
        await asleep.wait()
        await server.close()
        with pytest.raises(aiohttp.ClientError):
            await call
    assert [record.status for record in server.requests] == [None]


async def test_a_client_that_goes_away_while_it_sends_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, client):
        _, writer = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
        head = f"POST {MEMORIES} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        head += f"Authorization: Bearer {server.api_key}\r\n\r\n{{"
        writer.write(head.encode())
        await writer.drain()
        assert (await client.listed()).status == 200
        writer.close()
        await writer.wait_closed()
        assert (await client.listed()).status == 200
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert stored_statuses(server) == [200, 200, None]


def stored_statuses(server: Any) -> Any:
    return sorted((record.status for record in server.requests), key=lambda status: status or 999)


async def test_every_call_is_recorded() -> None:
    async with serving() as (server, client):
        await client.batch("a", "b", "c")
        await client.create("d")
        await client.listed(limit=1)
        await client.delete("a b")
        await client.call("GET", "/nope")
        await client.call("POST", BATCH, json={"memories": 3})
    found = [(call.method, call.path, call.kind, call.status, call.items) for call in server.requests]
    assert found == [
        ("POST", BATCH, "batch", 200, 3),
        ("POST", MEMORIES, "create", 200, 1),
        ("GET", MEMORIES, "list", 200, 0),
        ("DELETE", f"{MEMORIES}/a%20b", "delete", 404, 0),
        ("GET", "/nope", "", 404, 0),
        ("POST", BATCH, "batch", 422, 0),
    ]
    assert all(call.started <= call.ended for call in server.requests)


async def test_the_access_log_names_neither_keys_nor_texts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(access_log=logging.getLogger("omi_async.local")) as (server, client):
        await client.batch("secret text", "b")
        await client.listed(categories="work")
        server.faults.add(Fault.reset())
        with pytest.raises(aiohttp.ClientError):
            await client.create("secret text")
    lines = [record.getMessage() for record in caplog.records if record.name == "omi_async.local"]
    assert len(lines) == 3
    assert lines[0].startswith(f"POST {BATCH} 200 ")
    assert lines[0].endswith(" ms 2 items")
    assert lines[2].startswith(f"POST {MEMORIES} dropped ")
    assert all("secret" not in line and server.api_key not in line for line in lines)


async def test_added_memories_are_stripped_and_stored_past_the_identity_of_texts() -> None:
    async with serving() as (server, client):
        rows = server.add(" a ", "a", category="work", tags=["t"], user_review=False)
        assert server.memories() == rows
        assert [row["content"] for row in rows] == ["a", "a"]
        assert rows[0]["id"] != rows[1]["id"]
        assert (await client.listed()).json[0]["user_review"] is False
        with pytest.raises(TypeError, match="no field color, size"):
            server.add("b", size=1, color=2)


async def test_each_stored_once() -> None:
    async with LocalServer() as server:
        server.add("a", "b", "c", "more")
        server.assert_each_stored_once([" a", Fact("b"), {"content": "c ", "category": "x"}, "a"])
        server.add("b")
        with pytest.raises(AssertionError) as error:
            server.assert_each_stored_once(["b", "a", "d"])
        assert str(error.value) == "of 3 texts: 1 missing: 'd'; 1 stored more than once: 'b' (2 times)"
        with pytest.raises(AssertionError, match=r"of 12 texts: 12 missing: '0', .*'9', and 2 more"):
            server.assert_each_stored_once(map(str, range(12)))
        with pytest.raises(TypeError, match="not int"):
            server.assert_each_stored_once([3])


def _get(server: Any) -> Any:
    request = urllib.request.Request(
        f"{server.url}{MEMORIES}", headers={"Authorization": f"Bearer {server.api_key}"}
    )
    with urllib.request.urlopen(request) as response:
        return response.read()


def test_a_server_in_a_thread() -> None:
    before = threading.active_count()
    with LocalServer.in_thread(api_key="omi_dev_thread", text_identity=False) as server:
        assert isinstance(server, ThreadedServer)
        assert server.api_key == "omi_dev_thread"
        server.add("a", "b", tags=["t"])
        server.faults.add(Fault.reordered())
        assert b'"content":"a"' in _get(server)
        server.assert_each_stored_once(["a", "b"])
        assert stored(server) == ["a", "b"]
        assert [call.kind for call in server.requests] == ["list"]
        assert (server.max_in_flight, server.max_in_flight_by_kind["list"]) == (1, 1)
        assert (list(server.faults), list(server.quotas)) == ([], [])
        other = server.add_key(scopes=["memories:read"])
        server.revoke_key(other)
        assert server.api_key not in repr(server)
        with pytest.raises(RuntimeError, match="open already"):
            server.start()
    server.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="not open"):
        server.memories()


def test_a_server_in_a_thread_that_cannot_start_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(omi_async.local.LocalDatabaseError):
        LocalServer.in_thread(tmp_path / "nowhere" / "a.db").start()
    assert threading.active_count() == before


async def test_serve_runs_until_it_is_cancelled(tmp_path: Path) -> None:
    started = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(tmp_path / "a.db", ready=started.set_result))
    server = await started
    async with client_of(server) as http:
        assert (await Client(http).create("a")).status == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert repr(server).startswith("<LocalServer closed")


def test_serve_in_a_thread_leaves_the_signals_alone() -> None:
    async def run() -> Any:
        started = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(ready=started.set_result, access_log=None))
        server = await started
        task.cancel()
        await asyncio.wait([task])
        return server

    servers = []
    thread = threading.Thread(target=lambda: servers.append(asyncio.run(run())))
    thread.start()
    thread.join()
    assert repr(servers[0]) == "<LocalServer closed database=None>"


async def test_serve_needs_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omi_async.local.serving.asyncio.Event.wait", lambda _self: asyncio.sleep(0))
    await serve()


async def test_a_large_list_comes_in_pages_to_its_very_end() -> None:
    async with serving(list_window=None, list_budget=None) as (server, client):
        server.add(*[f"fact {n}" for n in range(100_000)])
        first, last = await client.texts(limit=1000), await client.texts(limit=1000, offset=99_000)
    assert (first[0], last[-1]) == ("fact 99999", "fact 0")
