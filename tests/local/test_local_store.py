"""The database file: it outlives the process, and is never taken for, nor made of, another program's."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from omi_async.errors import ConfigurationError
from omi_async.local import LocalDatabaseError, LocalServer
from omi_async.local.store import Memories, connect, database_id
from tests.local.local_client import Client, client_of, names, serving, stored

KEY = "omi_dev_0123456789abcdef0123456789abcdef"

SERVE = f"""
import asyncio, sys
from omi_async.local import serve
asyncio.run(serve(sys.argv[1], api_key={KEY!r}, ready=lambda server: print(server.url, flush=True)))
"""


def _process(database: Any) -> Any:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVE, str(database)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _batches_until_killed(process: Any) -> Any:
    """Send batches, and kill the server in the middle of them. Returns the texts that were acknowledged."""

    async def run() -> Any:
        url = await asyncio.to_thread(process.stdout.readline)
        acknowledged = []
        async with aiohttp.ClientSession(url.strip(), headers={"Authorization": f"Bearer {KEY}"}) as http:
            client = Client(http)
            for number in range(10_000):
                texts = [f"batch {number} fact {n}" for n in range(25)]
                if number == 20:
                    killer = asyncio.get_running_loop().call_later(0.01, process.kill)
                try:
                    answer = await client.batch(*texts)
                except aiohttp.ClientError:
                    break
                assert answer.json["created_count"] == 25
                acknowledged += texts
            killer.cancel()
        return acknowledged

    return asyncio.run(run())


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    database = tmp_path / "memories.db"
    process = _process(database)
    acknowledged = _batches_until_killed(process)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    with LocalServer.in_thread(database) as server:
        server.assert_each_stored_once(acknowledged)
        begun = stored(server)[len(acknowledged) :]
    assert len(acknowledged) >= 500
    assert len(begun) <= 25


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_order(tmp_path: Path, number: Any) -> None:
    database = tmp_path / "memories.db"
    process = _process(database)
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert names(tmp_path) == ["memories.db"]


async def test_a_file_lasts_with_its_ids_and_what_was_deleted(tmp_path: Path) -> None:
    database = tmp_path / "memories.db"
    async with serving(database) as (server, client):
        gone = (await client.create("gone")).json["id"]
        await client.delete(gone)
        await client.create("kept", tags=["\u00e9\x00"], visibility="public")
        before = server.memories()
    async with serving(str(database)) as (server, client):
        assert server.memories() == before
        assert (await client.create("gone")).json["id"].startswith("mem_")
        assert (await client.create("kept")).json["id"] == before[0]["id"]


async def test_memory_is_the_default_and_forgets() -> None:
    server = LocalServer()
    async with server:
        server.add("a")
        assert stored(server) == ["a"]
    async with server:
        assert stored(server) == []


def _foreign(path: Any) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE memories (id TEXT)")
    connection.close()


def _other_application(path: Any) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")
    connection.close()


def _newer(path: Any) -> None:
    connect(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _damaged(path: Any) -> None:
    store = Memories(path)
    for n in range(500):
        store.add(f"text {n} {'x' * 400}", now=0, text_identity=True)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 30] = b"\x55" * (4096 * 27)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_foreign, "another program"),
        (_other_application, "another program"),
        (_newer, "version 99"),
        (_damaged, "damaged|cannot be used"),
        (lambda path: path.write_text("content,category\nLikes tea,manual\n" * 50), "not a database"),
        (lambda path: path.write_bytes(b"short"), "not a database"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Any, said: Any
) -> None:
    path = tmp_path / "facts.csv"
    make(path)
    before = path.read_bytes()
    with pytest.raises(LocalDatabaseError, match=said) as error:
        await LocalServer(path).start()
    assert str(path) in str(error.value)
    assert isinstance(error.value, ConfigurationError)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["facts.csv"]


async def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalDatabaseError, match=r"cannot open .*nowhere"):
        await LocalServer(tmp_path / "nowhere" / "memories.db").start()


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    async with serving(path) as (server, _):
        assert server.memories() == []


async def test_two_servers_can_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    async with serving(path) as (first, client), serving(path) as (second, other):
        ids = {(await each.create("a")).json["id"] for each in (client, other)}
        await other.create("b")
        assert stored(first) == stored(second) == ["a", "b"]
    assert len(ids) == 1


async def test_a_database_that_another_process_creates_meanwhile_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memories.db"
    looks = iter([True])
    first = connect(str(path))
    monkeypatch.setattr("omi_async.local.store._is_empty", lambda _: next(looks, False))
    connect(str(path)).close()
    first.close()


async def test_a_database_that_cannot_be_created_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omi_async.local.store._SCHEMA", "BEGIN IMMEDIATE; CREATE TABLE;")
    with pytest.raises(LocalDatabaseError, match="cannot be used"):
        connect(str(tmp_path / "memories.db"))


async def test_a_failing_database_is_a_500_not_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, client):
        server._accounts[0].memories._connection.execute("DROP TABLE deleted")
        answer = await client.create("a")
        assert (await client.listed()).status == 200
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert [record.message for record in caplog.records] == ["the database failed"]


@pytest.mark.parametrize("categories", [(), ("work",), ("work", "manual")])
def test_a_deep_page_is_found_without_sorting(tmp_path: Path, categories: Any) -> None:
    store = Memories(tmp_path / "memories.db")
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    store.page(limit=1000, offset=99_000, categories=categories)
    (statement,) = statements
    store._connection.set_trace_callback(None)
    page = statement[statement.index("(SELECT") + 1 : statement.rindex(") ORDER BY")]
    plan = [row[3] for row in store._connection.execute(f"EXPLAIN QUERY PLAN {page}")]
    store.close()
    assert plan == ["SCAN memories USING COVERING INDEX newest_first"]


def test_the_store_refuses_a_field_that_there_is_not() -> None:
    store = Memories(None)
    with pytest.raises(TypeError, match="no field colour"):
        store.add("a", now=0, text_identity=True, colour="red")
    assert list(store) == []
    store.close()


def test_a_text_that_another_connection_stored_meanwhile_gets_an_id_of_its_own(tmp_path: Path) -> None:
    store, other = Memories(tmp_path / "a.db"), Memories(tmp_path / "a.db")
    first = other.add("a", now=0, text_identity=True)
    second = store.add("a", now=0, text_identity=True)
    assert second["id"].startswith("mem_")
    assert store.by_id(first["id"]) == first
    store.close()
    other.close()


def test_client_of_uses_the_given_key() -> None:
    """Keep the helper honest: a wrong key must reach the server as it is."""

    async def run(server: Any) -> Any:
        async with client_of(server, "omi_dev_wrong") as http:
            return (await Client(http).listed()).detail

    with LocalServer.in_thread() as server:
        assert asyncio.run(run(server)) == "Invalid API Key"


def test_a_database_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with LocalServer.in_thread(tmp_path / "memories.db") as server:
            server.add("private")
            modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
            assert len(names(tmp_path)) > 1  # what SQLite keeps beside it
    finally:
        os.umask(before)
    assert modes == {0o600}


def test_the_mode_of_a_database_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "memories.db").touch(0o640)
    (tmp_path / "memories.db").chmod(0o640)
    with LocalServer.in_thread(tmp_path / "memories.db"):
        assert (tmp_path / "memories.db").stat().st_mode & 0o777 == 0o640


def test_a_database_keeps_its_id_and_another_at_its_path_has_another(tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    ids = []
    for _ in range(2):
        for _ in range(2):
            with LocalServer.in_thread(path) as server:
                ids.append(server.database_id)
        assert database_id(str(path)) == ids[-1]
        path.unlink()
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert database_id(":memory:") != database_id(":memory:")


def test_a_database_of_an_older_version_gets_an_id(tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    with LocalServer.in_thread(path) as server:
        server.add("kept")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE about")
    with LocalServer.in_thread(path) as server:
        assert server.database_id == database_id(str(path))
        assert stored(server) == ["kept"]
