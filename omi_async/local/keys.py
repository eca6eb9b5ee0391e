"""The API keys that the server knows, and what each may do. No key ever stands in a repr."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterable
from typing import Any, Final

import attrs

from omi_async.local.messages import Refusal

__all__ = ["SCOPES", "Key", "Keys", "check_key", "make_key"]

SCOPES: Final = ("memories:read", "memories:write")

_SCHEME: Final = "Bearer "
_HEADER: Final = "Missing or invalid Authorization header. Must be 'Bearer API_KEY'"
_WRONG_FAMILY: Final = (
    "MCP API keys (omi_mcp_...) only authenticate the MCP endpoints under /v1/mcp/ (for example GET "
    "/v1/mcp/memories, GET /v1/mcp/conversations) and the MCP server at /v1/mcp/sse. This endpoint requires "
    "a Developer API key (Settings -> Developer -> Create Key)."
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
        account: the number of the account whose memories it opens.
        granted: the account lets the key read and write its memories; old keys of the service have no grant.
    """

    key_id: str
    secret: str = attrs.field(repr=False)
    account: int
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
            "created_at": self.created_at,
            "last_used_at": self.last_used_at,
            "scopes": list(self.scopes),
        }


class Keys:
    """The keys that are let in."""

    def __init__(self) -> None:
        self._by_secret: dict[str, Key] = {}

    def add(
        self, api_key: str, scopes: Iterable[str], *, account: int, granted: bool, created_at: str
    ) -> None:
        """Accept a key, or change what it may do. Raises ValueError for an unknown scope."""
        chosen = tuple(scopes)
        if unknown := set(chosen).difference(SCOPES):
            raise ValueError(f"no such scope: {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}")
        # A key that is let in again is the same key to its quotas.
        known = self._by_secret.get(check_key(api_key))
        key_id = known.key_id if known else str(uuid.uuid4())
        self._by_secret[api_key] = Key(key_id, api_key, account, chosen, granted, created_at)

    def account_of(self, api_key: str) -> int:
        """Return the number of a key's account. Raises KeyError, which does not name the key."""
        if api_key not in self._by_secret:
            raise KeyError("no such key")
        return self._by_secret[api_key].account

    def revoke(self, api_key: str) -> None:
        """Accept a key no longer. Raises KeyError, which does not name it, if it is not known."""
        if self._by_secret.pop(api_key, None) is None:
            raise KeyError("no such key")

    def find(self, authorization: str | None) -> Key:
        """Return the key of an Authorization header. Raises `Refusal` (401)."""
        if authorization is None or not authorization.startswith(_SCHEME):
            raise Refusal.because(401, _HEADER)
        secret = authorization.replace(_SCHEME, "")  # all of them, as the backend does
        if secret in self._by_secret:
            return self._by_secret[secret]
        if secret.startswith("omi_mcp_"):
            raise Refusal.because(401, _WRONG_FAMILY)
        raise Refusal.because(401, "Invalid API Key")
