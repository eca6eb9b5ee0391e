"""What the log records of the library carry for programs: fields with one prefix."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from omi_async import Session
from omi_async.local import Fault, LocalServer, Quota
from tests.importing.helpers import facts, serving

pytestmark = pytest.mark.virtual_clock

USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def fields_of(caplog: pytest.LogCaptureFixture, name: str = "omi_async") -> list[dict[str, Any]]:
    """The fields that each record carries beside the usual ones."""
    return [
        {field: value for field, value in vars(record).items() if field not in USUAL}
        for record in caplog.records
        if record.name == name
    ]


async def test_every_record_of_the_library_has_fields_with_its_prefix(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ledger = tmp_path / "quotas.db"
    ledger.write_text("no database")
    log = logging.getLogger("omi_async.access")
    options: dict[str, Any] = {"session": {"ledger": ledger}, "access_log": log}
    with caplog.at_level(logging.DEBUG, "omi_async"):
        async with serving(quotas=[Quota("batches", 2, 60, "batch")], **options) as (server, session):
            server.faults.add(Fault.answer(500, "no"), Fault.reset(), on="list")
            await session.memories.list()
            server.faults.add(Fault.answer(423, "locked"), on="batch")
            await session.memories.import_facts(facts(75), concurrency=1)

    told = fields_of(caplog)
    assert all(fields for fields in told)
    assert {field for fields in told for field in fields} == {
        *("omi_why", "omi_kind", "omi_wait"),  # of the waits
        *("omi_status", "omi_took", "omi_bytes", "omi_error"),  # of the attempts
        "omi_ledger",
    }
    assert [fields["omi_why"] for fields in told if "omi_why" in fields] == [
        *("trouble", "trouble"),  # the list
        *("trouble", "quota"),  # the import
    ]
    assert all(field.startswith("omi_") for fields in fields_of(caplog, log.name) for field in fields)
    assert fields_of(caplog, log.name)


async def test_an_attempt_tells_its_kind_and_status(
    caplog: pytest.LogCaptureFixture, server: LocalServer, session: Session
) -> None:
    with caplog.at_level(logging.DEBUG, "omi_async"):
        await session.memories.create("User skis")

    (fields,) = fields_of(caplog)
    assert (fields["omi_kind"], fields["omi_status"]) == ("create", 200)
    assert fields["omi_took"] >= 0
    assert "User" not in str(fields)
