"""Files of other systems to facts, and memories to files.

How a file is read
------------------
A file passes through four hands, each of which knows one thing and pulls from the one before:

```text
bytes            text            format           records            facts
_streams   -->   _encoding  -->  _detect   -->    _csv _jsonl  -->   _fields, _records
(a thread)       gzip, marks,    content first,   _json_document     Fact, or an `invalid`
                 UTF-16          name second      _text              outcome in its place
```

All of it runs in a thread of its own, because a read may block and parsing holds the interpreter. `Facts`
is the end of a short bridge to the event loop: at most three batches wait in it, so a file of any size takes
little memory.

What a reader must keep
-----------------------
- *One bad record spoils no other.* It becomes one `invalid` outcome that names FILE:LINE and keeps what
  stood there, and the reading goes on behind it. `SourceError` is only for damage beyond which nothing can be
  told apart (a document cut short, a string without an end): all that stands before it was handed out.
- *No text is changed or cut.* A text that is too long is invalid; so is one with bytes that are no text.
- *Nothing is kept.* A record is made a fact when it is read, and forgotten.
- *Nothing runs ahead without bound.* A stray quote in a table, a line without an end, a value that never
  closes: each is bounded, and the lines that it swallowed are read again.

How to add a format
-------------------
Write a module with one function that takes `Lines` (or chunks of bytes) and `Records` and yields batches; let
`Records` make the facts, because it counts. Add the name to `_detect.Format`, teach `_detect` how the content
shows it, and add samples to the laws in tests/sources/test_sources_laws.py, which every reader must obey.
"""

from __future__ import annotations

from omi_async.sources._errors import SourceError
from omi_async.sources._facts import Facts, open_facts

__all__ = ["Facts", "SourceError", "open_facts"]
