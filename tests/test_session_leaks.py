"""A session that is not closed says so once, and leaves no other noise."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from omi_async import ConfigurationError, Session
from omi_async.local import LocalServer, ThreadedServer

KEY = "omi_dev_0123456789abcdef"

PROGRAM = """
import asyncio, gc, sys
from omi_async import ConfigurationError, Session

async def use(session):
    await asyncio.gather(session.memories.list(), session.memories.list())

def make():
    return Session(sys.argv[1], base_url=sys.argv[2])

class Holder:
    pass

async def closed():
    async with make() as session:
        await use(session)

async def inside():
    session = make()
    await use(session)
    del session
    gc.collect()
    await asyncio.sleep(0)

"""

LEAKS = {
    "while its loop runs": "asyncio.run(inside())",
    "after its loop": "session = make(); asyncio.run(use(session)); del session; gc.collect()",
    "at the interpreter's exit": "session = make(); asyncio.run(use(session))",
    "in a cycle": "it = Holder(); it.it, it.session = it, make(); asyncio.run(use(it.session)); del it",
    "in a cycle, collected": (
        "it = Holder(); it.it, it.session = it, make(); asyncio.run(use(it.session)); del it; gc.collect()"
    ),
}
FLAWLESS = {
    "unopened": "session = make()",
    "closed": "asyncio.run(closed())",
}


@pytest.fixture(scope="module")
def served() -> Iterator[ThreadedServer]:
    with LocalServer.in_thread() as server:
        yield server


def said(tmp_path_of: ThreadedServer, what: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", PROGRAM + what, tmp_path_of.api_key, tmp_path_of.url],
        check=True,
        capture_output=True,
        text=True,
    )
    # With -X dev, asyncio tells of steps that took more than 0.1 s, as any does on a loaded machine.
    return re.sub(r"(?m)^Executing .* took .* seconds\n", "", done.stdout + done.stderr)


@pytest.mark.parametrize("how", LEAKS)
def test_a_leaked_session_warns_once(served: ThreadedServer, how: str) -> None:
    words = said(served, LEAKS[how], "-W", "default")
    assert words.count("ResourceWarning: unclosed") == 1
    assert f"unclosed <omi_async.Session {served.url} open>: use `async with`" in words
    assert len(re.findall("Warning:", words)) == 1 + words.count("Enable tracemalloc")
    assert "Unclosed" not in words
    assert "Traceback" not in words


@pytest.mark.parametrize("how", LEAKS)
def test_with_warnings_as_errors_it_is_the_same_one(served: ThreadedServer, how: str) -> None:
    words = said(served, LEAKS[how], "-W", "error")
    assert words.count("Exception ignored in") == 1
    assert words.count("ResourceWarning: ") == 1


@pytest.mark.parametrize("how", LEAKS)
def test_without_flags_nothing_is_said(served: ThreadedServer, how: str) -> None:
    assert said(served, LEAKS[how]) == ""


@pytest.mark.parametrize("how", FLAWLESS)
@pytest.mark.parametrize("flags", [[], ["-W", "error"], ["-X", "dev"]], ids=["plain", "errors", "dev"])
def test_a_session_that_is_not_leaked_says_nothing(
    served: ThreadedServer, how: str, flags: list[str]
) -> None:
    assert said(served, FLAWLESS[how], *flags) == ""


async def test_a_leaked_session_gives_its_connections_back(server: LocalServer) -> None:
    session = Session(server.api_key, base_url=server.url)
    await session.memories.list()
    client = session._client
    assert client is not None
    transports = [protocol.transport for line in client.connector._conns.values() for protocol, *_ in line]  # type: ignore[union-attr]  # it has one
    assert len(transports) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session
        gc.collect()
    (warning,) = caught
    assert warning.category is ResourceWarning
    assert warning.source is not None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert client.closed
    assert all(transport is None or transport.is_closing() for transport in transports)


async def test_a_session_over_a_borrowed_client_is_not_missed(server: LocalServer) -> None:
    async with aiohttp.ClientSession() as client:
        session = Session(server.api_key, base_url=server.url, client=client)
        await session.memories.list()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del session
            gc.collect()
        assert not client.closed


def test_a_session_that_could_not_be_made_is_not_missed() -> None:
    settings: list[dict[str, Any]] = [
        {"connections": 0},
        {"connections": "x"},
        {"timeout": -1},
        {"base_url": "x"},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for broken in settings:
            with pytest.raises((TypeError, ConfigurationError)):
                Session(KEY, **broken)
        gc.collect()
