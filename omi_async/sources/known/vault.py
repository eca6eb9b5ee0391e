"""A note of a vault (Obsidian, Logseq, a folder of Markdown): its bullets are the facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from omi_async.sources._front_matter import front_matter
from omi_async.sources._markdown import MarkdownReader
from omi_async.sources._options import ReadOptions

__all__ = ["matches", "read"]

_MARKS: Final = re.compile(r"\[\[[^\]]+\]\]|\s\^[\w-]+$|%%|^\s*(?:- )?[\w-]+::\s")


def matches(head: Sequence[str]) -> bool:
    """Whether a file has front matter, or the marks of a note among its headings."""
    if front_matter(head).lines:
        return True
    has_structure = any(line.startswith(("#", "\t", "  ")) for line in head)
    return has_structure and any(_MARKS.search(line) for line in head)


def read(head: Sequence[str], options: ReadOptions) -> MarkdownReader:
    """Return what takes the lines."""
    return MarkdownReader(head, options.under, bullets_only=True)
