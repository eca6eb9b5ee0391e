"""Memories on a terminal, of whatever width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from omi_async.cli.format import printable
from omi_async.memory import FoundMemory, Memory

__all__ = ["Row", "print_rows", "row_of", "row_of_found"]

WIDE_ENOUGH: Final = 100
"""Columns from which on a table has room for the texts.

An id alone takes 36 of them, and it must not be broken: it is there to be copied into another command.
"""


class Row(NamedTuple):
    """What is shown of a memory: its id, what is to be known about it, its text, its tags."""

    id: str
    about: str
    text: str
    tags: str = ""


def row_of(memory: Memory) -> Row:
    """Return what is shown of a memory; that it is private is not, for most are."""
    public = memory.visibility != "private"
    about = f"{memory.category} {memory.visibility}" if public else memory.category
    return Row(memory.id, about, memory.content, " ".join(f"#{tag}" for tag in memory.tags))


def row_of_found(memory: FoundMemory) -> Row:
    """Return what is shown of a memory that was found: how well it fits, for its category says nothing."""
    return Row(memory.id, f"{memory.relevance_score:.2f}", memory.content)


def print_rows(rows: Sequence[Row], about: str) -> None:
    """Print memories to stdout, as a table if there is room for one, and how many they are."""
    console = Console()
    console.print(_table(rows, about) if console.width >= WIDE_ENOUGH else _column(rows))
    console.print(Text("1 memory" if len(rows) == 1 else f"{len(rows):,} memories"))


def _table(rows: Sequence[Row], about: str) -> RenderableType:
    table = Table("id", about, "text", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for row in rows:
        # As Text, for rich would take brackets in a memory for styles.
        cells = (row.id, row.about, f"{row.text} {row.tags}".rstrip())
        table.add_row(*[Text(printable(cell)) for cell in cells])
    return table


def _column(rows: Sequence[Row]) -> RenderableType:
    """Give each text the whole width; what is about it stands below, the id on a line of its own."""
    table = Table.grid(padding=(0, 0, 1, 0))
    for row in rows:
        about = Table.grid()
        about.add_row(Text(printable(f"{row.about} {row.tags}".rstrip()), style="dim"))
        about.add_row(Text(printable(row.id), style="dim", no_wrap=True, overflow="fold"))
        entry = Table.grid()
        entry.add_row(Text(printable(row.text)))
        entry.add_row(Padding(about, (0, 0, 0, 2)))
        table.add_row(entry)
    return table
