"""The asyncio client of the Omi Developer API.

```python
async with Session() as session:
    report = await session.memories.import_facts(["User is vegetarian", "User lives in Oslo"])
```

`Session` holds the connections, `session.memories` the calls, `import_facts` accounts for every fact.

A name is loaded when it is asked for (PEP 562): ``omi-async --help`` asks for none.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing's own would have to be imported, which takes longer than all the rest here
if TYPE_CHECKING:
    from omi_async._api.retry import Retry
    from omi_async._quota.policy import QuotaPolicy, QuotaState
    from omi_async._version import __version__
    from omi_async.errors import (
        APIError,
        AuthenticationError,
        ConfigurationError,
        ConflictError,
        ConnectError,
        InvalidFactError,
        InvalidRequestError,
        JournalError,
        JournalInUseError,
        ListLimitError,
        NotFoundError,
        OmiError,
        PaymentRequiredError,
        PermissionDeniedError,
        RateLimitError,
        ResponseFormatError,
        ResponseLostError,
        ServerError,
        TransportError,
    )
    from omi_async.fact import Fact
    from omi_async.importing.forecast import Forecast
    from omi_async.importing.importer import Importer
    from omi_async.importing.intake import FactLike
    from omi_async.importing.journal.journal import Journal
    from omi_async.importing.options import Lanes, OnUnknown
    from omi_async.importing.report import (
        FactOutcome,
        ImportFailedError,
        ImportReport,
        ImportStoppedError,
        State,
    )
    from omi_async.importing.tracker import OnOutcome, OnProgress
    from omi_async.inbox import FactInbox
    from omi_async.jobs import ImportJob, ImportJobs, InputTooLargeError, JobSnapshot, JobState
    from omi_async.key import KeyInfo
    from omi_async.memory import FoundMemory, Memory
    from omi_async.resources.memories import Memories
    from omi_async.session import Session
    from omi_async.session_pool import SessionPool

__all__ = [
    "APIError",
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "Fact",
    "FactInbox",
    "FactLike",
    "FactOutcome",
    "Forecast",
    "FoundMemory",
    "ImportFailedError",
    "ImportJob",
    "ImportJobs",
    "ImportReport",
    "ImportStoppedError",
    "Importer",
    "InputTooLargeError",
    "InvalidFactError",
    "InvalidRequestError",
    "JobSnapshot",
    "JobState",
    "Journal",
    "JournalError",
    "JournalInUseError",
    "KeyInfo",
    "Lanes",
    "ListLimitError",
    "Memories",
    "Memory",
    "NotFoundError",
    "OmiError",
    "OnOutcome",
    "OnProgress",
    "OnUnknown",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "QuotaPolicy",
    "QuotaState",
    "RateLimitError",
    "ResponseFormatError",
    "ResponseLostError",
    "Retry",
    "ServerError",
    "Session",
    "SessionPool",
    "State",
    "TransportError",
    "__version__",
]

_HOMES = {
    "_api.retry": ("Retry",),
    "_quota.policy": (
        "QuotaPolicy",
        "QuotaState",
    ),
    "_version": ("__version__",),
    "errors": (
        "APIError",
        "AuthenticationError",
        "ConfigurationError",
        "ConflictError",
        "ConnectError",
        "InvalidFactError",
        "InvalidRequestError",
        "JournalError",
        "JournalInUseError",
        "ListLimitError",
        "NotFoundError",
        "OmiError",
        "PaymentRequiredError",
        "PermissionDeniedError",
        "RateLimitError",
        "ResponseFormatError",
        "ResponseLostError",
        "ServerError",
        "TransportError",
    ),
    "fact": ("Fact",),
    "importing.forecast": ("Forecast",),
    "importing.importer": ("Importer",),
    "importing.intake": ("FactLike",),
    "importing.journal.journal": ("Journal",),
    "importing.options": ("Lanes", "OnUnknown"),
    "importing.report": (
        "FactOutcome",
        "ImportFailedError",
        "ImportReport",
        "ImportStoppedError",
        "State",
    ),
    "importing.tracker": (
        "OnOutcome",
        "OnProgress",
    ),
    "inbox": ("FactInbox",),
    "jobs": (
        "ImportJob",
        "ImportJobs",
        "InputTooLargeError",
        "JobSnapshot",
        "JobState",
    ),
    "key": ("KeyInfo",),
    "memory": ("FoundMemory", "Memory"),
    "resources.memories": ("Memories",),
    "session": ("Session",),
    "session_pool": ("SessionPool",),
}
"""The modules that the names live in."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # to a type checker it would promise any name

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
