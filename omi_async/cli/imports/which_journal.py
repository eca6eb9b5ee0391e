"""Which journal an import keeps, for which server, and whether what it is given must be looked for first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from omi_async._api import json
from omi_async.cli.imports.inputs import base_of
from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.imports.reference import journal_at
from omi_async.cli.options import IN_MEMORY, Common
from omi_async.cli.output import print_message
from omi_async.errors import JournalError
from omi_async.importing.journal.journal import Journal

__all__ = ["has_unknown_facts", "journal_for", "opened"]

_LONGEST_LINE: Final = 2**20
"""Bytes of a line that is read here. A failure's is shorter; a document may be one line of gigabytes."""

_LINE_OF_A_FAILURE: Final = frozenset({"state", "error"})


def journal_for(common: Common, options: ImportOptions) -> Journal | None:
    """Return the journal to be kept. Raises `click.UsageError`."""
    if options.no_journal or not options.dedupe:
        return None
    if common.local in IN_MEMORY:
        if options.journal is not None:
            raise click.UsageError(
                "a server in memory forgets all at its end; no journal can remember for it"
            )
        return None
    path = options.journal or _named_by(options.paths) or _beside(options.paths)
    if path is None:
        print_message(
            "No journal is kept of standard input; --journal PATH keeps one, to go on after an interruption."
        )
        return None
    if any(_is_same(path, name) for name in options.paths):
        raise click.UsageError(f"{path} is the journal of this import, and cannot be its input too")
    return Journal(path, server=_server(common))


def _server(common: Common) -> str | None:
    """Name the server if its address says nothing: a built-in one has another port each time."""
    if common.local is None:
        return None
    from omi_async.local.store import database_id  # noqa: PLC0415  # aiohttp takes its time

    # Not by its path: a database that was removed and made again holds nothing of what the old one held.
    return f"local:{database_id(common.local)}"


def _beside(paths: Sequence[str]) -> Path | None:
    return next((base.with_name(f"{base.name}.journal") for name in paths if (base := base_of(name))), None)


def _named_by(paths: Sequence[str]) -> Path | None:
    """Return the journal that a failures file names: what is in doubt there must not be sent blindly."""
    found = {journal for name in paths if (journal := _named_in(name)) is not None}
    if len(found) > 1:
        raise click.UsageError(
            "these files of failures belong to different journals; import them one after the other, or name "
            "one with --journal"
        )
    return found.pop() if found else None


def _named_in(name: str) -> Path | None:
    """Read the first line of a file. A journal that is not there any more is not made again at its word."""
    for record in _failures_in(name):
        if isinstance(reference := record.get("journal"), str):
            journal = journal_at(reference, Path(name).parent)
            return journal if journal.is_file() else None
        break
    return None


def has_unknown_facts(paths: Sequence[str], journal: Journal | None) -> bool:
    """Return whether files of failures hold facts in doubt of which this journal knows nothing.

    To be asked before the journal is opened, which makes its file. Such facts were written down by an import
    without a journal, or with one that is gone; their calls may have stored them, and to send them without
    looking may store them twice.
    """
    known = None if journal is None or not journal.path.is_file() else journal.path.resolve()
    return any(
        record["state"] == "unknown" and (known is None or _journal_of(record, name) != known)
        for name in paths
        for record in _failures_in(name)
    )


def _journal_of(record: dict[str, Any], name: str) -> Path | None:
    reference = record.get("journal")
    return journal_at(reference, Path(name).parent).resolve() if isinstance(reference, str) else None


def _failures_in(name: str) -> Iterator[dict[str, Any]]:
    """Read the records of a failures file; of another one no more than its first line."""
    if not Path(name).is_file():  # from a pipe, what was read here would be missing there
        return
    with suppress(OSError), Path(name).open("rb") as file:
        yield from _records(file)


def _records(file: BinaryIO) -> Iterator[dict[str, Any]]:
    while line := file.readline(_LONGEST_LINE):
        record: Any = None
        with suppress(json.JSONError):
            record = json.loads(line)
        if isinstance(record, dict) and record.keys() >= _LINE_OF_A_FAILURE:
            yield record
        elif file.tell() == len(line):
            return


def _is_same(path: Path, name: str) -> bool:
    with suppress(OSError):
        return name != "-" and path.samefile(name)
    return False


@asynccontextmanager
async def opened(journal: Journal | None) -> AsyncIterator[None]:
    """Open the journal, before anything is read or sent. Raises `JournalError`."""
    if journal is None:
        yield
        return
    try:
        await _open(journal)
        yield
    finally:
        journal.close()


async def _open(journal: Journal) -> None:
    try:
        await asyncio.to_thread(journal.open)  # a large one takes seconds
    except JournalError as error:
        if not error.remembers:  # else another journal, or none, would send everything a second time
            error.add_note(
                "Nothing was sent. --journal PATH keeps the journal elsewhere; --no-journal keeps none."
            )
        raise
