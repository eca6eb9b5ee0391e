"""``omi-async list``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from omi_async.cli import exits
from omi_async.cli.options import MAX_WAIT, Command, Common, common, max_wait_option
from omi_async.cli.output import json_line, put, stdout_bytes
from omi_async.cli.running import connected, run_async
from omi_async.cli.words import printable

if TYPE_CHECKING:
    from omi_async.models import Memory
    from omi_async.resources.memories import Memories

__all__ = ["list_command"]

PAGE = 1000


@click.command("list", cls=Command)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=25,
    show_default=True,
    metavar="N",
    help="Show N memories at most; above 1000 they are read page by page.",
)
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Pass over the first N.",
)
@click.option(
    "--category",
    "categories",
    multiple=True,
    metavar="WORD",
    help="Only memories of this category. May be given several times.",
)
@max_wait_option(MAX_WAIT)
@common
def list_command(
    common: Common, limit: int, offset: int, categories: tuple[str, ...], max_wait: float
) -> int:
    """Show memories, in the server's order.

    On a terminal a table: id, category (and "public" where it is), text and #tags. Elsewhere one memory a
    line: id, category, visibility, date of creation, tags (between commas) and text, separated by tabs.
    With --json, one object a line, as the service gives it.
    """
    return run_async(common, _list(common, limit, offset, categories, max_wait))


async def _list(common: Common, limit: int, offset: int, categories: tuple[str, ...], max_wait: float) -> int:
    async with connected(common, max_wait=max_wait) as memories:
        if limit <= PAGE:
            found = await memories.list(limit=limit, offset=offset, categories=categories)
        else:
            found = [memory async for memory in _slice(memories, limit, offset, categories)]
    if common.as_json:
        _print_json(found)
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        for memory in found:
            put("\t".join(_cells(memory)))
    return exits.OK


async def _slice(
    memories: Memories, limit: int, offset: int, categories: tuple[str, ...]
) -> AsyncIterator[Memory]:
    number = 0
    async with aclosing(memories.iterate(page_size=PAGE, categories=categories)) as every:  # type: ignore[type-var]
        async for memory in every:
            if number >= offset + limit:
                return
            if number >= offset:
                yield memory
            number += 1


def _cells(memory: Memory) -> list[str]:
    created = memory.created_at.strftime("%Y-%m-%d %H:%M") if memory.created_at else ""
    tags = ",".join(memory.tags)
    cells = (memory.id, memory.category, memory.visibility, created, tags, memory.content)
    return [printable(cell) for cell in cells]


def _print_json(memories: Iterable[Memory]) -> None:
    from omi_async._codec import memory_payload  # noqa: PLC0415  # loaded by now

    stream = stdout_bytes()
    for memory in memories:
        stream.write(json_line(memory_payload(memory)))
    stream.flush()


def _print_table(memories: list[Memory]) -> None:
    from rich import box  # noqa: PLC0415  # only a terminal needs it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("id", "category", "text", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for memory in memories:
        category = (
            memory.category if memory.visibility == "private" else f"{memory.category} {memory.visibility}"
        )
        text = " ".join([memory.content, *(f"#{tag}" for tag in memory.tags)])
        table.add_row(*[Text(printable(cell)) for cell in (memory.id, category, text)])
    console = Console()
    console.print(table)
    console.print(Text("1 memory" if len(memories) == 1 else f"{len(memories):,} memories"))
