"""Forks a process for each line of its input, which imports one part as a worker of any engine would.

A process of its own takes a second to start; a fork takes milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from typing import Any

from omi_async import Session
from omi_async.workers import RedisStore, import_part


async def work(job: dict[str, Any]) -> None:
    async with (
        RedisStore(job["store"], lease=job["lease"]) as store,
        Session(
            job["key"], base_url=job["server"], timeout=job["timeout"], batch_timeout=job["timeout"]
        ) as session,
    ):
        await import_part(session, job["facts"], store=store, part=job["part"], concurrency=1)


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio.run(work(json.loads(line)))
                code = 0
            except BaseException:  # noqa: BLE001  # a fork must not go on with its parent's work
                traceback.print_exc()
            finally:
                os._exit(code)  # it is the parent that reads the next line
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
