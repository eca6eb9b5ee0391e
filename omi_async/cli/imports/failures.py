"""The failures file: one JSON line for each fact that is not safely stored; the next input of ``import``."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from itertools import count
from os.path import samestat
from pathlib import Path
from typing import Any, Final

import click

from omi_async.cli.format import described
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.output import json_line, print_message
from omi_async.errors import InvalidFactError
from omi_async.fact import Fact
from omi_async.importing.journal.journal import Journal
from omi_async.importing.report import FactOutcome
from omi_async.sources._fields import value_at

__all__ = ["FailuresFile", "failure_record", "journal_reference"]

_FORMATS: Final = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|tab|md|markdown|txt|text)$", re.IGNORECASE)
_PACKED: Final = re.compile(r"\.gz(ip)?$", re.IGNORECASE)
_EARLIER: Final = re.compile(r"\.failures(\.[0-9]+)?$")


class FailuresFile:
    """Made at the first failure, written line by line, so that a crash loses nothing that was settled.

    Args:
        inputs: what is imported; none of its files is ever written to.
        path: where to; None for a new file beside the first input, or in the current directory for stdin.
        journal: the import's. Each line names it, so that importing the file uses it: what is in doubt is
            looked for then, and what was sent meanwhile is not sent once more.

    Attributes:
        path: the file, once something was written.
    """

    def __init__(self, inputs: Inputs, path: Path | None = None, journal: Journal | None = None) -> None:
        if path is not None and not path.parent.is_dir():
            raise click.UsageError(f"--failures: there is no folder {path.parent}")
        self.path: Path | None = None
        self._inputs = inputs
        self._journal = journal
        self._wanted = path
        self._file: FileIO | None = None
        self._unwritable = False

    def add(self, outcome: FactOutcome) -> None:
        """Write down a failure. Where that cannot be done, say so once; the import goes on."""
        if self._unwritable:
            return
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(json_line(failure_record(outcome, self._inputs) | self._reference))
        except OSError as error:
            self._unwritable = True
            print_message(
                f"warning: no failures file can be written ({described(error)}); the import goes on without"
            )

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    @property
    def _reference(self) -> dict[str, str]:
        if self._journal is None or self.path is None:
            return {}
        return {"journal": journal_reference(self._journal.path, self.path.parent)}

    def _open(self) -> FileIO:
        if self._wanted is not None and not _is_read(self._wanted, self._inputs.paths):
            file = FileIO(self._wanted, "w")
            self.path = self._wanted
            return file
        for path in self._new_names():
            # A file that is there may be an earlier run's, mended by hand meanwhile: never write over it.
            with contextlib.suppress(FileExistsError):
                file = FileIO(path, "x")
                self.path = path
                return file
        raise AssertionError("the names do not end")

    def _new_names(self) -> Iterator[Path]:
        first = self._inputs.paths[0]
        base = self._wanted or Path("stdin" if first == "-" else first)
        stem = _EARLIER.sub("", _FORMATS.sub("", _PACKED.sub("", base.name)))
        yield base.with_name(f"{stem}.failures.jsonl")
        for number in count(2):
            yield base.with_name(f"{stem}.failures.{number}.jsonl")


def journal_reference(journal: Path, folder: Path) -> str:
    """Name a journal for a file of that folder: without the folder where it is the same, so both may move."""
    there = journal.absolute()
    return there.name if there.parent == folder.absolute() else str(there)


def _is_read(path: Path, inputs: Sequence[str]) -> bool:
    """Whether a path is one of the inputs, by whatever name."""
    try:
        itself = path.stat()
        return any(samestat(itself, os.fstat(0) if name == "-" else Path(name).stat()) for name in inputs)
    except OSError:  # it is not there yet
        return False


def failure_record(outcome: FactOutcome, inputs: Inputs) -> dict[str, Any]:
    """Return what `import` reads back as the same fact, and beside it why it failed."""
    record = _fact(outcome.fact) if outcome.fact is not None else _raw(outcome, inputs)
    return record | {
        "state": outcome.state,
        "error": str(outcome.error) if outcome.error is not None else outcome.state,
        "origin": outcome.origin,
    }


def _fact(fact: Fact) -> dict[str, Any]:
    """Name the visibility always: a private fact must not meet a default of public next time."""
    record: dict[str, Any] = {"content": fact.content}
    if fact.category is not None:
        record["category"] = fact.category
    record["visibility"] = fact.visibility
    if fact.tags:
        record["tags"] = list(fact.tags)
    return record


def _raw(outcome: FactOutcome, inputs: Inputs) -> dict[str, Any]:
    """Return the record that could not become a fact, under the names that `import` knows without --map."""
    given = getattr(outcome.error, "record", None)
    if isinstance(given, str) and _is_text(given, outcome.error):
        given = {"content": given}
    if not isinstance(given, Mapping):
        return {"unreadable": given if isinstance(given, str) else json.dumps(given, default=str)}
    record = {str(key): value for key, value in given.items()}
    for field, key in inputs.mapping.items():
        if field not in record and (value := value_at(record, key)) is not None:
            record[field] = value
            record.pop(key, None)
    defaults = {field: value for field, value in inputs.defaults.items() if value}
    return record | {field: value for field, value in defaults.items() if not record.get(field)}


def _is_text(given: str, error: object) -> bool:
    """Whether a string failed as the text of a fact, and is not a line that nobody could read."""
    if not isinstance(error, InvalidFactError) or error.field != "content":
        return False
    try:
        Fact(given)
    except InvalidFactError:
        return True
    return False
