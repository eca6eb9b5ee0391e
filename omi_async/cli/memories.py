"""``omi-async list``, ``search``, ``create``, ``update`` and ``delete``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import click

from omi_async.cli import exit_codes
from omi_async.cli.format import printable
from omi_async.cli.options import MAX_WAIT, Command, Common, common, max_wait_option
from omi_async.cli.output import (
    print_document,
    print_lines,
    print_message,
    print_report,
    print_result,
)
from omi_async.cli.runtime import memories_at_prompt, run_async
from omi_async.constants import SEARCH_LIMIT
from omi_async.errors import InvalidFactError, ListLimitError, OmiError
from omi_async.fact import Fact

if TYPE_CHECKING:
    from omi_async.memory import Memory
    from omi_async.resources.memories import Memories

__all__ = ["create_command", "delete_command", "list_command", "search_command", "update_command"]

PAGE: Final = 1000
"""Memories of one call, as many as the server gives: each call spends of an hourly quota."""


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

    On a terminal a table: id, category (and "public" if it is), text and #tags; on a narrow one these below
    each other. Elsewhere one memory a line: id, category, visibility, date of creation, tags (between
    commas) and text, separated by tabs.
    With --json, one object a line, as the service gives it.
    """
    return run_async(common, _list(common, limit, offset, categories, max_wait))


async def _list(common: Common, limit: int, offset: int, categories: tuple[str, ...], max_wait: float) -> int:
    hidden: ListLimitError | None = None
    async with memories_at_prompt(common, max_wait) as memories:
        if limit <= PAGE:
            found = await memories.list(limit=limit, offset=offset, categories=categories)
        else:
            found, hidden = await _slice(memories, limit, offset, categories)
    _print_all(common, found)
    if hidden is not None:
        raise hidden
    return exit_codes.OK


async def _slice(
    memories: Memories, limit: int, offset: int, categories: tuple[str, ...]
) -> tuple[list[Memory], ListLimitError | None]:
    """Read a part of a list that is longer than a page; also why it is shorter than was asked for."""
    found: list[Memory] = []
    every = memories.iterate(page_size=PAGE, categories=categories)
    try:
        async with aclosing(every):  # type: ignore[type-var]  # it is an async generator
            async for memory in every:
                found.append(memory)
                if len(found) >= offset + limit:
                    break
    except ListLimitError as error:
        return found[offset:], error
    return found[offset:], None


def _print_all(common: Common, found: list[Memory]) -> None:
    if common.as_json:
        print_lines(memory.to_dict() for memory in found)
    elif sys.stdout.isatty():
        from omi_async.cli.table import print_rows, row_of  # noqa: PLC0415  # only a terminal needs it

        print_rows([row_of(memory) for memory in found], "category")
    else:
        for memory in found:
            print_result("\t".join(_cells(memory)))


def _cells(memory: Memory) -> list[str]:
    created = memory.created_at.strftime("%Y-%m-%d %H:%M") if memory.created_at else ""
    tags = ",".join(memory.tags)
    cells = (memory.id, memory.category, memory.visibility, created, tags, memory.content)
    return [printable(cell) for cell in cells]


@click.command("search", cls=Command)
@click.argument("query", metavar="TEXT")
@click.option(
    "--limit",
    type=click.IntRange(1, SEARCH_LIMIT),
    default=10,
    show_default=True,
    metavar="N",
    help="Show N memories at most.",
)
@max_wait_option(MAX_WAIT)
@common
def search_command(common: Common, query: str, limit: int, max_wait: float) -> int:
    """Show the memories that fit TEXT best, by their meaning. The service finds new ones after an hour or so.

    On a terminal a table: id, relevance and text. Elsewhere one memory a line: id, relevance and text,
    separated by tabs. With --json, one object a line, as the service gives it.
    """
    return run_async(common, _search(common, query, limit, max_wait))


async def _search(common: Common, query: str, limit: int, max_wait: float) -> int:
    try:
        async with memories_at_prompt(common, max_wait) as memories:
            found = await memories.search(query, limit=limit)
    except ValueError as error:  # of an unusable query
        raise exit_codes.CommandError(str(error)) from error
    if common.as_json:
        print_lines(memory.to_dict() for memory in found)
    elif sys.stdout.isatty():
        from omi_async.cli.table import print_rows, row_of_found  # noqa: PLC0415  # only a terminal needs it

        print_rows([row_of_found(memory) for memory in found], "relevance")
    else:
        for memory in found:
            cells = memory.id, f"{memory.relevance_score:.4f}", memory.content
            print_result("\t".join(map(printable, cells)))
    return exit_codes.OK


VISIBILITY = click.Choice(["private", "public"])


