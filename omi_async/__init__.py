"""The asyncio client of the Omi Developer API.

    async with Session() as session:
        report = await session.memories.import_facts(["User is vegetarian", "User lives in Oslo"])

`Session` holds the connections, `session.memories` the calls, `import_facts` accounts for every fact.
"""

from __future__ import annotations

import inspect

from omi_async import errors as _errors
from omi_async.config import Retry
from omi_async.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    ImportFailedError,
    ImportStoppedError,
    InvalidFactError,
    InvalidRequestError,
    JournalError,
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
from omi_async.importing.importer import Importer
from omi_async.importing.journal import Journal
from omi_async.importing.outcomes import FactOutcome, ImportReport
from omi_async.models import Fact, Memory
from omi_async.resources.memories import Memories
from omi_async.session import Session

__version__ = "0.1.0"

__all__ = [
    "APIError",
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "Fact",
    "FactOutcome",
    "ImportFailedError",
    "ImportReport",
    "ImportStoppedError",
    "Importer",
    "InvalidFactError",
    "InvalidRequestError",
    "Journal",
    "JournalError",
    "Memories",
    "Memory",
    "NotFoundError",
    "OmiError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "ResponseFormatError",
    "ResponseLostError",
    "Retry",
    "ServerError",
    "Session",
    "TransportError",
    "__version__",
]

# Errors carry these two, and cannot import them; their annotations are to be resolvable all the same.
vars(_errors).update(ImportReport=ImportReport, Memory=Memory)

for _name in __all__:
    _thing = globals()[_name]
    if isinstance(_thing, type):
        # Tracebacks and reprs show the name that users import, not the module it happens to live in. Where
        # annotations are resolved by that name (typing.get_type_hints, cattrs), they need it done before.
        _thing.__annotations__ = inspect.get_annotations(_thing, eval_str=True)
        _thing.__module__ = __name__
del _name, _thing
