"""What the service does with a call: the order of its checks, its handlers, its words."""

from __future__ import annotations

import heapq
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from omi_async.local import validation
from omi_async.local.account import Account
from omi_async.local.keys import Key, Keys
from omi_async.local.listing import TRUNCATED, ListLimits
from omi_async.local.messages import BROKEN_DOWN, Call, Refusal, Reply
from omi_async.local.quotas import Quotas
from omi_async.local.store import timestamp
from omi_async.local.twist import PLAIN, Twist
from omi_async.local.validation import Draft, Patch, Problems

__all__ = ["Service", "search"]

_LOGGER: Final = logging.getLogger("omi_async.local")

_SCOPES: Final = {
    "list": "memories:read",
    "search": "memories:read",
    "create": "memories:write",
    "batch": "memories:write",
    "update": "memories:write",
    "delete": "memories:write",
}

_LOCKED_LENGTH: Final = 70
_MOST_FOUND: Final = 20


@attrs.define
class Service:
    """The memories API over the accounts, with their keys and quotas.

    Attributes:
        accounts: by their number, which stands in each key.
        clock: returns epoch seconds.
        search_lag: seconds until a new memory is found by a search.
    """

    accounts: Sequence[Account]
    keys: Keys
    quotas: Quotas
    clock: Callable[[], float]
    limits: ListLimits
    search_lag: float = 0.0

    async def answer(self, call: Call, twist: Twist = PLAIN) -> Reply:
        """Carry out a call. Never raises for what a client can do."""
        try:
            return await self._admit(call, twist)
        except Refusal as refusal:
            return refusal.reply
        except sqlite3.Error:
            # A full disk under the stand-in is a server in trouble to its clients, and no traceback in
            # theirs.
            _LOGGER.exception("the database failed", extra={"omi_kind": call.kind})
            return BROKEN_DOWN

    async def _admit(self, call: Call, twist: Twist) -> Reply:
        """Check in the service's order: broken JSON, key, scope, quota; then the handler's own checks."""
        if call.refusal is not None:
            raise call.refusal
        key = self.keys.find(call.authorization)
        # FastAPI runs its dependencies before it validates the fields of a body. So a body with bad fields
        # spends quota, and a key without the scope learns nothing about its body.
        scope = _SCOPES.get(call.kind)
        if scope is not None:
            key.require(scope)
        announced = self.quotas.spend(call.kind, key.key_id, key.account)
        reply = await self._handle(call, key, twist)
        key.last_used_at = timestamp(self.clock())
        return attrs.evolve(reply, headers=(*reply.headers, *announced)) if announced else reply

    async def _handle(self, call: Call, key: Key, twist: Twist) -> Reply:
        try:
            # Here, not in the fault: what is refused while writes are paused was counted before.
            if twist.refusal is not None:
                return twist.refusal
            return await _HANDLERS[call.kind](self, call, key, twist)
        except Refusal as refusal:
            return refusal.reply

    async def _list(self, call: Call, key: Key, twist: Twist) -> Reply:
        problems = Problems()
        limit = validation.read_integer(call.query, "limit", 25, problems)
        offset = validation.read_integer(call.query, "offset", 0, problems)
        problems.check()
        categories = validation.read_categories(call.query)
        key.require_grant("memories:read")
        until = self.clock() - twist.hide_newer if twist.hide_newer else None
        memories = self.accounts[key.account].memories
        rows, truncated = self.limits.page(memories, limit, offset, categories, until)
        return Reply.json([_shown(row) for row in rows], headers=TRUNCATED if truncated else ())

    async def _search(self, call: Call, key: Key, _twist: Twist) -> Reply:
        words, limit = validation.read_search(call.query)
        key.require_grant("memories:read")
        processed = timestamp(self.clock() - self.search_lag)
        rows = (row for row in self.accounts[key.account].memories if row["created_at"] <= processed)
        return Reply.json(search(words, map(_shown, rows), min(limit, _MOST_FOUND)))

    async def _create(self, call: Call, key: Key, twist: Twist) -> Reply:
        draft = validation.read_draft(call.payload)
        if not draft.content.strip():
            raise Refusal.because(422, "content cannot be empty")
        key.require_grant("memories:write")
        account = self.accounts[key.account]
        await _inspect(account, "create", [draft], twist)
        return Reply.json(await account.store(draft))

    async def _batch(self, call: Call, key: Key, twist: Twist) -> Reply:
        """Check all, then write one after the other, each for good: a breakdown leaves a prefix stored."""
        drafts = validation.read_drafts(call.payload)
        key.require_grant("memories:write")
        if not all(draft.content.strip() for draft in drafts):
            raise Refusal.because(422, "All memories must have non-empty content")
        account = self.accounts[key.account]
        await _inspect(account, "batch", drafts, twist)
        # No transaction around them: what is stored when the work breaks off stays stored.
        memories = [await account.store(draft, batch=True) for draft in drafts[: twist.at_most]]
        if twist.at_most is not None:
            raise Refusal(twist.breakdown)
        return Reply.json({"memories": memories, "created_count": len(memories)})

    async def _update(self, call: Call, key: Key, twist: Twist) -> Reply:
        patch = validation.read_patch(call.payload)
        key.require_grant("memories:write")
        if patch == Patch(None, None, None, None):
            message = "At least one field (content, visibility, tags, or category) must be provided"
            raise Refusal.because(422, message)
        if patch.content is not None and not patch.content.strip():
            raise Refusal.because(422, "content must not be empty")
        account = self.accounts[key.account]
        if patch.content is not None:
            # An unknown id is noticed where a field is changed: a bad visibility alone is told before it.
            account.unlocked(call.memory_id)
            await _inspect(account, "update", [Draft(patch.content, None, "private", [])], twist)
        await account.change(call.memory_id, patch)
        return Reply.json(_shown(account.unlocked(call.memory_id)))

    async def _delete(self, call: Call, key: Key, _twist: Twist) -> Reply:
        key.require_grant("memories:write")
        await self.accounts[key.account].delete(call.memory_id)
        return Reply.json({"success": True})

    async def _key(self, _call: Call, key: Key, _twist: Twist) -> Reply:
        return Reply.json(key.describe())


