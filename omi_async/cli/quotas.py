"""``omi-async quotas``: what earlier commands have learned of the server's quotas."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from omi_async.cli import exit_codes
from omi_async.cli.format import local_time, plural, shortened, until_in_words
from omi_async.cli.ledger import ledger_path
from omi_async.cli.options import Command, Common, common
from omi_async.cli.output import print_json, print_message, print_report

if TYPE_CHECKING:
    from pathlib import Path

    from omi_async._quota.policy import QuotaState
    from omi_async._quota.store import KeptQuotas

__all__ = ["quotas_command"]


@click.command("quotas", cls=Command, short_help="Show or forget what was learned of the server's quotas.")
@click.option(
    "--forget",
    "forgetting",
    is_flag=True,
    help="Forget it, such as when the server's limits were raised; the next command learns them again "
    "from the first refusal.",
)
@common
def quotas_command(common: Common, forgetting: bool) -> int:
    """Show what the commands of this machine have learned of quotas, and what is spent of them.

    It stands in the file that OMI_LEDGER names, for each server and key; with --base-url only what is known
    of that server. The key itself is not in it. No call is made.
    """
    path = ledger_path()
    if path is None or common.local is not None:
        raise exit_codes.CommandError("no file of quotas is kept here (an empty OMI_LEDGER, or --local)")
    server = None if common.base_url is None else common.base_url.rstrip("/")
    return _forget(common, path, server) if forgetting else _show(common, path, server)


def _show(common: Common, path: Path, server: str | None) -> int:
    from omi_async._quota.store import fingerprint, kept  # noqa: PLC0415  # the library takes its time

    mine = fingerprint(os.environ.get("OMI_API_KEY", "").strip())
    rows = [row for row in kept(path, time.time()) if server in {None, row.server}]
    if common.as_json:
        for row in rows:
            print_json(_record(row, mine))
    elif rows:
        print_report("\n".join([line for row in rows for line in _lines(row, mine)]))
    else:
        print_message(f"Nothing is known of quotas yet ({shortened(path)}).")
    return exit_codes.OK


def _record(row: KeptQuotas, mine: str) -> dict[str, object]:
    return {
        "server": row.server,
        "key": row.account,
        "yours": row.account == mine,
        "updated": row.updated.isoformat(timespec="seconds"),
        "quotas": [state.to_dict() for state in row.quotas],
    }


def _lines(row: KeptQuotas, mine: str) -> Sequence[str]:
    # Of another key its fingerprint's beginning: enough to tell two of them apart.
    whose = "your key" if row.account == mine else f"another key ({row.account[:8]})"
    head = f"{row.server}, {whose}, learned at {local_time(row.updated)}:"
    return [head, *(f"  {_in_words(state)}" for state in row.quotas)]


def _in_words(state: QuotaState) -> str:
    name = f"{state.policy} ({', '.join(sorted(state.kinds))})"
    if state.opens_at is not None:
        return f"{name}: used up, opens {until_in_words(state.opens_at.timestamp() - time.time())}"
    of = "" if state.limit is None else f" of {state.limit:,}"
    return f"{name}: {state.used:,}{of} used"


def _forget(common: Common, path: Path, server: str | None) -> int:
    from omi_async._quota.store import forget  # noqa: PLC0415  # the library takes its time

    number = forget(path, server=server)
    if common.as_json:
        print_json({"event": "forgotten", "path": str(path), "keys": number})
    else:
        print_report(f"The quotas of {plural(number, 'key')} forgotten.")
    return exit_codes.OK
