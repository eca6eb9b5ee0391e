"""The options that every command has, and the values that need reading."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import click

__all__ = ["IN_MEMORY", "LOCAL_DB", "MAX_WAIT", "Command", "Common", "common", "fields_of", "max_wait_option"]

LOCAL_DB: Final = "omi-local.db"

IN_MEMORY: Final = frozenset({"", ":memory:"})
"""Databases that end with the process, as SQLite names them."""

DATABASES: Final = (".db", ".sqlite", ".sqlite3")

MAX_WAIT: Final = 60.0
"""Seconds that a command waits for quotas: a window of a minute is waited out, one of an hour is not."""

Own = ParamSpec("Own")
F = TypeVar("F", bound=Callable[..., object])


class Common(NamedTuple):
    """What every command was told: where the server is, and how to speak."""

    base_url: str | None = None
    local: str | None = None
    allow_http: bool = False
    timeout: float | None = None
    as_json: bool = False
    verbose: bool = False


class Command(click.Command):
    """A command whose ``--local`` takes the next word only if that is a database's name.

    So ``import --local facts.jsonl`` reads facts.jsonl, and does not take it for the database.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join ``--local`` with its value, or with the default one; explain what is too much."""
        ctx.allow_extra_args = True  # click's own words for them give no hint
        rest = super().parse_args(ctx, _with_local_joined(args))
        if rest and not ctx.resilient_parsing:
            ctx.fail(
                f"Got unexpected extra {'argument' if len(rest) == 1 else 'arguments'} ({' '.join(rest)})"
                + _quoted_hint(ctx, rest)
            )
        return rest


TEXTS: Final = ("text", "query", "content")
"""Parameters that hold a text, one of which a command has at most."""


def _quoted_hint(ctx: click.Context, rest: Sequence[str]) -> str:
    """Return how to give a text of several words, such as that of ``create Likes tea``."""
    text = next((text for name in TEXTS if (text := ctx.params.get(name))), None)
    if text is None:
        return ""
    whole = shlex.quote(" ".join([text, *rest]))
    return f". A text of several words is one argument in quotes: {whole}"


def _with_local_joined(args: Sequence[str]) -> list[str]:
    words = list(args)
    end = words.index("--") if "--" in words else len(words)
    for place in reversed(range(end)):
        if words[place] == "--local":
            named = place + 1 < end and words[place + 1].endswith(DATABASES)
            database = words.pop(place + 1) if named else LOCAL_DB
            words[place] = f"--local={database}"
    return words


_OPTIONS: Final = (
    click.option(
        "--base-url", metavar="URL", help="The server. [default: OMI_API_BASE, else https://api.omi.me]"
    ),
    click.option(
        "--local",
        metavar="[DB]",
        help="Use the stand-in server that is built in, and its SQLite file DB, instead of the service: no "
        f"account and no key needed. DB ends in {', '.join(DATABASES)}; give another name as --local=DB. "
        f"[without DB: {LOCAL_DB} in this directory]",
    ),
    click.option(
        "--allow-http",
        is_flag=True,
        help="Allow a plain http:// server on another machine. The key then crosses the network in clear.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Wait so long for an answer to one call. [default: 30, and 120 for a batch]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a line, for programs."),
    click.option(
        "-v", "--verbose", is_flag=True, help="Show every call on stderr (never a text, never the key)."
    ),
)


def common(function: Callable[Concatenate[Common, Own], int]) -> Callable[..., int]:
    """Give a command the common options, as one first argument of type `Common`."""

    @functools.wraps(function)
    def command(  # noqa: PLR0917  # click passes each by its name
        base_url: str | None,
        local: str | None,
        allow_http: bool,
        timeout: float | None,
        as_json: bool,
        verbose: bool,
        *args: Own.args,
        **own: Own.kwargs,
    ) -> int:
        if local is not None and base_url is not None:
            raise click.UsageError("--local and --base-url name two different servers; give one of them")
        chosen = Common(base_url, local, allow_http, timeout, as_json, verbose)
        return function(chosen, *args, **own)

    decorated: Callable[..., int] = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def max_wait_option(default: float | None) -> Callable[[F], F]:
    """Let a command be told how long to wait for quotas; None waits for any."""
    shown = "wait for any" if default is None else f"{default:g}"
    return click.option(
        "--max-wait",
        type=click.FloatRange(min=0),
        default=float("inf") if default is None else default,
        metavar="SECONDS",
        help="Wait so long for the server's quota windows, in all; if the next one opens later, end with "
        f"exit code 4 and say when that is. [default: {shown}]",
    )


def fields_of(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``FIELD=KEY`` pairs; no key takes a field from nowhere. Raises `click.BadParameter`."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        field, equals, key = pair.partition("=")
        if not (field and equals and (key or field != "content")):
            raise click.BadParameter(f"{pair!r} is not FIELD=KEY, such as content=text", param_hint="--map")
        mapping[field] = key
    return mapping
