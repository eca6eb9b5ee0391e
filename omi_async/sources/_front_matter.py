"""The block of settings at the top of a Markdown file, of which the tags alone are wanted.

A YAML library would be one more dependency for one key; both of YAML's spellings of a list, and TOML's, are
read here, and everything else in the block is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["FrontMatter", "front_matter"]

_ENDS: Final = {"---": ("---", "..."), "+++": ("+++",)}
_TAGS: Final = re.compile(r"""["']?tags?["']?\s*[:=]\s*(?P<value>.*)$""", re.IGNORECASE)
_ITEM: Final = re.compile(r"\s*-\s+(?P<value>.*)$")


@attrs.frozen
class FrontMatter:
    """What stands above the text.

    Attributes:
        lines: how many lines it takes, with its marks; 0 if there is none.
        tags: the tags in it.
    """

    lines: int = 0
    tags: tuple[str, ...] = ()


def front_matter(head: Sequence[str]) -> FrontMatter:
    """Find the front matter in the first lines of a file; a mark that never comes again is a rule."""
    ends = _ENDS.get(head[0].rstrip()) if head else None
    if ends is None:
        return FrontMatter()
    for number, line in enumerate(head[1:], 1):
        if line.rstrip() in ends:
            return FrontMatter(number + 1, tuple(_tags(head[1:number])))
    return FrontMatter()


def _tags(lines: Sequence[str]) -> list[str]:
    for number, line in enumerate(lines):
        if found := _TAGS.match(line):
            value = _without_comment(found["value"]).strip()
            if value.startswith("["):
                rest = [value, *lines[number + 1 :]]
                value = " ".join(rest).partition("]")[0].lstrip("[")
            elif not value:
                return _words(_items(lines[number + 1 :]))
            return _words(value.split(","))
    return []


def _items(lines: Sequence[str]) -> list[str]:
    items = []
    for line in lines:
        found = _ITEM.match(line)
        if found is None:
            break
        items.append(_without_comment(found["value"]))
    return items


def _without_comment(value: str) -> str:
    """Cut a comment off: `#` begins one behind a space only, and a tag may begin with it."""
    return re.sub(r"\s#\s.*$", "", value)


def _words(values: Sequence[str]) -> list[str]:
    return [word for value in values if (word := value.strip().strip("\"'").removeprefix("#").strip())]
