"""The group of all commands, and the one place where whatever happens becomes an exit code."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Final

import click

from omi_async._version import __version__
from omi_async.cli import exit_codes
from omi_async.cli.export import export_command
from omi_async.cli.imports.command import import_command
from omi_async.cli.journal import journal_command
from omi_async.cli.key import key_command
from omi_async.cli.logs import logs_to_stderr
from omi_async.cli.memories import (
    create_command,
    delete_command,
    list_command,
    search_command,
    update_command,
)
from omi_async.cli.output import (
    abandon_stdout,
    flush_stdout,
    prepared_streams,
    print_error_document,
    print_events,
    print_message,
)
from omi_async.cli.quotas import quotas_command
from omi_async.cli.serve import serve_command

__all__ = ["cli", "run"]

EPILOG: Final = """\b
Environment:
  OMI_API_KEY     the key (omi_dev_...); taken from here only, so that it stands in no shell history
  OMI_API_BASE    the server, if there is no --base-url
  OMI_ALLOW_HTTP  1: as --allow-http
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE
                  the proxy to the server, servers that are reached without it, and whom to trust
  OMI_LEDGER      the file in which all commands of this machine count what they spend of the key's quotas, so
                  that none spends a window again; without it quotas.db in your directory for state (on Linux
                  ~/.local/state/omi_async); empty: keep none. It holds no key. Not used with --local

\b
Exit codes:
  0    done
  1    usage: a wrong option, an unusable file (also a journal that is in use, damaged or none), a text that
       the server refuses
  2    authentication: no key, a wrong key (401), a missing permission (403), the plan (402)
  3    server or network
  4    out of quota: go on later
  5    no such memory
  6    some facts failed: the report and the failures file say which
  130  interrupted: the same command goes on

Every command explains itself: omi-async import --help"""


HELP: Final = """Bring facts into Omi memories, and memories out.

\b
Try it without an account, in a local file:
  omi-async import facts.jsonl --local
  omi-async list --local"""


@click.group(
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="omi-async", message="%(prog)s %(version)s")
def cli() -> None:
    """Hold the commands."""


for _command in (
    import_command,
    list_command,
    search_command,
    export_command,
    create_command,
    update_command,
    delete_command,
    journal_command,
    quotas_command,
    key_command,
    serve_command,
):
    cli.add_command(_command)


EVENT_STREAMS: Final = frozenset({"import"})
"""Commands whose stdout, with --json, is a stream of events: an error is one of them.

That of the others holds what was asked for and nothing else, so that no reader takes an error for a memory;
their errors go to stderr.
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, whatever happens, and print no traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with prepared_streams(), logs_to_stderr(logging.WARNING):
        try:
            code = cli.main(words, prog_name="omi-async", standalone_mode=False)
            flush_stdout()
        except BaseException as error:  # noqa: BLE001  # the last line of defence
            return _ended_by(error, words)
        return code if isinstance(code, int) else exit_codes.OK


def _ended_by(error: BaseException, words: Sequence[str]) -> int:
    """Print what happened, in words or as JSON, and return the exit code."""
    match error:
        case BrokenPipeError():
            abandon_stdout()  # its reader has enough, as in `omi-async export | head`
            return exit_codes.OK
        case SystemExit():
            return error.code if isinstance(error.code, int) else exit_codes.OK
        case click.exceptions.NoArgsIsHelpError():
            print_message(error.format_message())
            return exit_codes.USAGE
        case click.ClickException() if not isinstance(error, exit_codes.CommandError):
            explanation = exit_codes.Explanation(exit_codes.USAGE, error.format_message(), "UsageError")
            in_words = io.StringIO()
            error.show(in_words)  # with the command's usage
            said = in_words.getvalue().rstrip()
        case _:
            explanation = exit_codes.explanation_of(error)
            said = explanation.in_words()
    if explanation.code == exit_codes.INTERRUPTED:
        said = "\nInterrupted."  # below the ^C that the terminal has put there
    _flush_or_abandon_stdout()
    if "--json" not in words:
        print_message(said)
    elif words[0] in EVENT_STREAMS:
        print_events([explanation.as_json()])
    else:
        print_error_document(explanation.as_json())
    exit_codes.print_traceback_if_wanted(error)
    return explanation.code


def _flush_or_abandon_stdout() -> None:
    """Leave nothing in a broken stdout: it would fail again at the interpreter's end."""
    try:
        flush_stdout()
    except OSError:
        abandon_stdout()
