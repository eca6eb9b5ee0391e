"""``omi-async serve``: the stand-in server as a process."""

from __future__ import annotations

import errno
import logging
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from omi_async.cli import exit_codes
from omi_async.cli.logs import logs_to_stderr
from omi_async.cli.options import LOCAL_DB, Command, Common
from omi_async.cli.output import print_json, print_message, print_result
from omi_async.cli.runtime import run_async

if TYPE_CHECKING:
    from omi_async.local import LocalServer, Quota

__all__ = ["serve_command"]


@click.command("serve", cls=Command)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="N",
    help="Listen on this port; 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option(
    "--local",
    "database",
    metavar="[DB]",
    help=f"Keep the memories in this SQLite file. [without DB: {LOCAL_DB}; without --local: only in memory]",
)
@click.option(
    "--quotas",
    type=click.Choice(["none", "documented", "real"]),
    default="none",
    show_default=True,
    help="Hold callers to no quota, to the documented ones (100 calls a minute, 10,000 a day), or to those "
    "that the service's source shows (15 batch calls an hour, ...).",
)
@click.option(
    "--quota",
    "own_quotas",
    multiple=True,
    metavar="N/SECONDS[:CALLS]",
    help="Hold callers to N calls in so many seconds too, such as 15/3600:batch. CALLS are some of list, "
    "create, batch, update and delete, between commas; all if there are none. May be given several times.",
)
@click.option(
    "--chaos",
    type=int,
    metavar="SEED",
    help="Let about one call in ten go wrong, each time the same for one SEED.",
)
@click.option(
    "--no-text-identity",
    is_flag=True,
    help="Behave as older servers did: the same text sent again becomes a second memory.",
)
@click.option(
    "--contended",
    type=click.FloatRange(0, 60),
    is_flag=False,
    flag_value=0.005,
    default=0.0,
    metavar="[SECONDS]",
    help="Let parallel writes of an account race as on the service: some fail with a 500 after a part of a "
    "batch was stored. SECONDS are what one storage call takes. [without SECONDS: 0.005]",
)
@click.option(
    "--accounts",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="Serve so many accounts, each with memories of its own (in DB, DB.2, ...) and a key of its own. The "
    "keys of all but the first are new with each start.",
)
@click.option("--json", "as_json", is_flag=True, help="Print address and key as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each call on stderr.")
def serve_command(quiet: bool, as_json: bool, own_quotas: tuple[str, ...], **options: Any) -> int:
    """Run a stand-in for the Omi service on this machine, until Ctrl-C.

    It behaves as the service does, without an account: for trials, tests and demonstrations. Its key is
    OMI_API_KEY of its environment, or one that it makes. It prints a line to paste into another shell.
    """
    own = _quotas_of(own_quotas)  # before the server starts: a mistake in them is one of usage
    try:
        return run_async(Common(as_json=as_json), _serve(quiet=quiet, as_json=as_json, own=own, **options))
    except OSError as error:
        raise _unusable_address(error, options["host"], options["port"]) from error


async def _serve(
    *, quiet: bool, as_json: bool, host: str, port: int, database: str | None,
    quotas: str, own: list[Quota], chaos: int | None, no_text_identity: bool, contended: float, accounts: int,
) -> int:  # fmt: skip
    from omi_async import local  # noqa: PLC0415  # aiohttp takes its time

    policies = {"none": (), "documented": local.DOCUMENTED_QUOTAS, "real": local.REAL_QUOTAS}
    given_key = os.environ.get("OMI_API_KEY", "").strip() or None

    def ready(server: LocalServer) -> None:
        more_keys = [server.add_account() for _ in range(1, accounts)]
        _announce(server, more_keys, database, key_is_new=given_key is None, as_json=as_json)

    with logs_to_stderr(logging.WARNING if quiet else logging.INFO):
        try:
            await local.serve(
                database,
                ready=ready,
                api_key=given_key,
                host=host,
                port=port,
                text_identity=not no_text_identity,
                contended=contended,
                quotas=(*policies[quotas], *own),
                chaos=None if chaos is None else local.Chaos(chaos),
            )
        except ValueError as error:
            raise exit_codes.CommandError(f"OMI_API_KEY cannot be the key of this server: {error}") from error
    print_message("Stopped.")
    return exit_codes.OK


def _quotas_of(words: Sequence[str]) -> list[Quota]:
    """Read ``N/SECONDS[:CALLS]``. Raises `click.BadParameter`."""
    if not words:
        return []
    from omi_async.local import KINDS, Quota  # noqa: PLC0415  # aiohttp takes its time

    quotas = []
    for text in dict.fromkeys(words):
        rate, _, calls = text.partition(":")
        limit, _, window = rate.partition("/")
        try:
            quotas.append(Quota(text, int(limit), float(window), calls.split(",") if calls else KINDS))
        except ValueError as error:
            raise click.BadParameter(
                f"{text!r} is not N/SECONDS[:CALLS], such as 15/3600:batch ({error})", param_hint="--quota"
            ) from error
    return quotas


def _announce(
    server: LocalServer, more_keys: list[str], database: str | None, *, key_is_new: bool, as_json: bool
) -> None:
    """Print where the server is. A key that came from the environment is known there, and not printed."""
    if as_json:
        keys: dict[str, Any] = {"api_key": server.api_key} if key_is_new else {}
        keys |= {"more_api_keys": more_keys} if more_keys else {}
        print_json({"event": "ready", "url": server.url, **keys, "database": database})
        return
    kept = f"in {database}" if database else "in memory: they end with the server (--local keeps them)"
    print_message(f"Stand-in Omi server at {server.url}; the memories are {kept}. Ctrl-C ends it.")
    key = f" OMI_API_KEY={shlex.quote(server.api_key)}" if key_is_new else ""
    print_result(f"export OMI_API_BASE={server.url}{key}")
    for number, another in enumerate(more_keys, 2):
        print_result(f"# account {number}: export OMI_API_KEY={another}")
    if not key_is_new:
        print_message("Its key is the OMI_API_KEY of this environment.")


def _unusable_address(error: OSError, host: str, port: int) -> exit_codes.CommandError:
    if error.errno == errno.EADDRINUSE:
        return exit_codes.CommandError(
            f"port {port} is in use on {host}; name another one with --port, or 0 for a free one"
        )
    return exit_codes.CommandError(f"cannot listen on {host}, port {port}: {error.strerror or error}")