async def _inspect(account: Account, kind: str, drafts: list[Draft], twist: Twist) -> None:
    contents = [draft.content for draft in drafts]
    for poison in twist.poisons:
        index = poison.first(contents)
        if index is None:
            continue
        for draft in drafts[: index if poison.stored_prefix else 0]:
            await account.store(draft, batch=kind == "batch")
        raise Refusal(poison.refusal(kind, index, contents[index]))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Make the public form of a stored memory; a locked one shows only the beginning of its text."""
    if row.pop("locked"):
        row["content"] = row["content"][:_LOCKED_LENGTH] + "..."
    return row


_Handler = Callable[[Service, Call, Key, Twist], Awaitable[Reply]]

_HANDLERS: Final[dict[str, _Handler]] = {
    "list": Service._list,  # noqa: SLF001 - this module's own
    "search": Service._search,  # noqa: SLF001
    "create": Service._create,  # noqa: SLF001
    "batch": Service._batch,  # noqa: SLF001
    "update": Service._update,  # noqa: SLF001
    "delete": Service._delete,  # noqa: SLF001
    "key": Service._key,  # noqa: SLF001
}


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def search(query: str, memories: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return the answer of `vector/search`: best first, scored 0 to 1 by the share of common words."""
    wanted = _words(query)
    scored = ((_overlap(wanted, _words(memory["content"])), memory) for memory in memories)
    hits = (hit for hit in scored if hit[0] > 0)
    best = heapq.nlargest(limit, hits, key=lambda hit: hit[0])
    items = [
        {
            "id": memory["id"],
            "content": memory["content"],
            "category": "interesting",  # whatever it is: the index does not know it
            "relevance_score": score,
        }
        for score, memory in best
    ]
    policy = {
        "consumer": "developer_api",
        "app_has_default_memory_grant": True,
        "archive_capability": False,
        "raw_provenance_capability": False,
    }
    return {"items": items, "returned_count": len(items), "archive_default_visible": False, "policy": policy}


def _overlap(wanted: frozenset[str], words: frozenset[str]) -> float:
    """Return the Jaccard similarity: common words over all words."""
    common = len(wanted & words)
    return common / len(wanted | words) if common else 0.0
