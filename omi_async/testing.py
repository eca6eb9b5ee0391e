"""A pytest plugin: the stand-in server and a virtual clock as fixtures.

It is there once `omi_async` is installed; `pytest -p no:omi_async.testing` leaves it out. What a fixture
needs is imported when it is asked for, so the plugin costs the start of other test runs nothing.

```python
async def test_my_import(omi_server):
    async with Session(omi_server.api_key, base_url=omi_server.url) as session:
        await my_import(session)
    omi_server.assert_each_stored_once(["User is vegetarian"])
```

The server runs in a thread of its own, so that its fixture serves plain and async tests alike, under any
async plugin. A test of quotas or outages that last for hours takes the virtual clock, and a server in its own
loop:

```python
def test_a_day_of_quotas(omi_virtual_clock):
    async def day():
        async with LocalServer(quotas=REAL_QUOTAS) as server:
            async with Session(server.api_key, base_url=server.url) as session:
                return await session.memories.import_facts(facts)

    report = omi_virtual_clock(day())
    assert report.ok
```
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from omi_async.local import ThreadedServer

__all__ = ["omi_environment", "omi_server", "omi_virtual_clock"]

T = TypeVar("T")


@pytest.fixture
def omi_server() -> Iterator[ThreadedServer]:
    """Yield a running, empty stand-in server: `url`, `api_key`, `memories()`, `faults`, `add_account`, ..."""
    from omi_async.local import LocalServer  # noqa: PLC0415  # aiohttp takes its time

    with LocalServer.in_thread() as server:
        yield server


@pytest.fixture
def omi_environment(omi_server: ThreadedServer, monkeypatch: pytest.MonkeyPatch) -> ThreadedServer:
    """Point OMI_API_BASE and OMI_API_KEY at the stand-in, for code that makes its `Session()` itself."""
    monkeypatch.setenv("OMI_API_BASE", omi_server.url)
    monkeypatch.setenv("OMI_API_KEY", omi_server.api_key)
    return omi_server


@pytest.fixture
def omi_virtual_clock() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Return a function that runs a coroutine on a loop whose clock jumps over every wait, `time.time` too.

    Under pytest-asyncio, `omi_async.local.clock.VirtualClockLoop` can be the loop of the tests themselves.
    """
    from omi_async.local.clock import run  # noqa: PLC0415  # only if it is asked for

    return run
