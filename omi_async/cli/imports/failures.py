"""The failures file: one JSON line for each fact that is not safely stored; the next input of ``import``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

import click

from omi_async.cli.format import described, shortened
from omi_async.cli.imports.failure_record import failure_record
from omi_async.cli.imports.inputs import Inputs, base_of
from omi_async.cli.imports.reference import journal_reference
from omi_async.cli.output import NamedFile, json_line, print_message
from omi_async.importing.journal.journal import Journal
from omi_async.importing.report import FactOutcome

__all__ = ["FailuresFile"]

_FORMATS: Final = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|tab|md|markdown|txt|text)$", re.IGNORECASE)
_PACKED: Final = re.compile(r"\.gz(ip)?$", re.IGNORECASE)
_EARLIER: Final = re.compile(r"\.failures(\.[0-9]+)?$")

_KEPT_BY_A_JOURNAL: Final = frozenset({"unknown", "not_sent"})
"""States out of which the same command brings a fact when it is repeated with its journal."""

_LARGEST_EARLIER: Final = 2**26
"""Bytes of an earlier failures file that is compared with the new one: all of its lines are held at once."""


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
            raise click.UsageError(f"--failures: there is no folder {shortened(path.parent)}")
        self.path: Path | None = None
        self._inputs = inputs
        self._journal = journal
        self._wanted = path
        self._file: NamedFile | None = None
        self._earlier: list[Path] = []
        self._unwritable = False

    def add(self, outcome: FactOutcome) -> None:
        """Write down a failure. If that cannot be done, say so once; the import goes on."""
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

    def discard(self) -> None:
        """Take the file away, which says no more than the input itself: nothing of it was sent."""
        if self._file is not None and self.path is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)
            self._file = self.path = None

    def close(self) -> None:
        """Close the file, if there is one; let it take the place of an earlier one that says no more."""
        if self._file is None:
            return
        self._file.close()
        with suppress(OSError):
            self._replace_an_earlier_one()

    @property
    def _reference(self) -> dict[str, str]:
        if self._journal is None or self.path is None:
            return {}
        return {"journal": journal_reference(self._journal.path, self.path.parent)}

    def _open(self) -> NamedFile:
        if self._wanted is not None and not self._inputs.reads(self._wanted):
            file = NamedFile(self._wanted, "w", str(self._wanted))
            self.path = self._wanted
            return file
        for path in self._new_names():
            # A file that is there may be an earlier run's, fixed by hand meanwhile: never write over it.
            try:
                file = NamedFile(path, "x", str(path))
            except FileExistsError:
                self._earlier.append(path)
            else:
                self.path = path
                return file
        raise AssertionError("the names do not end")

    def _new_names(self) -> Iterator[Path]:
        first = self._inputs.paths[0]
        has_a_folder = not first.startswith(("-", "/dev/", "/proc/"))
        base = self._wanted or base_of(first) or Path(first if has_a_folder else "stdin")
        stem = _EARLIER.sub("", _FORMATS.sub("", _PACKED.sub("", base.name)))
        yield base.with_name(f"{stem}.failures.jsonl")
        for number in count(2):
            yield base.with_name(f"{stem}.failures.{number}.jsonl")

    def _replace_an_earlier_one(self) -> None:
        """Take the name of a file that would tell nothing that is not here or in the journal.

        Otherwise each repetition of a command, and each Ctrl-C, would leave a file more.
        """
        if self.path is None or not self._earlier:
            return
        lines = frozenset(self.path.read_bytes().splitlines())
        for earlier in self._earlier:
            if not self._inputs.reads(earlier) and self._says_no_more(earlier, lines):
                self.path = self.path.replace(earlier)
                return

    def _says_no_more(self, earlier: Path, lines: frozenset[bytes]) -> bool:
        """Return whether each line of an earlier file is our own, or of a fact that the journal keeps.

        A line that was fixed by hand is neither.
        """
        if not earlier.is_file() or earlier.stat().st_size > _LARGEST_EARLIER:
            return False
        others = frozenset(earlier.read_bytes().splitlines()) - lines
        return all(map(self._is_kept_by_the_journal, others))

    def _is_kept_by_the_journal(self, line: bytes) -> bool:
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            kept = isinstance(record, dict) and record.get("state") in _KEPT_BY_A_JOURNAL
            return kept and record.get("journal") == self._reference.get("journal", ())
        return False
