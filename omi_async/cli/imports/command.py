"""``omi-async import``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.options import Command, Common, common, fields_of
from omi_async.cli.runtime import run_async

__all__ = ["import_command"]


@click.command("import", cls=Command, short_help="Import facts of files, or of standard input.")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH... | -",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["auto", "jsonl", "json", "csv", "tsv", "text", "markdown"]),
    default="auto",
    show_default=True,
    help="What the files are; auto looks at their content and name. Any of them may be gzipped.",
)
@click.option(
    "--map",
    "pairs",
    multiple=True,
    metavar="FIELD=KEY",
    help="Take FIELD (content, category, visibility or tags) from this key or column, such as "
    "content=data.text. May be given several times.",
)
@click.option(
    "--category",
    metavar="WORD",
    help="The category of facts that have none. Without one the server asks a language model, fact by fact: "
    "slow.",
)
@click.option(
    "--visibility",
    type=click.Choice(["private", "public"]),
    help="The visibility of facts that have none. [default: private]",
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="A tag for facts that have none. May be given several times.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    metavar="N",
    help="Batch calls on the wire at the same time, at most.",
)
@click.option(
    "--failures",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="PATH",
    help="Write the facts that fail to this file, which import reads again. [default: a new "
    "NAME.failures.jsonl beside the first PATH]",
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Keep the journal in this file: what was sent, and what became of it, so that the same command goes "
    "on after whatever happened. [default: PATH.journal beside the first file; none for standard input]",
)
@click.option("--no-journal", is_flag=True, help="Keep no journal.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Read the account's whole list first, and send nothing that it holds already.",
)
@click.option(
    "--on-unknown",
    type=click.Choice(["reconcile", "report", "resend"]),
    default="reconcile",
    show_default=True,
    help="What to do about facts whose call had no usable answer. reconcile: look for them in the list, and "
    "send again what is surely absent. report: leave them in doubt. resend: send them again without looking, "
    "which stores nothing twice only on servers that know a memory by its text.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait so long for the server's quota windows, in all; where the next one opens later, end with exit "
    "code 4 and say when that is: the same command then goes on. [default: wait for any]",
)
@click.option(
    "--lanes",
    type=click.Choice(["batch", "both"]),
    default="batch",
    show_default=True,
    help="What to do while the window of batch calls is shut. batch: wait. both: send single facts "
    "meanwhile, where that ends the import sooner. Not the default, for they spend the quota of your other "
    "writes (create, update, delete), and 25 of them do what one batch does.",
)
@click.option(
    "--no-dedupe",
    is_flag=True,
    help="Send the same text as often as it comes; takes no memory for known texts, and keeps no journal.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read and check everything, say what an import would take, send nothing. Needs no key; with one, "
    "what earlier commands met of its quotas counts. Does not look into the journal.",
)
@common
def import_command(common: Common, *, dry_run: bool, **given: Any) -> int:
    """Import the facts of files, or of standard input (-), in parallel batches of 25.

    Reads JSON lines, JSON, CSV, TSV, plain text and Markdown lists. A record that cannot be read is one
    invalid fact, named FILE:LINE; the rest goes on.

    Ctrl-C lets the calls on the wire land and prints the report; a second one ends at once. With its journal
    the same command goes on then, as after a crash: what is settled is not sent again, what was on the wire
    is looked for. Without one it begins anew; servers of today know a memory by its text, and store none
    twice. A journal knows its server: what was tried with --local is sent to the service all the same.

    Whatever fails stands in the failures file, one JSON line for each fact, ready to be mended and imported
    again. It names the journal, and importing it uses that: facts in doubt are looked for, never sent
    blindly. To send what was not sent, the same command is as good.

    When the server's quota is used up, the import waits until its window opens, and shows how long that takes
    and when all will be done. What is spent is counted in a file that all commands share (OMI_LEDGER).

    With --json, prints one event a line: "progress", "failure" for each failed fact, and "report" at the
    end ("bill" with --dry-run); the report for people goes to stderr. While it waits for a quota window,
    "progress" has "waiting_for" and "opens_at"; "done_about" is when all will be done.
    """
    from omi_async.cli.imports.dry_run import dry_run as work_out  # noqa: PLC0415  # the library takes its time
    from omi_async.cli.imports.run import import_all  # noqa: PLC0415

    wishes = _wishes(**given)
    wishes.check()
    return run_async(common, (work_out if dry_run else import_all)(common, wishes))


def _wishes(
    *,
    pairs: tuple[str, ...],
    category: str | None,
    visibility: str | None,
    tags: tuple[str, ...],
    no_dedupe: bool,
    **given: Any,
) -> ImportOptions:
    defaults = {"category": category, "visibility": visibility, "tags": list(tags) or None}
    return ImportOptions(mapping=fields_of(pairs), defaults=defaults, dedupe=not no_dedupe, **given)
