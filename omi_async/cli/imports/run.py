"""An import at work: its parts put together, run to whatever end it takes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from omi_async.cli.imports.failures import FailuresFile
from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.imports.progress import watched
from omi_async.cli.imports.result import ImportResult
from omi_async.cli.imports.which_journal import journal_for, opened
from omi_async.cli.options import Common
from omi_async.cli.output import print_message
from omi_async.cli.runtime import connected, graceful_signals
from omi_async.importing.report import ImportStoppedError

if TYPE_CHECKING:
    from omi_async.importing.importer import Importer

__all__ = ["import_all"]

CONNECTIONS: Final = 8


async def import_all(common: Common, options: ImportOptions) -> int:
    """Import, tell how it ended, and return the exit code."""
    inputs = options.inputs()
    journal = journal_for(common, options)
    async with opened(journal, common):
        with contextlib.closing(FailuresFile(inputs, options.failures, journal)) as failures:
            ending = ImportResult(inputs, failures, journal, options.on_unknown, as_json=common.as_json)
            async with (
                connected(common, connections=max(CONNECTIONS, options.concurrency), knock=True) as memories,
                contextlib.aclosing(inputs.facts()) as facts,
            ):
                with watched(inputs, as_json=common.as_json) as view:
                    importer = memories.importer(
                        facts,
                        concurrency=options.concurrency,
                        journal=journal,
                        dedupe=options.dedupe,
                        skip_existing=options.skip_existing,
                        on_unknown=options.on_unknown,
                        max_wait=options.max_wait,
                        lanes=options.lanes,
                        on_outcome=ending.note,
                        on_progress=view.show,
                    )
                    view.foresee_by(importer.forecast)
                    await _run(importer, ending)
    return ending.tell(importer.report)


async def _run(importer: Importer, ending: ImportResult) -> None:
    """Run an import to whatever end it takes, and tell `ending` of it."""
    running = asyncio.create_task(importer.run())

    def stop() -> None:
        ending.interrupted = True
        print_message("Stopping: the calls on the wire may land; once more ends at once.")
        importer.stop()

    try:
        with graceful_signals(stop, running.cancel):
            await asyncio.wait({running})
        running.result()
    except asyncio.CancelledError:
        ending.interrupted = True
    except ImportStoppedError as error:
        ending.error = error
