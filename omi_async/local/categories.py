"""Chooses a category for a memory that came without one: a few words in the place of a language model."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["choose_category"]

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
    """Give the first category that has a word of the text, otherwise "interesting"."""
    words = set(re.findall(r"\w+", text.lower()))
    return next((category for category, known in _WORDS.items() if words & known), "interesting")
