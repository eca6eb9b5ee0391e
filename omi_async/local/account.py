"""One account: its memories, and what the backend does when it writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from omi_async.constants import VISIBILITIES
from omi_async.local.contention import Head
from omi_async.local.messages import Refusal
from omi_async.local.store import Memories, Row, id_of
from omi_async.local.validation import Draft, Patch

__all__ = ["Account", "choose_category"]

_DEFAULTS_OF_A_NEW_ONE: Final = {"scoring": None, "reviewed": False, "user_review": None, "edited": False}
"""A create answers with these whatever is stored, also for a memory that it found (backend)."""


@attrs.define
class Account:
    """The memories of one user.

    Attributes:
        clock: returns epoch seconds.
        text_identity: a text that is stored is answered, not stored again, as the newest backend does it.
    """

    memories: Memories
    head: Head
    clock: Callable[[], float]
    text_identity: bool = True

    async def store(self, draft: Draft, *, batch: bool = False) -> dict[str, Any]:
        """Store a memory for good, or find it; return what the answer shows. Raises `Refusal` (500)."""
        text = draft.content.strip()
        await self.head.look_up(batch=batch)
        # Before the race: to find what is there advances nothing, so repeats do not fail under contention.
        row = self._known(text)
        if row is None:
            await self.head.advance()
            # Another call may have stored the text while this one competed.
            row = self._known(text) or self._add(text, draft)
        del row["locked"]
        return row | _DEFAULTS_OF_A_NEW_ONE

    def _known(self, text: str) -> Row | None:
        """Return the memory that a create of this text finds.

        The backend looks at one id, which it makes of the text. So a text that another memory was changed to
        is not found, nor is one whose memory was deleted once or changed: each create stores one more of it.
        """
        row = self.memories.by_id(id_of(text)) if self.text_identity else None
        return row if row is not None and row["content"] == text else None

    def _add(self, text: str, draft: Draft) -> Row:
        return self.memories.add(
            text,
            now=self.clock(),
            text_identity=self.text_identity,
            # The service asks a language model; a guess by words is free, and the same each time.
            category=draft.category or choose_category(text),
            # A create takes any word; an update refuses it, which is why clients must check it themselves.
            visibility=draft.visibility if draft.visibility in VISIBILITIES else "private",
            tags=draft.tags,
        )

    async def change(self, memory_id: str, patch: Patch) -> None:
        """Change field after field, each for good: a bad visibility is noticed after the text was changed.

        Raises `Refusal` (402, 404, 422, 500).
        """
        if patch.content is not None:
            await self._change(memory_id, content=patch.content.strip())
        if patch.visibility is not None:
            if patch.visibility not in VISIBILITIES:
                raise Refusal.because(422, "visibility must be 'public' or 'private'")
            await self._change(memory_id, visibility=patch.visibility)
        if patch.tags is not None:
            await self._change(memory_id, tags=patch.tags)
        if patch.category is not None:
            await self._change(memory_id, category=patch.category)

    async def _change(self, memory_id: str, **fields: Any) -> None:
        self.unlocked(memory_id)
        await self.head.advance()
        self.memories.change(memory_id, now=self.clock(), **fields)

    async def delete(self, memory_id: str) -> None:
        """Delete a memory for good. It succeeds always: the backend repeats a delete until it does.

        So does another delete of the same memory. Raises `Refusal` (402, 404).
        """
        if self.memories.was_deleted(memory_id):
            return
        self.unlocked(memory_id)
        await self.head.advance(tries=None)
        self.memories.delete(memory_id)

    def unlocked(self, memory_id: str) -> Row:
        """Return a memory. Raises `Refusal` (402, 404)."""
        row = self.memories.by_id(memory_id)
        if row is None:
            raise Refusal.because(404, "Memory not found")
        if row["locked"]:
            raise Refusal.because(402, "A paid plan is required to access this memory.")
        return row


_WORDS: Final = {
    "work": {
        "work",
        "works",
        "working",
        "job",
        "office",
        "company",
        "colleague",
        "manager",
        "meeting",
        "career",
    },
    "skills": {"skill", "skills", "speaks", "fluent", "can", "knows"},
    "hobbies": {"hobby", "hobbies", "plays", "paints", "collects", "hikes", "hiking"},
    "habits": {"always", "usually", "daily", "morning", "habit", "habits"},
    "learnings": {"learned", "learnt", "learning", "studies"},
    "lifestyle": {"lives", "vegetarian", "vegan", "diet", "moved"},
    "interests": {"likes", "loves", "enjoys", "interested", "favorite", "favourite", "prefers"},
    "system": {"timezone", "locale", "device", "setting", "settings"},
}


def choose_category(text: str) -> str:
    """Return the first category that has a word of the text, otherwise "interesting"."""
    words = set(re.findall(r"\w+", text.lower()))
    return next((category for category, known in _WORDS.items() if words & known), "interesting")
