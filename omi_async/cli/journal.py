"""``omi-async journal``: what a journal holds, for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from omi_async.cli import exit_codes
from omi_async.cli.format import STATES, facts_are, plural, printable, shortened
from omi_async.cli.imports.reference import journal_reference
from omi_async.cli.output import json_line, opened_whole, print_json, print_message, print_result

if TYPE_CHECKING:
    from omi_async.importing.journal.journal import Journal
    from omi_async.importing.journal.row import Entry

__all__ = ["journal_command"]

SHOWN: Final = 20
"""Facts that `journal show` names one by one: what fits on a screen; `journal export` has all."""

FORGETTABLE: Final = ("unknown", "rejected", "invalid", "created", "existing")
STORED: Final = frozenset({"created", "existing"})
NOT_STORED: Final = tuple(state for state in FORGETTABLE if state not in STORED)

_path = click.argument("path", metavar="PATH", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a line, for programs.")


@click.group("journal", short_help="Show, export or forget what a journal holds.")
def journal_command() -> None:
    """Look into the journal of an import: what was sent, and what became of it.

    A journal stands beside the first file that was imported (facts.jsonl.journal), unless the import was
    given another place. It holds no key. One process may use it at a time: not while its import runs.
    """


@journal_command.command("show", short_help="Show what is in which state, and what is not safely stored.")
@_path
@_json
def show_command(path: Path, as_json: bool) -> int:
    """Show how many facts are in which state at which server, and which are not safely stored.

    With --json, first one object with the counts, then one for each fact that is not safely stored.
    """
    with closing(_opened(path)) as journal:
        counts = journal.counts()
        if as_json:
            print_json({"event": "journal", "path": str(path), "servers": counts})
            for entry in journal.unfinished():
                print_json({"event": "fact", **_record(entry)})
        else:
            _show(journal, counts)
    return exit_codes.OK


def _show(journal: Journal, counts: Mapping[str, Mapping[Any, int]]) -> None:
    if not counts:
        print_result("No fact was sent yet.")
    for server, of_server in counts.items():
        print_result(
            printable(f"{server}: {plural(sum(of_server.values()), 'fact')}: {_in_words(of_server)}")
        )
    unfinished = sum(
        n for of_server in counts.values() for state, n in of_server.items() if state not in STORED
    )
    if not unfinished:
        return
    print_result(f"{facts_are(unfinished)} not safely stored:")
    for _, entry in zip(range(SHOWN), journal.unfinished(), strict=False):
        text = "(its text is not in the journal)" if entry.fact is None else entry.fact["content"]
        words = f": {entry.error}" if entry.error else ""
        print_result(printable(f"  {entry.state.replace('_', ' ')}: {text}{words}"))
    if unfinished > SHOWN:
        print_result(f"  ... and {unfinished - SHOWN:,} more; omi-async journal export writes all of them")
    print_result(_HOW_TO_GO_ON)


_HOW_TO_GO_ON: Final = """\
To go on, repeat the import with this journal: what is unknown is looked for at the server, what was not sent
is sent, and what is settled costs no call. What is rejected is not sent again, unless it is fixed (omi-async
journal export) or forgotten (omi-async journal forget --state rejected)."""


@journal_command.command("export", short_help="Write what is not safely stored, for import.")
@_path
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write this file, which appears when it is complete and not before. [default: stdout]",
)
def export_command(path: Path, output: Path | None) -> int:
    """Write the facts that are not safely stored as JSON lines, which import reads.

    Each line has the fact, its state and the reason, and names the journal: import uses it, so that facts in
    doubt are looked for and not sent blindly. Read from a pipe, import - needs to be told: --journal PATH.
    Exits 6 if facts are left out, because the journal does not hold their texts: it was made without, or
    they were stored and then forgotten.
    """
    if output is not None and output.exists() and output.samefile(path):
        raise click.UsageError("the journal cannot be written over with what is in it")
    # By its whole path: what is exported may go to another folder, or through a pipe.
    reference = {"journal": journal_reference(path)}
    written = left_out = 0
    with closing(_opened(path)) as journal, opened_whole(output) as stream:
        for entry in journal.unfinished():
            if entry.fact is None:
                left_out += 1
            else:
                stream.write(json_line(_record(entry) | reference))
                written += 1
        stream.flush()
    print_message(f"{plural(written, 'fact')} exported{f' to {shortened(output)}' if output else ''}")
    if left_out:
        print_message(f"{facts_are(left_out)} left out: the journal does not hold their texts.")
    return exit_codes.SOME_FAILED if left_out else exit_codes.OK


@journal_command.command("forget", short_help="Let the next import send facts again, without looking.")
@_path
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(FORGETTABLE),
    help="Facts in this state. May be given several times. [default: all that is not safely stored: "
    "unknown, rejected, invalid]",
)
@click.option("--yes", is_flag=True, help="Do not ask. Needed if there is no terminal to ask on.")
@_json
def forget_command(path: Path, states: Sequence[str], yes: bool, as_json: bool) -> int:
    """Forget facts in some states, so that the next import sends them again, without looking for them.

    On a server that does not know a memory by its text, what is unknown may be stored twice then, and what is
    created or existing will be. Facts of all servers in the journal are forgotten.
    """
    chosen = tuple(dict.fromkeys(states or NOT_STORED))
    with closing(_opened(path)) as journal:
        counts = {
            server: found
            for server, of_server in journal.counts().items()
            if (found := {state: n for state, n in of_server.items() if state in chosen})
        }
        if counts and not yes:
            _ask(counts)
        forgotten = journal.forget(*chosen)  # type: ignore[arg-type]  # click has checked the choice
    if as_json:
        print_json({"event": "forgotten", "path": str(path), "states": chosen, "facts": forgotten})
    else:
        end = "; the next import sends them." if forgotten else "."
        print_result(f"{plural(forgotten, 'fact')} forgotten{end}")
    return exit_codes.OK


def _ask(counts: Mapping[str, Mapping[Any, int]]) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "what is forgotten is sent again without looking; give --yes if there is no terminal to ask on"
        )
    for server, of_server in counts.items():
        print_message(printable(f"{server}: {_in_words(of_server)}"))
    may_be = "will" if any(STORED.intersection(of_server) for of_server in counts.values()) else "may"
    print_message(
        "The next import sends these facts again, without looking for them. A server that does not know a "
        f"memory by its text {may_be} store them twice."
    )
    if not click.confirm("Forget them?", err=True):
        raise exit_codes.CommandError("nothing was forgotten")


def _opened(path: Path) -> Journal:
    """Open a journal that is there; nothing is made of an empty file. Raises `JournalError`."""
    from omi_async.importing.journal.journal import Journal  # noqa: PLC0415  # the library takes its time

    # SQLite would make a journal of it, and the user's slip of the pen a file that looks like one.
    if not path.stat().st_size:
        raise exit_codes.CommandError(f"{shortened(path)} is no journal of omi_async: it is empty")
    journal = Journal(path)
    journal.open()
    return journal


def _record(entry: Entry) -> dict[str, Any]:
    error = entry.error or entry.state
    return {**(entry.fact or {}), "state": entry.state, "error": error, "server": entry.server}


def _in_words(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{counts[state]:,} {state.replace('_', ' ')}" for state in STATES if counts.get(state))
