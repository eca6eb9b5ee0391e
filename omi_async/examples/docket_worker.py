"""Imports on many machines: docket workers that share a Redis or Valkey server, and what an app tells them.

```sh
export OMI_KEYS=dana=omi_dev_...,lee=omi_dev_... REDIS_URL=redis://localhost:6379/0
python -m docket worker --url $REDIS_URL --tasks omi_async.examples.docket_worker:tasks
python -m omi_async.examples.docket_worker dana /shared/facts.jsonl
```

The first command is a worker: run it on as many machines as there are, kill any, start others. The second
is what a web app does in a request: enqueue an import, and show how far it is. Run it twice, or twice at
once: it is one import all the same. `stop` as a third argument stops it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from docket import Docket

from omi_async import Session, SessionPool
from omi_async.sources import Facts, open_facts
from omi_async.workers import RedisStore
from omi_async.workers.docket import DocketImports, ImportTools

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
KEYS = dict(pair.split("=", 1) for pair in os.environ.get("OMI_KEYS", "").split(",") if pair)  # your database


@asynccontextmanager
async def tools() -> AsyncGenerator[ImportTools]:
    """Around the life of a worker. Web processes that call with the same keys have such a pool, too."""
    async with RedisStore(REDIS) as store, SessionPool(ledger=store) as pool:

        def session_for(owner: str) -> Session:
            return pool.session(KEYS[owner])

        def facts_of(ref: str) -> Facts:
            return open_facts(ref)  # or the rows of a table, or an object in a bucket

        yield ImportTools(store, session_for, facts_of)


imports = DocketImports(tools)
tasks = [imports.task]


async def main(owner: str, ref: str, *words: str) -> None:
    async with Docket(url=REDIS) as docket, RedisStore(REDIS) as store:
        if "stop" in words:
            await store.stop(imports.name(owner, ref))
            return
        name = await imports.enqueue(docket, owner, ref)
        async for snapshot in store.watch(name):
            print(json.dumps(snapshot.to_dict()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
