"""``omi-async import``."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from omi_async.cli import exits
from omi_async.cli.options import Command, Common, common, fields_of
from omi_async.cli.output import put, put_json, say
from omi_async.cli.running import connected, ended_gently, run_async
from omi_async.errors import ImportStoppedError

if TYPE_CHECKING:
    from omi_async.cli.ending import Ending
    from omi_async.cli.inputs import Inputs
    from omi_async.importing.importer import Importer

__all__ = ["import_command"]

CONNECTIONS: Final = 8

LET_GO: Final = 0.1
"""Seconds between the two cancels that an importer takes as: do not even wait for the calls on the wire."""


class Wishes(NamedTuple):
    """What is to be imported, and how."""

    paths: tuple[str, ...]
    wanted: str
    mapping: dict[str, str]
    defaults: dict[str, Any]
    concurrency: int
    failures: Path | None
    dedupe: bool


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
    "--no-dedupe",
    is_flag=True,
    help="Send the same text as often as it comes; takes no memory for known texts.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read and check everything, say what an import would take, send nothing. Needs no key.",
)
@common
def import_command(common: Common, *, dry_run: bool, **given: Any) -> int:
    """Import the facts of files, or of standard input (-), in parallel batches of 25.

    Reads JSON lines, JSON, CSV, TSV, plain text and Markdown lists. A record that cannot be read is one
    invalid fact, named FILE:LINE; the rest goes on. Whatever fails stands in the failures file, one JSON
    line for each fact, ready to be mended and imported again.

    Ctrl-C lets the calls on the wire land and prints the report; a second one ends at once. The same
    command goes on then: servers of today know a memory by its text, and store none twice.

    With --json, prints one event a line: "progress", "failure" for each failed fact, and "report" at the
    end ("bill" with --dry-run); the report for people goes to stderr.
    """
    wishes = _wishes(**given)
    return run_async(common, (_dry_run if dry_run else _import)(common, wishes))


def _wishes(
    *,
    pairs: tuple[str, ...],
    category: str | None,
    visibility: str | None,
    tags: tuple[str, ...],
    no_dedupe: bool,
    **given: Any,
) -> Wishes:
    defaults = {"category": category, "visibility": visibility, "tags": list(tags) or None}
    return Wishes(mapping=fields_of(pairs), defaults=defaults, dedupe=not no_dedupe, **given)


def _inputs(wishes: Wishes) -> Inputs:
    from omi_async.cli.inputs import Inputs  # noqa: PLC0415  # the readers of all formats

    if wishes.paths.count("-") > 1:
        raise click.UsageError("standard input (-) can be read once only")
    try:
        return Inputs(wishes.paths, wishes.wanted, wishes.mapping, wishes.defaults)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


# The dry run


async def _dry_run(common: Common, wishes: Wishes) -> int:
    from omi_async.cli.bill import make_bill  # noqa: PLC0415
    from omi_async.cli.failures import FailuresFile  # noqa: PLC0415

    inputs = _inputs(wishes)
    failures = FailuresFile(inputs, wishes.failures) if wishes.failures else None
    with contextlib.closing(failures) if failures else contextlib.nullcontext():
        bill = await make_bill(inputs, failures, dedupe=wishes.dedupe)
    if common.as_json:
        put_json({"event": "bill", **bill.as_json()})
        say(str(bill))
    else:
        put(str(bill))
    if failures is not None and failures.path is not None:
        say(f"The invalid records are in {failures.path}.")
    if inputs.broken:
        inputs.complain()
        return exits.USAGE
    return exits.SOME_FAILED if bill.invalid else exits.OK


# The import


async def _import(common: Common, wishes: Wishes) -> int:
    from omi_async.cli.ending import Ending  # noqa: PLC0415
    from omi_async.cli.failures import FailuresFile  # noqa: PLC0415
    from omi_async.cli.progress import watched  # noqa: PLC0415

    inputs = _inputs(wishes)
    with contextlib.closing(FailuresFile(inputs, wishes.failures)) as failures:
        ending = Ending(inputs, failures, as_json=common.as_json)
        async with (
            connected(common, connections=max(CONNECTIONS, wishes.concurrency), knock=True) as memories,
            contextlib.aclosing(inputs.facts()) as facts,
        ):
            with watched(inputs, as_json=common.as_json) as show:
                importer = memories.importer(
                    facts,
                    concurrency=wishes.concurrency,
                    dedupe=wishes.dedupe,
                    on_outcome=ending.note,
                    on_progress=show,
                )
                await _run(importer, ending)
    return ending.tell(importer.report)


async def _run(importer: Importer, ending: Ending) -> None:
    """Run an import to whatever end it takes, and tell `ending` of it."""
    running = asyncio.create_task(importer.run())

    def stop() -> None:
        ending.interrupted = True
        say("Stopping: the calls on the wire may land; once more ends at once.")
        importer.stop()

    def let_go() -> None:
        running.cancel()
        asyncio.get_running_loop().call_later(LET_GO, running.cancel)

    try:
        with ended_gently(stop, let_go):
            await asyncio.wait({running})
        running.result()
    except asyncio.CancelledError:
        ending.interrupted = True
    except ImportStoppedError as error:
        ending.error = error
