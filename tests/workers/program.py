"""What the workers run that the tests start and kill: `docket worker --tasks tests.workers.program:tasks`."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from omi_async import SessionPool
from omi_async.workers import RedisStore
from omi_async.workers.docket import DocketImports, ImportTools


def facts_of(ref: str) -> Iterator[dict[str, str]]:
    """`dana:2000` stands for 2,000 facts of Dana."""
    owner, _, count = ref.partition(":")
    return ({"content": text, "category": "work"} for text in texts(owner, int(count)))


def texts(owner: str, count: int) -> list[str]:
    return [f"{owner} has read book {number}" for number in range(count)]


@asynccontextmanager
async def tools() -> AsyncGenerator[ImportTools]:
    settings: dict[str, Any] = json.loads(os.environ["FLEET"])
    async with (
        RedisStore(settings["store"], lease=settings["lease"]) as store,
        SessionPool(timeout=settings["timeout"], batch_timeout=settings["timeout"], ledger=store) as pool,
    ):
        yield ImportTools(store, lambda owner: pool.session(settings["keys"][owner]), facts_of)


imports = DocketImports(tools)
tasks = [imports.task]
