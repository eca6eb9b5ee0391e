"""Memories on a terminal, of whatever width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from omi_async.cli.format import printable
from omi_async.memory import Memory

__all__ = ["print_memories"]

WIDE_ENOUGH: Final = 100
"""Columns from which on a table has room for the texts.

An id alone takes 36 of them, and it must not be broken: it is there to be copied into another command.
"""


def print_memories(memories: Sequence[Memory]) -> None:
    """Print memories to stdout, as a table if there is room for one, and how many they are."""
    console = Console()
    console.print(_table(memories) if console.width >= WIDE_ENOUGH else _column(memories))
    console.print(Text("1 memory" if len(memories) == 1 else f"{len(memories):,} memories"))


def _table(memories: Sequence[Memory]) -> RenderableType:
    table = Table("id", "category", "text", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for memory in memories:
        text = " ".join([memory.content, *_tags(memory)])
        table.add_row(*[Text(printable(cell)) for cell in (memory.id, _category(memory), text)])
    return table


def _column(memories: Sequence[Memory]) -> RenderableType:
    """Give each text the whole width; what is about it stands below, the id on a line of its own."""
    table = Table.grid(padding=(0, 0, 1, 0))
    for memory in memories:
        about = Table.grid()
        about.add_row(Text(printable(" ".join([_category(memory), *_tags(memory)])), style="dim"))
        about.add_row(Text(printable(memory.id), style="dim", no_wrap=True, overflow="fold"))
        entry = Table.grid()
        entry.add_row(Text(printable(memory.content)))
        entry.add_row(Padding(about, (0, 0, 0, 2)))
        table.add_row(entry)
    return table


def _category(memory: Memory) -> str:
    return memory.category if memory.visibility == "private" else f"{memory.category} {memory.visibility}"


def _tags(memory: Memory) -> list[str]:
    return [f"#{tag}" for tag in memory.tags]
