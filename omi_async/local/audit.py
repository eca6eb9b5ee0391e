"""Compares what is stored with what should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from omi_async.models import Fact

__all__ = ["assert_each_stored_once"]

_NAMED: Final = 10
"""Texts that a message names of each kind, at most."""


def assert_each_stored_once(stored: Iterable[Mapping[str, Any]], facts: Iterable[object]) -> None:
    """Raise AssertionError unless every fact is stored exactly once; it names the missing and the doubled."""
    counts = Counter(memory["content"] for memory in stored)
    texts = dict.fromkeys(map(_text, facts))
    missing = [text for text in texts if counts[text] == 0]
    doubled = [f"{text!r} ({counts[text]} times)" for text in texts if counts[text] > 1]
    if missing or doubled:
        said = [_list("missing", [repr(text) for text in missing]), _list("stored more than once", doubled)]
        raise AssertionError(f"of {len(texts)} texts: {'; '.join(filter(None, said))}")


def _text(fact: object) -> str:
    if isinstance(fact, Fact):
        return fact.content
    content = fact["content"] if isinstance(fact, Mapping) else fact
    if not isinstance(content, str):
        raise TypeError(f"a fact is a str, a Fact or a mapping with a content, not {type(fact).__name__}")
    return content.strip()


def _list(what: str, texts: list[str]) -> str:
    if not texts:
        return ""
    more = f", and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return f"{len(texts)} {what}: {', '.join(texts[:_NAMED])}{more}"
