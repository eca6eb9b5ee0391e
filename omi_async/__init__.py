"""The asyncio client of the Omi Developer API.

    async with Session() as session:
        report = await session.memories.import_facts(["User is vegetarian", "User lives in Oslo"])

`Session` holds the connections, `session.memories` the calls, `import_facts` accounts for every fact.
"""

from __future__ import annotations

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

for _name in __all__:
    # Tracebacks and reprs show the name that users import, not the module it happens to live in.
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
