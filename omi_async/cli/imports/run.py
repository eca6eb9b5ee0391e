"""An import at work: its parts put together, run to whatever end it takes."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from omi_async.cli.imports.events import Events
from omi_async.cli.imports.failures import FailuresFile
from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.imports.progress import View, watched
from omi_async.cli.imports.result import ImportResult
from omi_async.cli.imports.which_journal import has_unknown_facts, journal_for, opened
from omi_async.cli.options import Common
from omi_async.cli.output import print_message
from omi_async.cli.runtime import connected, graceful_signals
from omi_async.importing.report import ImportReport, ImportStoppedError

if TYPE_CHECKING:
    from omi_async.importing.importer import Importer

__all__ = ["import_all"]

CONNECTIONS: Final = 8


async def import_all(common: Common, options: ImportOptions) -> int:
    """Import, tell how it ended, and return the exit code."""
    inputs = options.inputs()
    journal = journal_for(common, options)
    look_first = await asyncio.to_thread(has_unknown_facts, options.paths, journal)
    if look_first:
        print_message("Some of these facts may be stored: the account's list is read to look for them.")
    async with opened(journal):
        with contextlib.closing(FailuresFile(inputs, options.failures, journal)) as failures:
            events = Events() if common.as_json else None
            result = ImportResult(
                inputs, failures, journal, options.on_unknown, events, on_existing=options.on_existing
            )
            async with (
                connected(
                    common, connections=max(CONNECTIONS, options.concurrency), new_database=True
                ) as session,
                contextlib.aclosing(inputs.facts()) as facts,
            ):
                with watched(inputs, events) as view:
                    importer = session.memories.importer(
                        facts,
                        concurrency=options.concurrency,
                        journal=journal,
                        dedupe=options.dedupe,
                        skip_existing=options.skip_existing or look_first,
                        on_existing=options.on_existing,
                        on_unknown=options.on_unknown,
                        max_wait=options.max_wait,
                        lanes=options.lanes,
                        on_outcome=result.note,
                        on_progress=partial(_show, view, events),
                    )
                    view.foresee_by(importer.forecast)
                    view.show(importer.report)  # a program knows by it that the import has begun
                    await _run(importer, result)
            if journal is not None and importer.report.not_sent == importer.report.pulled:
                failures.discard()  # a wrong key, a dead server: the same command does it all
    # Only now: the report names the files, and both are closed, so that it can be believed.
    return result.tell(importer.report)


async def _show(view: View, events: Events | None, report: ImportReport) -> None:
    view.show(report)
    if events is not None:
        await events.publish()


async def _run(importer: Importer, result: ImportResult) -> None:
    """Run an import to whatever end it takes, and note that end."""
    running = asyncio.create_task(importer.run())

    def stop() -> None:
        result.interrupted = True
        print_message("Stopping: the calls on the wire may land; once more ends at once.")
        importer.stop()

    try:
        with graceful_signals(stop, running.cancel):
            await asyncio.wait({running})
        running.result()
    except asyncio.CancelledError:
        result.interrupted = True
    except ImportStoppedError as error:
        result.error = error
