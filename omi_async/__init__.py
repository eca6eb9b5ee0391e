"""The asyncio client of the Omi Developer API.

    async with Session() as session:
        report = await session.memories.import_facts(["User is vegetarian", "User lives in Oslo"])

`Session` holds the connections, `session.memories` the calls, `import_facts` accounts for every fact.

The names are loaded together when one of them is asked for (PEP 562): ``omi-async --help`` asks for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omi_async._quota_policies import QuotaPolicy
    from omi_async._wire import QuotaState
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
    from omi_async.importing.forecast import Forecast
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
    "Forecast",
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
    "QuotaPolicy",
    "QuotaState",
    "RateLimitError",
    "ResponseFormatError",
    "ResponseLostError",
    "Retry",
    "ServerError",
    "Session",
    "TransportError",
    "__version__",
]

_MODULES = (
    "_quota_policies",
    "_wire",
    "config",
    "errors",
    "models",
    "importing.forecast",
    "importing.importer",
    "importing.journal",
    "importing.outcomes",
    "resources.memories",
    "session",
)
"""Where the names live."""


def _load() -> None:
    """Load all names, and let them be known by the module that users import them from."""
    from importlib import import_module  # noqa: PLC0415  # only what asks for a name pays for it
    from inspect import get_annotations  # noqa: PLC0415

    modules = {name: import_module(f"{__name__}.{name}") for name in _MODULES}
    things = {
        name: vars(module)[name] for module in modules.values() for name in __all__ if name in vars(module)
    }
    # Errors carry these two, and cannot import them; their annotations are to be resolvable all the same.
    vars(modules["errors"]).update(ImportReport=things["ImportReport"], Memory=things["Memory"])
    for thing in things.values():
        # Tracebacks and reprs show the name that users import, not the module it happens to live in. Where
        # annotations are resolved by that name (typing.get_type_hints, cattrs), they need it done before.
        thing.__annotations__ = get_annotations(thing, eval_str=True)
        thing.__module__ = __name__
    globals().update(things)


if not TYPE_CHECKING:  # to a type checker it would promise whatever name

    def __getattr__(name: str) -> object:
        if name in __all__:
            _load()
            return globals()[name]
        if name in _MODULES:
            from importlib import import_module  # noqa: PLC0415

            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
