"""``omi-async import``."""

from __future__ import annotations

import click

from omi_async.cli.imports.options import ImportOptions, import_options
from omi_async.cli.options import Command, Common
from omi_async.cli.runtime import run_async

__all__ = ["import_command"]


@click.command("import", cls=Command, short_help="Import facts of files, or of standard input.")
@import_options
def import_command(common: Common, options: ImportOptions) -> int:
    """Import the facts of files, or of standard input (-), in parallel batches of 25.

    Reads JSON lines, JSON, CSV, TSV, plain text and Markdown lists. A record that cannot be read is one
    invalid fact, named FILE:LINE; the rest goes on.

    Ctrl-C lets the calls on the wire land and prints the report; a second one ends at once. With its journal
    the same command goes on then, as after a crash: what is settled is not sent again, what was on the wire
    is looked for. Without one it begins from the start, and sends everything again. A journal knows its
    server: what was tried with --local is sent to the service all the same.

    Whatever fails stands in the failures file, one JSON line for each fact, ready to be fixed and imported
    again. It names the journal, and importing it uses that: facts in doubt are looked for, never sent
    blindly. To send what was not sent, the same command is as good.

    When the server's quota is used up, the import waits until its window opens, and shows how long that takes
    and when all will be done. What is spent is counted in a file that all commands share (OMI_LEDGER).

    With --json, prints one event a line: "progress", "stored" for each fact that a memory holds now, with the
    memory's id, "failure" for each failed fact, "error" if the import could not go on, and "report" at the
    end ("bill" with --dry-run); the report for people goes to stderr. While it waits for a quota window,
    "progress" has "waiting_for" and "opens_at"; "done_about" is when all will be done.
    """
    from omi_async.cli.imports.dry_run import dry_run  # noqa: PLC0415  # the library takes its time
    from omi_async.cli.imports.run import import_all  # noqa: PLC0415

    return run_async(common, (dry_run if options.dry_run else import_all)(common, options))
