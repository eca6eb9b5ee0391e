"""``omi-async export``: the whole account, streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from omi_async.cli import exit_codes
from omi_async.cli.format import shortened
from omi_async.cli.options import Command, Common, common, max_wait_option
from omi_async.cli.output import json_line, opened_whole, print_message
from omi_async.cli.runtime import memories_at_prompt, run_async
from omi_async.errors import ListLimitError, OmiError

if TYPE_CHECKING:
    from omi_async.memory import Memory

__all__ = ["export_command"]

PAGE = 1000

Lines = Callable[["Memory"], bytes]


@click.command("export", cls=Command, short_help="Write all memories, in a form that import reads back.")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["jsonl", "csv", "markdown"]),
    default="jsonl",
    show_default=True,
    help="JSON lines and CSV keep all that import takes, the id and the dates; Markdown lists the texts.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write this file, which appears when it is complete and not before. [default: stdout]",
)
@click.option(
    "--category",
    "categories",
    multiple=True,
    metavar="WORD",
    help="Only memories of this category. May be given several times.",
)
@max_wait_option(None)
@common
def export_command(
    common: Common, wanted: str, output: Path | None, categories: tuple[str, ...], max_wait: float
) -> int:
    """Write all memories of the account, in a form that import reads back.

    With --json, JSON lines with every field that the service gives. How many there were goes to stderr.

    A large account takes more calls than an hour allows: 1000 memories come in each. The export waits for the
    server's quota windows, and says so.
    """
    return run_async(common, _export(common, wanted, output, categories, max_wait))


async def _export(
    common: Common, wanted: str, output: Path | None, categories: tuple[str, ...], max_wait: float
) -> int:
    header, line_of = _writer(common, wanted)
    place = f" to {shortened(output)}" if output is not None else ""
    number = 0
    hidden: ListLimitError | None = None
    async with memories_at_prompt(common, max_wait) as memories:
        try:
            with opened_whole(output) as stream:
                stream.write(header)
                try:
                    async for memory in memories.iterate(page_size=PAGE, categories=categories):
                        stream.write(line_of(memory))
                        number += 1
                except ListLimitError as error:
                    hidden = error  # what the server does show is worth a file all the same
                stream.flush()
        except OmiError as error:
            left = f"lines written: {number:,}" if output is None else f"{shortened(output)} was not written"
            error.add_note(f"The export is not complete; {left}.")
            raise
    print_message(f"{number:,} {'memory' if number == 1 else 'memories'} exported{place}")
    if hidden is not None:
        hidden.add_note("The export is not complete.")
        raise hidden
    return exit_codes.OK


def _writer(common: Common, wanted: str) -> tuple[bytes, Lines]:
    from omi_async.sources.writing import writer_for  # noqa: PLC0415

    if common.as_json:
        return b"", lambda memory: json_line(memory.to_dict())
    writer = writer_for(wanted)  # type: ignore[arg-type]  # click has checked the choice
    end = "\r\n" if wanted == "csv" else "\n"  # RFC 4180
    header = b"" if writer.header is None else f"{writer.header}{end}".encode()
    return header, lambda memory: f"{writer.line_of(memory)}{end}".encode()
