"""A key's quotas in the store: what its ledger knows, as one text that is written over the last one.

What is counted, and when a call may go, is all in `omi_async._quota`; the store keeps the text, compares its
version in the step in which it replaces it, and tells the time. A key stands in it by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from omi_async._quota.sharing import Held
from omi_async._quota.store import FORGOTTEN_AFTER
from omi_async.workers.scripts import NOW, Script

__all__ = ["QuotaRecord"]

REPLACE: Final = Script(
    NOW
    + """
-- KEYS: the record: its version and its text
-- ARGV: the version that is to be replaced ('' for none), a new one ('' to read only), a new text, and how
--   long it is kept
local version = redis.call('HGET', KEYS[1], 'version') or ''
if ARGV[2] ~= '' and version == ARGV[1] then
  redis.call('HSET', KEYS[1], 'version', ARGV[2], 'text', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {ARGV[2], '', text(now)}
end
return {version, redis.call('HGET', KEYS[1], 'text') or '', text(now)}
"""
)
"""Replaces a text, if it is the one that its writer has read. Else another process has counted a call since,
and to write would be to forget that one; so its text is answered, and saves the writer a second question."""

Run = Callable[[Script, Sequence[str], Sequence[str | bytes | int]], Awaitable[list[Any]]]


class QuotaRecord:
    """One key's quotas.

    Args:
        run: has the store run a script.
        name: of the record.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self._name = name

    async def read(self) -> Held:
        """Return what is held. Raises `StoreError` if the store refuses or stays away."""
        return await self._replace("", "", b"")

    async def write(self, text: bytes, version: str, *, over: str) -> Held:
        """Replace what is held if that has the version `over`; return what is held then. Raises the same."""
        return await self._replace(over, version, text)

    async def _replace(self, over: str, version: str, text: bytes) -> Held:
        arguments: list[str | bytes | int] = [over, version, text, round(FORGOTTEN_AFTER * 1000)]
        held, kept, now = await self._run(REPLACE, [self._name], arguments)
        return Held(held.decode(), kept, int(now) / 1000)
