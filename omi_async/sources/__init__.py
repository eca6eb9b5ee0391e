"""Files of other systems to facts, and memories to files."""

from __future__ import annotations

from omi_async.sources._errors import SourceError
from omi_async.sources._facts import Facts, open_facts

__all__ = ["Facts", "SourceError", "open_facts"]

for _public in (Facts, SourceError, open_facts):
    _public.__module__ = __name__
del _public
