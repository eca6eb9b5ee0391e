"""``omi-async key``: what the server says of the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from omi_async.cli import exit_codes
from omi_async.cli.options import Command, Common, common
from omi_async.cli.output import print_json, print_report
from omi_async.cli.runtime import connected, run_async
from omi_async.errors import NotFoundError

if TYPE_CHECKING:
    from omi_async.key import KeyInfo

__all__ = ["key_command"]


@click.command("key", cls=Command, short_help="Show which key this is, and what it may do.")
@common
def key_command(common: Common) -> int:
    """Show what the server says of the key in OMI_API_KEY: which one it is, and what it may do.

    It takes one call, which spends no quota of memories: the way to find out whether a key is good.
    """
    return run_async(common, _show(common))


async def _show(common: Common) -> int:
    async with connected(common) as session:
        try:
            info = await session.key_info()
        except NotFoundError as error:
            # Not by the code for "no such memory", and without the advice that goes with that.
            raise exit_codes.CommandError(str(error), exit_codes.SERVER) from error
    if common.as_json:
        print_json(info.to_dict())
    else:
        print_report("\n".join(f"{name:<10}{text}" for name, text in _lines(info).items() if text))
    return exit_codes.OK


def _lines(info: KeyInfo) -> dict[str, str]:
    return {
        "name": info.name,
        "key": info.key_prefix,
        "may": ", ".join(info.scopes) or "(no scopes are named)",
        "made": f"{info.created_at:%Y-%m-%d %H:%M %Z}" if info.created_at else "",
        "last used": f"{info.last_used_at:%Y-%m-%d %H:%M %Z}" if info.last_used_at else "",
        "id": info.id,
    }