@click.command("create", cls=Command)
@click.argument("text")
@click.option(
    "--category",
    metavar="WORD",
    help="Its category, such as interesting or system. [default: the server chooses]",
)
@click.option("--visibility", type=VISIBILITY, default="private", show_default=True, help="Who may see it.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag. May be given several times.")
@max_wait_option(MAX_WAIT)
@common
def create_command(  # noqa: PLR0917  # click passes each by its name
    common: Common, text: str, category: str | None, visibility: str, tags: tuple[str, ...], max_wait: float
) -> int:
    """Store one memory: TEXT, 1 to 500 characters.

    Prints its id and what the server made of it; with --json the whole memory. The newest servers know a
    memory by its text: the same text again gives the memory that is there, unchanged.
    """
    with _warned_of_doubt("The memory may be stored all the same; `omi-async list` shows it."):
        fact = Fact(text, category=category, visibility=visibility, tags=tags)
        return run_async(common, _create(common, fact, max_wait))


async def _create(common: Common, fact: Fact, max_wait: float) -> int:
    async with memories_at_prompt(common, max_wait, new_database=True) as memories:
        memory = await memories.create(fact)
    _print(common, "stored", memory)
    other = [name for name in ("visibility", "tags") if getattr(memory, name) != getattr(fact, name)]
    # Without a category the server chooses one, which is no change of what was asked for.
    if fact.category not in {None, memory.category}:
        other.insert(0, "category")
    if other:
        print_message(
            f"Not as you asked: its {' and '.join(other)}. The server knew this text before, or chose "
            f"another word; `omi-async update {printable(memory.id)}` changes it."
        )
    return exit_codes.OK


@click.command("update", cls=Command)
@click.argument("memory_id", metavar="ID")
@click.option("--content", metavar="TEXT", help="The new text, 1 to 500 characters.")
@click.option("--visibility", type=VISIBILITY, help="Who may see it from now on.")
@click.option("--category", metavar="WORD", help="Its new category.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Its new tags, in the place of all it has. May be given several times; --tag '' takes all away.",
)
@max_wait_option(MAX_WAIT)
@common
def update_command(  # noqa: PLR0917  # click passes each by its name
    common: Common,
    memory_id: str,
    content: str | None,
    visibility: str | None,
    category: str | None,
    tags: tuple[str, ...],
    max_wait: float,
) -> int:
    """Change the memory ID; what is not named stays as it is.

    Prints its id and what the server made of it; with --json the whole memory.
    """
    if not tags and content is visibility is category is None:
        raise click.UsageError("nothing to change; give --content, --visibility, --category or --tag")

    async def update() -> int:
        async with memories_at_prompt(common, max_wait) as memories:
            memory = await memories.update(
                memory_id,
                content=content,
                visibility=visibility,
                category=category,
                tags=[tag for tag in tags if tag] if tags else None,
            )
        _print(common, "updated", memory)
        return exit_codes.OK

    with _warned_of_doubt("The change may be done all the same, or a part of it; repeating it does no harm."):
        return run_async(common, update())


@click.command("delete", cls=Command)
@click.argument("memory_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask. Needed if there is no terminal to ask on.")
@max_wait_option(MAX_WAIT)
@common
def delete_command(common: Common, memory_id: str, yes: bool, max_wait: float) -> int:
    """Delete the memory ID, permanently."""
    if not yes:
        _ask(memory_id)
    with _warned_of_doubt("The memory may be deleted all the same; deleting it again does no harm."):
        return run_async(common, _delete(common, memory_id, max_wait))


def _ask(memory_id: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("deleting is permanent; give --yes if there is no terminal to ask on")
    if not click.confirm(f"Delete the memory {printable(memory_id)} permanently?", err=True):
        raise exit_codes.CommandError("not deleted")


async def _delete(common: Common, memory_id: str, max_wait: float) -> int:
    async with memories_at_prompt(common, max_wait) as memories:
        await memories.delete(memory_id)
    if common.as_json:
        print_document({"id": memory_id, "deleted": True})
    else:
        print_report(f"deleted {memory_id}")
    return exit_codes.OK


@contextlib.contextmanager
def _warned_of_doubt(words: str) -> Iterator[None]:
    """Say what may have happened when an answer was lost; let unusable values be the user's error."""
    try:
        yield
    except InvalidFactError:
        raise
    except OmiError as error:
        if error.maybe_applied:
            error.add_note(words)
        raise
    except ValueError as error:
        raise exit_codes.CommandError(str(error)) from error


def _print(common: Common, verb: str, memory: Memory) -> None:
    if common.as_json:
        print_document(memory.to_dict())
        return
    details = [memory.category, memory.visibility, *(f"#{tag}" for tag in memory.tags)]
    print_report(f"{verb} {memory.id} ({', '.join(details)})")
