"""A worker that stores facts from a Redis stream: run several, kill any of them, no fact is lost or doubled.

```sh
export OMI_API_KEY=omi_dev_... QUEUE_PORT=6379
redis-cli XADD facts '*' content 'User is vegetarian' category lifestyle
python -m omi_async.examples.stream_worker one.journal
```
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import valkey.asyncio as redis  # redis-py has the same calls

from omi_async import FactInbox, FactOutcome, Session

STREAM, GROUP = "facts", "omi"
ABANDONED = float(os.environ.get("ABANDONED", "60"))  # seconds after which a silent worker counts as dead
MOST = 100  # messages read at once; the inbox has room for ten times as many


class Worker:
    def __init__(self, queue: redis.Valkey, name: str, inbox: FactInbox) -> None:
        self.queue, self.name, self.inbox = queue, name, inbox
        self.held: set[str] = set()
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        self.inbox.stop()

    async def stay_alive(self) -> None:
        while True:  # what is held may wait for a quota window for an hour; it is not abandoned
            await asyncio.sleep(ABANDONED / 3)
            if self.held:
                await self.queue.xclaim(STREAM, GROUP, self.name, 0, list(self.held), justid=True)

    async def work(self, tasks: asyncio.TaskGroup) -> None:
        while not self.stopped:
            idle = int(ABANDONED * 1000)
            _, left, _ = await self.queue.xautoclaim(STREAM, GROUP, self.name, idle, count=MOST)
            fresh = await self.queue.xreadgroup(GROUP, self.name, {STREAM: ">"}, count=MOST, block=500)
            messages = [(*message, True) for message in left]  # a worker that is dead may have stored them
            messages += [(*message, False) for _, batch in fresh for message in batch]
            self.held |= {number for number, _, _ in messages}
            for number, fields, again in messages:
                if not self.stopped:  # `submit` waits while there is no room
                    settled = await self.inbox.submit(fields, redelivered=again)
                    tasks.create_task(self.acknowledge(number, settled))

    async def acknowledge(self, number: str, settled: asyncio.Future[FactOutcome]) -> None:
        outcome = await settled
        self.held.discard(number)
        if outcome.state not in {"unknown", "not_sent"}:  # those come again
            await self.queue.xack(STREAM, GROUP, number)


async def main(journal: str) -> None:
    queue = redis.Valkey(port=int(os.environ.get("QUEUE_PORT", "6379")), decode_responses=True)
    with contextlib.suppress(redis.ResponseError):  # the group is there already
        await queue.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    async with Session() as session, session.memories.inbox(journal=journal) as inbox:
        worker = Worker(queue, journal, inbox)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        alive = asyncio.create_task(worker.stay_alive())
        async with asyncio.TaskGroup() as tasks:
            await worker.work(tasks)
        alive.cancel()
    await queue.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
