"""Files of other systems to facts, and memories to files.

How a source is read
--------------------
A source is a file, a ZIP archive or a folder. Its bytes pass through five hands, each of which knows one
thing and pulls from the one before:

```text
bytes           files           text            format          records            facts
_streams  -->   _source   -->   _encoding -->   _detect   -->   _csv _jsonl  -->   _fields, _records
(a thread)      _members:       gzip, marks,    content         _json_document     Fact, or an `invalid`
                chosen by       UTF-16, what    first, name     _markdown          outcome in its place;
                their names     was named       second, or no   known/             what is left out, counted
```

All of it runs in a thread of its own, because a read may block and parsing holds the interpreter. `Facts` is
the end of a short bridge to the event loop: at most three batches wait in it, so a file of any size takes
little memory.

Which format it is
------------------
Anything can be read line by line, so the first duty of `_detect` is to say no: a program, a page, a mailbox
would become hundreds of wrong memories (`_refusals`). What is certain is asked first: the first bytes, JSON,
the header of a table with names that we know. Then the systems that we know, by what only they write. A name
counts only if the content allows two readings. If both readings would make facts, and one of them wrong ones,
the caller is asked to say which (``--format``). A format that the caller named is not questioned.

What a reader must keep
-----------------------
- *One bad record spoils no other.* It becomes one `invalid` outcome that names FILE:LINE and keeps what stood
  there, and the reading goes on behind it. `SourceError` is for what is no list of facts, of which nothing is
  handed out, and for damage beyond which nothing can be told apart (a document cut short): all that stands
  before it was handed out.
- *No text is changed or cut,* but for the marks of the system that it comes from: bullets, dates, tags. A
  text that is too long is invalid, or split between sentences; one with bytes that are no text is invalid.
- *Nothing vanishes.* What is no fact (a task, a heading's remark) or none any more (deleted, expired) is
  counted by its reason in `Facts.skipped`.
- *Nothing is kept.* A record is made a fact when it is read, and forgotten. Two exceptions say why: ChatGPT,
  whose last list of memories is the one that holds, and files that name the owners of their records.
- *Nothing runs ahead without bound.* A stray quote in a table, a line without an end, a value that never
  closes, an archive made to fill the memory: each is bounded, and the lines that a quote swallowed are
  read again.

How to add a system
-------------------
Write a module in ``known/`` with `matches` and `read` and put it into the table there; its docstring tells of
the three kinds. A module gets what was read and returns statements, and reasons for what it leaves out: it
opens nothing, counts nothing and makes no fact. Add its name to `_detect.Format` and to the command line's,
and a sample with what it says to tests/sources/test_exports.py.
"""

from __future__ import annotations

from omi_async.sources._errors import SourceError
from omi_async.sources._facts import Facts, open_facts

__all__ = ["Facts", "SourceError", "open_facts"]
