"""A real Valkey for the tests of workers: one for each test process, and a prefix for each test."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # neither is there in a run without the extra, whose tests are skipped
    from omi_async.workers import RedisStore
    from tests.workers.helpers import Valkey


def _started(**config: Any) -> Iterator[Valkey]:
    helpers = pytest.importorskip("tests.workers.helpers")
    # Not below pytest's own folder: the path of a socket has at most 108 bytes.
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        valkey: Valkey = helpers.Valkey(Path(folder), **config)
        with valkey:
            yield valkey


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    yield from _started()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """One that a test may kill and start again: it keeps an append-only file."""
    yield from _started(appendonly="yes")


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
async def store(shared_valkey: Valkey, prefix: str) -> AsyncIterator[RedisStore]:
    workers = pytest.importorskip("omi_async.workers")
    async with workers.RedisStore(shared_valkey.url, prefix) as store:
        yield store
