"""A stand-in Omi server on this machine, for tests, trials and demonstrations without an account.

It behaves as the service does, down to its error bodies and quota windows, and misbehaves on request::

    async with LocalServer() as server:
        server.faults.add(Fault.after_prefix(3), on="batch")
        async with Session(server.api_key, base_url=server.url) as session:
            ...
        server.assert_each_stored_once(facts)
"""

from __future__ import annotations

from omi_async.local.faults import FOREVER, Chaos, Fault, Faults
from omi_async.local.keys import SCOPES
from omi_async.local.quotas import DOCUMENTED_QUOTAS, OPERATIONS, REAL_QUOTAS, Quota, Quotas
from omi_async.local.records import CallRecord
from omi_async.local.server import LocalServer, ThreadedServer
from omi_async.local.serving import serve
from omi_async.local.store import LocalDatabaseError

__all__ = [
    "DOCUMENTED_QUOTAS",
    "FOREVER",
    "OPERATIONS",
    "REAL_QUOTAS",
    "SCOPES",
    "CallRecord",
    "Chaos",
    "Fault",
    "Faults",
    "LocalDatabaseError",
    "LocalServer",
    "Quota",
    "Quotas",
    "ThreadedServer",
    "serve",
]
