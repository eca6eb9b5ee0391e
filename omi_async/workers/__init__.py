"""Imports on many machines (extra ``workers``)."""

from __future__ import annotations

try:
    import redis as _redis  # noqa: F401  # asked for here, so that its absence is told in words
except ImportError:
    raise ImportError("omi_async.workers needs redis: pip install 'omi-async[workers]'") from None

from omi_async.workers.errors import LeaseLost, QuotaShut, StoreError
from omi_async.workers.part import import_part
from omi_async.workers.progress import ImportSnapshot, PartSnapshot, PartState
from omi_async.workers.split import part_of
from omi_async.workers.store import RedisStore

__all__ = [
    "ImportSnapshot",
    "LeaseLost",
    "PartSnapshot",
    "PartState",
    "QuotaShut",
    "RedisStore",
    "StoreError",
    "import_part",
    "part_of",
]
