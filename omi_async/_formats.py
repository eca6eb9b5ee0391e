"""The names by which a caller chooses what a file is, and what is taken of it.

They stand here, and not with the readers: the command line shows them in its help, which is not to wait until
all readers are loaded.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["FORMATS", "INCLUDES", "Format", "Include"]

Format = Literal[
    "auto",
    "jsonl",
    "json",
    "csv",
    "tsv",
    "text",
    "markdown",
    "list",
    "claude",
    "chatgpt",
    "mem0",
    "mcp-memory",
    "graphiti",
    "letta",
    "langgraph",
    "supermemory",
    "keep",
    "bee",
    "vault",
]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

Include = Literal["projects", "instructions", "pending", "relations", "archived", "journals"]

INCLUDES: Final[tuple[Include, ...]] = get_args(Include)
