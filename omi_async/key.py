"""What the server says of an API key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from omi_async.memory import zulu

__all__ = ["KeyInfo"]


@attrs.frozen(kw_only=True)
class KeyInfo:
    """What the server says of the key that asks: which one it is, and what it may do.

    Attributes:
        id: an opaque string.
        name: what its owner called it.
        key_prefix: the beginning and the end of the key, as the service shows it; in no repr.
        scopes: what it may do, such as ``memories:read`` and ``memories:write``.
        created_at: with its time zone, or None.
        last_used_at: with its time zone, or None.
    """

    id: str
    name: str = ""
    key_prefix: str = attrs.field(default="", repr=False)
    scopes: tuple[str, ...] = ()
    created_at: datetime | None = None
    last_used_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it."""
        fields = attrs.asdict(self, recurse=False)
        return fields | {
            "scopes": [*self.scopes],
            "created_at": zulu(self.created_at),
            "last_used_at": zulu(self.last_used_at),
        }
