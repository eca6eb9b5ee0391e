"""The exports of other systems: a pure module each, with `matches` and `read`, in the tables below.

A module knows one system. `matches` looks at what the head of a file shows and says whether it is that
system's; `read` makes statements of a record, and says of what it leaves out why. None of them opens
anything.

To add one: write the module, put it into the table of its kind, add its name to `_detect.Format`, and a
sample beside the others in tests/sources/exports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from omi_async.sources._json_scanner import Scanner
from omi_async.sources._lines import LineReader
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._statements import Found
from omi_async.sources.known import (
    bee,
    bee_markdown,
    chatgpt,
    chatgpt_memory,
    claude,
    graphiti,
    keep,
    langgraph,
    letta,
    mcp_memory,
    mem0,
    pasted_list,
    supermemory,
    vault,
)

__all__ = ["DOCUMENTS", "RECORDS", "TEXTS", "DocumentFormat", "RecordFormat", "TextFormat"]


class RecordFormat(Protocol):
    """A system that writes JSON records: a list of them, one a line, or one that is the whole file.

    Attributes:
        LISTS: keys of the object around the records, if there is one.
        ACCOUNT: the key of a record that names its owner, or "".
    """

    @property
    def LISTS(self) -> Sequence[str]: ...  # noqa: D102, N802 - a constant of the module
    @property
    def ACCOUNT(self) -> str: ...  # noqa: D102, N802 - a constant of the module

    def matches(self, sample: Sample, /) -> bool:
        """Whether the head of a file is this system's."""

    def read(self, record: Any, options: ReadOptions) -> Iterable[Found]:
        """Yield what a record says. Raises `InvalidFactError` for one that it cannot read."""


class DocumentFormat(Protocol):
    """A system whose facts are spread over a JSON document, so that only its end shows which hold."""

    def matches(self, sample: Sample, /) -> bool:
        """Whether the head of a file is this system's."""

    def read(self, scanner: Scanner, options: ReadOptions, /) -> Iterator[Found]:
        """Read the document piece by piece; yield what it says."""


class TextFormat(Protocol):
    """A system that writes text for people."""

    def matches(self, head: Sequence[str], /) -> bool:
        """Whether the first lines of a file are this system's."""

    def read(self, head: Sequence[str], options: ReadOptions, /) -> LineReader:
        """Return what takes the lines, one after the other."""


RECORDS: Final[dict[str, RecordFormat]] = {
    "claude": claude,
    "chatgpt": chatgpt_memory,
    "mcp-memory": mcp_memory,
    "graphiti": graphiti,
    "letta": letta,
    "langgraph": langgraph,
    "keep": keep,
    "bee": bee,
    "supermemory": supermemory,
    "mem0": mem0,
}
"""In the order in which they are asked; mem0, whose records have the fewest marks of their own, last."""

DOCUMENTS: Final[dict[str, DocumentFormat]] = {"chatgpt": chatgpt}

TEXTS: Final[dict[str, TextFormat]] = {"bee": bee_markdown, "list": pasted_list, "vault": vault}
