"""The two streams: results to stdout, everything for people to stderr. The key appears on neither.

Either may break while a command is at work: a full disk, a terminal that is closed, a pipe that is not read.
An error of stdout names it; what cannot be written to stderr is lost, and stops nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import click

from omi_async.cli.format import described, printable

__all__ = [
    "PRIVATE_FILE",
    "NamedFile",
    "abandon_stdout",
    "flush_stdout",
    "json_line",
    "opened_whole",
    "prepared_streams",
    "print_document",
    "print_error_document",
    "print_events",
    "print_json",
    "print_lines",
    "print_message",
    "print_report",
    "print_result",
    "stdout_bytes",
    "without_key",
]

PRIVATE_FILE: Final = 0o600
"""The mode of what is written: facts about a person are no business of the machine's other users."""

LONGEST_LINE: Final = 5000
"""Characters of a line for people. The library keeps a server's words short; a path alone may have 4,096."""

_SHORTEST_SECRET: Final = 8
"""Characters below which a key is not blotted out: one such as "k" would take each k out of a text."""


def without_key(text: str) -> str:
    """Blot out the API key, should anything ever try to print it."""
    key = os.environ.get("OMI_API_KEY", "").strip()
    return text.replace(key, "***") if len(key) >= _SHORTEST_SECRET else text


def print_message(message: str) -> None:
    """Print lines for people, to stderr, above a progress bar if one stands there."""
    # Named, since click would find the stream below the bar's.
    with contextlib.suppress(OSError):
        click.echo(_for_people(without_key(message)), file=sys.stderr)


def _for_people(text: str) -> str:
    """Make lines harmless that may hold a server's words: no control characters, no megabytes."""
    return "\n".join(printable(line[:LONGEST_LINE]) for line in text.split("\n"))


def print_result(line: str) -> None:
    """Print a line of the result, to stdout."""
    click.echo(line)


def print_report(text: str) -> None:
    """Print what must reach the user: to stdout, and to stderr if that is broken."""
    try:
        print_result(_for_people(text))
        flush_stdout()
    except OSError as error:
        _print_instead(text, error)


def _print_instead(text: str, error: OSError) -> None:
    abandon_stdout()
    print_message(f"warning: {described(error)}; the result is written here instead.\n{text}")


def print_document(value: Any) -> None:
    """Print a JSON document that must reach its reader: to stdout, and to stderr if that is broken."""
    try:
        print_json(value)
    except OSError as error:
        _print_instead(json_line(value).decode().rstrip("\n"), error)


def print_error_document(value: Any) -> None:
    """Print a JSON document as one line, to stderr."""
    with contextlib.suppress(OSError):
        click.echo(without_key(json.dumps(value, default=str)), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a JSON document as one line, to stdout."""
    print_lines([value])


def print_lines(values: Iterable[Any]) -> None:
    """Print JSON documents, one a line, to stdout."""
    stream = stdout_bytes()
    for value in values:
        stream.write(json_line(value))
    stream.flush()


def print_events(events: Iterable[Any]) -> None:
    """Print the events of a job that goes on also when they cannot be written any more."""
    try:
        print_lines(events)
    except OSError as error:
        abandon_stdout()
        if not isinstance(error, BrokenPipeError):  # a reader that has enough, as in `| head`, knows it
            print_message(f"warning: {described(error)}; what follows is not written there.")


def json_line(value: Any) -> bytes:
    """Write JSON and a line end as UTF-8; what is no Unicode text is escaped rather than refused."""
    try:
        return (json.dumps(value, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, default=str) + "\n").encode()


def stdout_bytes() -> BinaryIO:
    """Return stdout for bytes; who writes to it flushes it."""
    stream: BinaryIO = sys.stdout.buffer
    return stream


def flush_stdout() -> None:
    """Write out what waits, so that a broken stream is noticed here and not at the interpreter's end."""
    sys.stdout.flush()


def abandon_stdout() -> None:
    """Let whatever is still written to stdout go nowhere, the interpreter's last flush included."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class NamedFile(io.FileIO):
    """A file whose errors name it: the system's words alone ("No space left on device") leave that open."""

    def __init__(self, file: Path | int, mode: str, name: str, *, closefd: bool = True) -> None:
        super().__init__(file, mode, closefd=closefd, opener=_opened_privately)
        self._words = name

    def write(self, data: Any, /) -> int:
        """Write, and name the file if that fails."""
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._words) from None


def _opened_privately(path: str, flags: int) -> int:
    """Open, and make the file, if it is not there, for its owner alone."""
    return os.open(path, flags, PRIVATE_FILE)


class _LossyFile(io.FileIO):
    """A file that takes everything, and loses what cannot be written.

    The progress bar draws itself, also in a thread of its own. An error there would be that of the import,
    whose report is still to come.
    """

    def write(self, data: Any, /) -> int:
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


@contextlib.contextmanager
def prepared_streams() -> Iterator[None]:
    """Let no encoding, no broken stream, no thread and no finalizer end in a traceback."""
    _replace_missing()
    before = sys.stdout, sys.stderr, threading.excepthook, sys.unraisablehook
    sys.stdout = _over(sys.stdout, lambda number: NamedFile(number, "w", "standard output", closefd=False))
    sys.stderr = _over(sys.stderr, lambda number: _LossyFile(number, "w", closefd=False))
    threading.excepthook = _one_line
    sys.unraisablehook = _one_line
    try:
        yield
    finally:
        sys.stdout, sys.stderr, threading.excepthook, sys.unraisablehook = before


def _over(stream: TextIO, opened: Any) -> TextIO:
    """Return a stream to the same place over a file of ours; the same one, if it writes to no real file."""
    stream.flush()
    try:
        raw = opened(stream.fileno())
    except (OSError, ValueError):  # such as those with which tests read what is printed
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=bool(stream.line_buffering),
    )


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
    """Open stdout, or a file beside the wanted one that takes its place at the end.

    A symbolic link stays one, and what it points to is written; a file that is there keeps its mode.
    """
    if output is None:
        yield stdout_bytes()
        return
    if _is_no_plain_file(output):
        with io.BufferedWriter(NamedFile(output, "w", str(output))) as stream:
            yield stream
        return
    target = output.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with io.BufferedWriter(NamedFile(draft, "x", str(output))) as stream:
            if target.exists():
                draft.chmod(stat.S_IMODE(target.stat().st_mode))
            yield stream
            stream.flush()
            # Before it takes the other's place; else the name may stand for nothing after a crash.
            os.fsync(stream.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _is_no_plain_file(output: Path) -> bool:
    """Return whether a path is a pipe or a device, which nothing can take the place of."""
    return str(output).startswith(("/dev/", "/proc/")) or (output.exists() and not output.is_file())
