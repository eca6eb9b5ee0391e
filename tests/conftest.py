"""What the whole suite shares."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from hypothesis import settings

from omi_async import Session
from omi_async.local import LocalServer
from tests.clock import VirtualClockLoop
from tests.naming import stable_id

# On CI the same examples each time, so that a red run can be repeated; elsewhere new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

if importlib.util.find_spec("click") is None:
    # The wheel without extras: the command line and the benchmarks need more, and say so when they are run.
    collect_ignore = ["cli", "test_benchmarks.py", "test_benchmarks_quotas.py"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_clock"):
        return {"virtual": VirtualClockLoop}
    return {"real": asyncio.new_event_loop}


def pytest_make_parametrize_id(val: object) -> str | None:
    return stable_id(val) if " at 0x" in repr(val) else None


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMI_API_KEY", "OMI_API_BASE", "OMI_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMI_LEDGER", "")  # else the command line would write into the user's state directory


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer() as server:
        yield server


@pytest.fixture
async def session(server: LocalServer) -> AsyncIterator[Session]:
    async with Session(server.api_key, base_url=server.url) as session:
        yield session
