"""``omi-async create``, ``update`` and ``delete``: one memory, one call."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from omi_async.cli import exits
from omi_async.cli.options import MAX_WAIT, Command, Common, common, max_wait_option
from omi_async.cli.output import put, put_json, say
from omi_async.cli.running import connected, run_async
from omi_async.cli.words import printable
from omi_async.errors import InvalidFactError, OmiError

if TYPE_CHECKING:
    from omi_async.models import Memory

__all__ = ["create_command", "delete_command", "update_command"]

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
def create_command(
    common: Common, text: str, *, tags: tuple[str, ...], max_wait: float, **given: str | None
) -> int:
    """Store one memory: TEXT, 1 to 500 characters.

    Prints its id and what the server made of it; with --json the whole memory. The newest servers know a
    memory by its text: the same text again gives the memory that is there, unchanged.
    """
    return run_async(common, _create(common, text, {**given, "tags": tags}, max_wait))


async def _create(common: Common, text: str, wanted: dict[str, Any], max_wait: float) -> int:
    with _warned_of_doubt("The memory may be stored all the same; `omi-async list` shows it."):
        async with connected(common, max_wait=max_wait) as memories:
            memory = await memories.create(text, **wanted)
    _print(common, "stored", memory)
    wanted = {**wanted, "category": wanted["category"] or memory.category}
    if other := [name for name, value in wanted.items() if getattr(memory, name) != value]:
        say(
            f"Not as you asked: its {' and '.join(other)}. The server knew this text before, or chose "
            f"another word; `omi-async update {printable(memory.id)}` changes it."
        )
    return exits.OK


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
def update_command(
    common: Common, memory_id: str, *, tags: tuple[str, ...], max_wait: float, **given: str | None
) -> int:
    """Change the memory ID; what is not named stays as it is.

    Prints its id and what the server made of it; with --json the whole memory.
    """
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if tags:
        changes["tags"] = [tag for tag in tags if tag]
    if not changes:
        raise click.UsageError("nothing to change; give --content, --visibility, --category or --tag")
    return run_async(common, _update(common, memory_id, changes, max_wait))


async def _update(common: Common, memory_id: str, changes: dict[str, Any], max_wait: float) -> int:
    with _warned_of_doubt("The change may be done all the same, or a part of it; repeating it does no harm."):
        async with connected(common, max_wait=max_wait) as memories:
            memory = await memories.update(memory_id, **changes)
    _print(common, "updated", memory)
    return exits.OK


@click.command("delete", cls=Command)
@click.argument("memory_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
@max_wait_option(MAX_WAIT)
@common
def delete_command(common: Common, memory_id: str, yes: bool, max_wait: float) -> int:
    """Delete the memory ID, permanently."""
    if not yes:
        _ask(memory_id)
    return run_async(common, _delete(common, memory_id, max_wait))


def _ask(memory_id: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("deleting is permanent; give --yes where there is no terminal to ask on")
    if not click.confirm(f"Delete the memory {printable(memory_id)} permanently?", err=True):
        raise exits.CommandError("not deleted")


async def _delete(common: Common, memory_id: str, max_wait: float) -> int:
    with _warned_of_doubt("The memory may be deleted all the same; deleting it again does no harm."):
        async with connected(common, max_wait=max_wait) as memories:
            await memories.delete(memory_id)
    if common.as_json:
        put_json({"id": memory_id, "deleted": True})
    else:
        put(f"deleted {printable(memory_id)}")
    return exits.OK


@contextlib.contextmanager
def _warned_of_doubt(words: str) -> Iterator[None]:
    """Say what may have happened where an answer was lost; let unusable values be the user's error."""
    try:
        yield
    except InvalidFactError:
        raise
    except OmiError as error:
        if error.maybe_applied:
            error.add_note(words)
        raise
    except ValueError as error:
        raise exits.CommandError(str(error)) from error


def _print(common: Common, verb: str, memory: Memory) -> None:
    from omi_async._codec import memory_payload  # noqa: PLC0415  # loaded by now

    if common.as_json:
        put_json(memory_payload(memory))
        return
    details = [memory.category, memory.visibility, *(f"#{tag}" for tag in memory.tags)]
    put(printable(f"{verb} {memory.id} ({', '.join(details)})"))
