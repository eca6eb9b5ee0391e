"""How deep brackets are nested."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DEEPEST", "TOO_DEEP", "is_too_deep"]

DEEPEST: Final = 500
"""Levels of brackets in a record, at most: those of a record are three or four. They are counted, for parsers
differ in what they read, from some 1,000 levels on, and what has read such a value may not write it again."""

TOO_DEEP: Final = f"is nested too deeply: in more than {DEEPEST} brackets"

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?+', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")


def is_too_deep(text: str | bytes) -> bool:
    """Whether brackets of a text, open or closed, are nested deeper than those of any record."""
    # Nearly all have fewer brackets than that in all, which is counted in no time.
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{") > DEEPEST and _depth(text.decode("latin-1")) > DEEPEST
    return text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
