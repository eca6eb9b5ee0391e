"""Letta: the blocks of an agent file (``.af``) about the human, and the passages that its API lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from omi_async.errors import InvalidFactError
from omi_async.sources._markdown import BULLET, is_furniture
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found, LeftOut, Statement
from omi_async.sources.known._values import statement, text_of

__all__ = ["ACCOUNT", "LISTS", "matches", "read"]

LISTS: Final = ("blocks", "passages")
ACCOUNT: Final = ""

_PASSAGE: Final = frozenset({"embedding", "embedding_config", "is_deleted", "archive_id"})


def matches(sample: Sample) -> bool:
    """Whether the file is an agent's, or its records are passages."""
    is_agent = "agents" in sample.around and "blocks" in sample.around
    is_head_of_agent = {"agents", "groups"} <= sample.around.keys()
    blocks = any({"label", "value", "limit"} <= block.keys() for block in sample.under("blocks"))
    return is_agent or is_head_of_agent or blocks or any(map(_is_passage, sample.under("passages")))


def _is_passage(record: dict[str, Any]) -> bool:
    return "text" in record and not _PASSAGE.isdisjoint(record)


def read(record: Any, options: ReadOptions) -> Iterator[Found]:  # noqa: ARG001 - the same for all formats
    """Yield the lines of a block about the human, or a passage."""
    if not isinstance(record, dict):
        raise InvalidFactError("is neither a block nor a passage")
    if "label" in record:
        if record["label"] != "human":  # `persona` and the like say what the agent is
            yield LeftOut(f"block {str(record['label'])[:20]!r}")
            return
        yield from _lines(record.get("value") or "")
        return
    text = text_of(record, "text")
    if record.get("is_deleted"):
        yield LeftOut("deleted")
    else:
        yield statement(text, tags=record.get("tags"), date=record.get("created_at"))


def _lines(value: object) -> Iterator[Found]:
    """Yield the lines of a block; an agent may write them as Markdown."""
    if not isinstance(value, str):
        raise InvalidFactError("content: the value of a block must be a text", field="content")
    for line in value.splitlines():
        bullet = BULLET.match(line)
        text = line[bullet.end() :].strip() if bullet else line.strip()
        if is_furniture(line):
            yield LeftOut("heading")
        elif text:
            yield Statement(text)
