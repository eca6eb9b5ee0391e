"""The API keys that the server knows, and what each may do. No key ever stands in a repr."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any, Final

import attrs

from omi_async.local.messages import Refusal

__all__ = ["SCOPES", "Key", "Keys", "check_key", "make_key"]

SCOPES: Final = ("memories:read", "memories:write")

_HEADER: Final = "Missing or invalid Authorization header. Must be 'Bearer API_KEY'"
_WRONG_FAMILY: Final = (
    "This is an MCP API key (omi_mcp_...), which is valid for the MCP server only. "
    "Use a Developer API key (omi_dev_...) for this endpoint."
)


def make_key() -> str:
    """Make a key of the service's form."""
    return f"omi_dev_{secrets.token_hex(16)}"


def check_key(api_key: str) -> str:
    """Return the key. Raises ValueError, which does not name it, if it is no Developer API key."""
    if api_key.startswith("omi_mcp_"):
        raise ValueError("this is an MCP key (omi_mcp_...); the Developer API takes omi_dev_... keys")
    if not re.fullmatch(r"[!-~]+", api_key):
        raise ValueError("an API key is made of printable ASCII characters without spaces")
    return api_key


@attrs.define
class Key:
    """A key, known by its id.

    Attributes:
        granted: the account lets the key read and write its memories; old keys of the service have no grant.
    """

    key_id: str
    secret: str = attrs.field(repr=False)
    scopes: tuple[str, ...]
    granted: bool
    created_at: str
    last_used_at: str | None = None

    def require(self, scope: str) -> None:
        """Raise the 403 of a key without the scope."""
        if scope not in self.scopes:
            raise Refusal.because(403, f"Insufficient permissions. Required scope: {scope}")

    def require_grant(self, scope: str) -> None:
        """Raise the 403 of a key that has no grant of the account."""
        if not self.granted:
            raise Refusal.because(403, self._no_grant(scope))

    def _no_grant(self, scope: str) -> dict[str, Any]:
        known = {
            "reason": "missing_app_key_scope_grant",
            "consumer": "developer_api",
            "app_id": "local",
            "key_id": self.key_id,
        }
        if scope == "memories:read":
            return {"enabled": False, **known, "archive_enabled": False}
        return {**known, "surface": "memories", "operation": "write", "required_scope": scope}

    def describe(self) -> dict[str, Any]:
        """Return what the service tells a key about itself."""
        return {
            "id": self.key_id,
            "name": "omi_async.local",
            "key_prefix": f"{self.secret[:12]}...{self.secret[-4:]}",
            "scopes": list(self.scopes),
            "created_at": self.created_at,
            "last_used_at": self.last_used_at,
        }


class Keys:
    """The keys by the header that carries them."""

    def __init__(self) -> None:
        self._by_header: dict[str, Key] = {}

    def add(self, api_key: str, scopes: Iterable[str], *, granted: bool, created_at: str) -> None:
        """Accept a key, or change what it may do. Raises ValueError for an unknown scope."""
        chosen = tuple(scopes)
        if unknown := set(chosen).difference(SCOPES):
            raise ValueError(f"no such scope: {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}")
        header = f"Bearer {check_key(api_key)}"
        known = self._by_header.get(header)
        key_id = known.key_id if known else f"key_{len(self._by_header) + 1}"
        self._by_header[header] = Key(key_id, api_key, chosen, granted, created_at)

    def revoke(self, api_key: str) -> None:
        """Accept a key no longer. Raises KeyError, which does not name it, if it is not known."""
        if self._by_header.pop(f"Bearer {api_key}", None) is None:
            raise KeyError("no such key")

    def find(self, authorization: str | None) -> Key:
        """Return the key of an Authorization header. Raises `Refusal` (401)."""
        key = self._by_header.get(authorization or "")
        if key is not None:
            return key
        if authorization is None or not authorization.startswith("Bearer "):
            raise Refusal.because(401, _HEADER)
        if authorization.startswith("Bearer omi_mcp_"):
            raise Refusal.because(401, _WRONG_FAMILY)
        raise Refusal.because(401, "Invalid API Key")
