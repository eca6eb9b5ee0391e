"""What the workers of the measurement run: `docket worker --tasks benchmarks.fleet:tasks`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.contestants import KEY
from benchmarks.facts import BATCH, make_facts
from omi_async import SessionPool
from omi_async.workers import RedisStore
from omi_async.workers.docket import DocketImports, ImportTools

__all__ = ["imports", "ref_of", "tasks"]


def ref_of(first_batch: int, facts: int) -> str:
    """Return the name of facts: those of so many batches."""
    return f"{first_batch}+{facts // BATCH}"


def _facts_of(ref: str) -> Iterator[dict[str, Any]]:
    first, batches = map(int, ref.split("+"))
    return make_facts(batches * BATCH, first_batch=first)


@asynccontextmanager
async def _tools() -> AsyncGenerator[ImportTools]:
    async with (
        RedisStore(os.environ["FLEET_STORE"]) as store,
        SessionPool(base_url=os.environ["FLEET_SERVER"], ledger=store) as pool,
    ):
        # Each import has an owner with a key of its own, as in a service with thousands of accounts.
        yield ImportTools(store, lambda owner: pool.session(f"{KEY[:-8]}{int(owner):08x}"), _facts_of)


imports = DocketImports(_tools)
tasks = [imports.task]
