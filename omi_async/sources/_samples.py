"""What the head of a JSON file shows: its first records, as far as they are in it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import attrs

from omi_async._api.json import loads

__all__ = ["Sample", "sample_of_document", "sample_of_lines"]

_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|"|[\[\]{}:,]|[^\s\[\]{}:,"]+', re.DOTALL)
_CLOSES: Final = {"[": "]", "{": "}"}

_DEPTH: Final = 100
"""Levels that are followed: no export of records nests so deep, and a file of nothing but brackets may."""

Record = dict[str, Any]


@attrs.frozen
class Sample:
    """The head of a JSON document or of JSON lines.

    Attributes:
        around: the object around the records, or the one record that is the file; empty for a list.
        records: the objects in the list, or on the lines; the last one may lack keys.
    """

    around: Record = attrs.field(factory=dict)
    records: Sequence[Record] = ()

    def under(self, *keys: str) -> list[Record]:
        """Return the records, or those in the lists under these keys of the object around them."""
        lists = [self.around[key] for key in keys if isinstance(self.around.get(key), list)]
        found = [item for items in lists for item in items if isinstance(item, dict)]
        return found or list(self.records)


def sample_of_lines(lines: Sequence[str]) -> Sample:
    """Read the whole lines of a head."""
    records = []
    for line in lines:
        try:
            value = loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            records.append(value)
    return Sample(records=records)


def sample_of_document(head: str) -> Sample:
    """Read the head of a document as if it were closed where it is cut."""
    try:
        value = json.loads(_closed(head.lstrip("\ufeff \t\r\n")))
    except (ValueError, RecursionError):
        return Sample()
    if isinstance(value, dict):
        return Sample(around=value, records=[value])
    if isinstance(value, list):
        return Sample(records=[item for item in value if isinstance(item, dict)])
    return Sample()


def _closed(head: str) -> str:
    """Cut a head behind its last whole value, and close what is open there."""
    open_: list[str] = []
    end, closers = 0, ""
    is_value = True  # what stands next, in an object
    for token in _TOKEN.finditer(head):
        mark = token[0]
        if mark == '"':  # of a string that goes on behind the head
            break
        if mark in _CLOSES:
            open_.append(_CLOSES[mark])
            if len(open_) > _DEPTH:
                break
        elif mark in "]}":
            if not open_ or open_.pop() != mark:
                break
        elif mark in ":,":
            is_value = mark == ":"
            continue
        elif open_ and open_[-1] == "}" and not is_value:  # a key
            continue
        end, closers = token.end(), "".join(reversed(open_))
        is_value = False
        if not open_:
            break
    return head[:end] + closers
