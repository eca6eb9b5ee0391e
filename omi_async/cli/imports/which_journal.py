"""Which journal an import keeps, and for which server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import click

from omi_async.cli.exit_codes import CommandError
from omi_async.cli.format import facts_are
from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.options import Common
from omi_async.cli.output import print_message
from omi_async.errors import JournalError, JournalInUseError
from omi_async.importing.journal.journal import Journal

__all__ = ["journal_for", "opened"]

IN_MEMORY: Final = frozenset({"", ":memory:"})
"""Databases that end with the process, as SQLite names them."""

_NO_FILES: Final = ("/dev/", "/proc/")

_LONGEST: Final = 2**20
"""Bytes of a failures file's first line."""


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
    """Name the server where its address says nothing: a built-in one has another port each time."""
    return None if common.local is None else f"local:{Path(common.local).resolve()}"


def _beside(paths: Sequence[str]) -> Path | None:
    files = (name for name in paths if Path(name).is_file() and not name.startswith(_NO_FILES))
    return next((Path(f"{name}.journal") for name in files), None)


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
    if not Path(name).is_file():
        return None
    with suppress(OSError, ValueError), Path(name).open("rb") as file:
        record = json.loads(file.readline(_LONGEST))
        if isinstance(record, dict) and {"state", "error", "journal"} <= record.keys():
            journal = Path(name).parent / str(record["journal"])
            return journal if journal.is_file() else None
    return None


def _is_same(path: Path, name: str) -> bool:
    with suppress(OSError):
        return name != "-" and path.samefile(name)
    return False


@asynccontextmanager
async def opened(journal: Journal | None, common: Common) -> AsyncIterator[None]:
    """Open the journal, before anything is read or sent. Raises `JournalError` and `CommandError`."""
    if journal is None:
        yield
        return
    try:
        await _open(journal)
        _refuse_to_remember_for_another(journal, common)
        yield
    finally:
        journal.close()


async def _open(journal: Journal) -> None:
    try:
        await asyncio.to_thread(journal.open)  # a large one takes seconds
    except JournalInUseError:
        raise  # without our advice: beside a running import, another journal, or none, would double facts
    except JournalError as error:
        error.add_note(
            "Nothing was sent. --journal PATH keeps the journal elsewhere; --no-journal keeps none."
        )
        raise


def _refuse_to_remember_for_another(journal: Journal, common: Common) -> None:
    """Raise where a built-in server's database is gone, and the journal knows what was in it."""
    if common.local is None or Path(common.local).exists():
        return
    states = journal.counts().get(_server(common) or "", {})
    if stored := states.get("created", 0) + states.get("existing", 0):
        raise CommandError(
            f"the journal {journal.path} says that {facts_are(stored)} stored in {common.local}, which does "
            "not exist. Name the right file with --local DB, or begin another journal with --journal PATH"
        )
