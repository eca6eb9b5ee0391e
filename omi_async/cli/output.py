"""The two streams: results to stdout, everything for people to stderr. The key appears on neither."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

__all__ = [
    "abandon_stdout",
    "flush_stdout",
    "json_line",
    "opened_whole",
    "prepared_streams",
    "print_event",
    "print_json",
    "print_message",
    "print_result",
    "stdout_bytes",
    "without_key",
]

_SHORTEST_SECRET: Final = 8


def without_key(text: str) -> str:
    """Blot out the API key, should anything ever try to print it."""
    key = os.environ.get("OMI_API_KEY", "").strip()
    return text.replace(key, "***") if len(key) >= _SHORTEST_SECRET else text


def print_message(message: str) -> None:
    """Print a line for people, to stderr, above a progress bar where one stands there."""
    with contextlib.suppress(OSError):  # nobody listens; that is no reason to stop
        # Named, since click would find the stream below the bar's.
        click.echo(without_key(message), file=sys.stderr)


def print_result(line: str) -> None:
    """Print a line of the result, to stdout."""
    click.echo(line)


def print_json(value: Any) -> None:
    """Print a JSON document as one line, to stdout."""
    stream = stdout_bytes()
    stream.write(json_line(value))
    stream.flush()


def print_event(event: Any) -> None:
    """Print an event of a job that goes on also when nobody reads its events any more."""
    try:
        print_json(event)
    except BrokenPipeError:
        abandon_stdout()


def json_line(value: Any) -> bytes:
    """Write JSON and a line end as UTF-8; what is no Unicode text is escaped rather than refused."""
    try:
        return (json.dumps(value, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, default=str) + "\n").encode()


def stdout_bytes() -> BinaryIO:
    """Return stdout for bytes; whoever writes flushes."""
    stream: BinaryIO = sys.stdout.buffer
    return stream


def flush_stdout() -> None:
    """Write out what waits, so that a reader who is gone is noticed here and not at the interpreter's end."""
    sys.stdout.flush()


def abandon_stdout() -> None:
    """Let the interpreter's last flush go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def prepared_streams() -> Iterator[None]:
    """Let no encoding, no thread and no finalizer end in a traceback."""
    _replace_missing()
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")
    before = threading.excepthook, sys.unraisablehook
    threading.excepthook = _one_line
    sys.unraisablehook = _one_line
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


def _replace_missing() -> None:
    """Put nothing in the place of a stream that the process was started without (`omi-async ... >&-`).

    Otherwise the next file to be opened would get its number, and the database be printed to.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, closefd=False))


def _one_line(failure: Any) -> None:
    print_message(f"warning: {failure.exc_type.__name__}: {failure.exc_value}")


@contextmanager
def opened_whole(output: Path | None) -> Iterator[BinaryIO]:
    """Open stdout, or a file beside the wanted one that takes its place at the end."""
    if output is None:
        yield stdout_bytes()
    elif output.exists() and not output.is_file():  # a pipe, /dev/stdout
        with output.open("wb") as stream:
            yield stream
    else:
        draft = output.with_name(f".{output.name}.{os.getpid()}.part")
        try:
            with draft.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)
