"""A stand-in Omi server on this machine, for tests, trials and demonstrations without an account.

It behaves as the service does, down to its error bodies and quota windows, and misbehaves on request:

```python
async with LocalServer() as server:
    server.faults.add(Fault.after_prefix(1), on="batch")
    async with Session(server.api_key, base_url=server.url) as session:
        await session.memories.import_facts(facts)
    server.assert_each_stored_once(facts)
```

A call on its way through the modules: `http` reads it off the socket and knows the routes, `plan` says which
fault it meets (`faults`, `twist`), `service` checks it in the order of the backend (`keys`, `quotas`,
`validation`) and does the work on the `store`; `records` remembers what became of it. `server` holds them
together and is what users see, `serving` runs it as a process. `messages` are
the values that all of them speak.

Why it is like the service to the letter: the client reads outcomes off odd places, such as the `loc` of a
422, the order of two refusals, or a batch of which a prefix is stored though the answer is a 500. A stand-in
that is kinder than the service would pass tests that the service fails. So its words and its order of
checks come from the published OpenAPI document and the public source of the backend, measured on FastAPI
with pydantic 2.

Time is an argument: `clock` and `sleep` of a `LocalServer` serve its windows, timestamps and delays, so
that a test on a virtual clock sees hours pass. A key is in no repr and no log, and no text of a memory is
logged.
"""

from __future__ import annotations

from omi_async.local.faults import FOREVER, Fault
from omi_async.local.keys import SCOPES
from omi_async.local.plan import Chaos, Faults
from omi_async.local.quotas import DOCUMENTED_QUOTAS, KINDS, REAL_QUOTAS, Quota, Quotas
from omi_async.local.records import CallRecord
from omi_async.local.server import LocalServer, ThreadedServer
from omi_async.local.serving import serve
from omi_async.local.store import LocalDatabaseError

__all__ = [
    "DOCUMENTED_QUOTAS",
    "FOREVER",
    "KINDS",
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
