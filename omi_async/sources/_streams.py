"""Where bytes come from: paths, standard input and file objects, read without ever being stuck in a read."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO, ClassVar, Final

from omi_async.sources._errors import DamagedStreamError, SourceError

__all__ = ["Place", "Stop", "chunks_of", "name_of", "opened"]

CHUNK: Final = 32 * 1024
"""Bytes read at once: a few hundred records, parsed in two or three milliseconds."""

Place = str | os.PathLike[str] | BinaryIO


def name_of(place: object) -> str:
    """Name a source in origins and errors as its user did.

    Raises `TypeError` for what can be no source, a file opened as text among them.
    """
    if isinstance(place, str | os.PathLike):
        return "stdin" if place == "-" else os.fsdecode(place)
    if isinstance(place, io.TextIOBase) or not callable(getattr(place, "read", None)):
        raise TypeError(
            f"a source is a path, '-' or a file opened in binary mode ('rb'), not {type(place).__name__}"
        )
    name = getattr(place, "name", None)
    return name if isinstance(name, str) else "input"


def opened(place: Place, name: str, stop: Stop) -> AbstractContextManager[BinaryIO]:
    """Open a path; what is open already is borrowed, and left open. Raises `SourceError`."""
    if isinstance(place, str | os.PathLike):
        return nullcontext(_stdin()) if place == "-" else _open(os.fspath(place), name, stop)
    return nullcontext(place)


def _stdin() -> BinaryIO:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise SourceError.at("stdin", None, "there is no standard input to read bytes from; name a file")
    return stream  # type: ignore[no-any-return]


@contextmanager
def _open(path: str, name: str, stop: Stop) -> Iterator[BinaryIO]:
    try:
        stream = _open_fifo(path, stop) if stat.S_ISFIFO(os.stat(path).st_mode) else open(path, "rb")  # noqa: PTH116, PTH123, SIM115 - closed below
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SourceError.at(name, None, f"cannot be opened: {_reason(error)}") from error
    with stream:
        yield stream


def _open_fifo(path: str, stop: Stop) -> BinaryIO:
    """Open a named pipe without waiting for its writer inside `open`, in which nothing could end the wait."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stream = open(fd, "rb")  # noqa: PTH123, SIM115 - the caller closes it
    if stop.wait_readable(fd):
        os.set_blocking(fd, True)
    return stream


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file; check the path"
        case IsADirectoryError():
            return "it is a directory; name the files in it"
        case PermissionError():
            return "no permission to read it"
        case OSError(strerror=str(words)):
            return words
        case _:
            return str(error)


def chunks_of(stream: BinaryIO, stop: Stop) -> Iterator[bytes]:
    """Read what is there, as soon as it is there, until the end or until `stop`.

    Raises `DamagedStreamError` if the system cannot read on.
    """
    read: Any = getattr(stream, "read1", stream.read)
    fd = _waitable(stream)
    while (fd is None or stop.wait_readable(fd)) and not stop.requested:
        try:
            chunk = read(CHUNK)
        except (OSError, ValueError) as error:  # ValueError: the file was closed under us
            raise DamagedStreamError(f"cannot be read any further: {_reason(error)}") from error
        if not isinstance(chunk, bytes):
            raise DamagedStreamError(
                "cannot be read: the file object gives no bytes; open it in blocking binary mode"
            )
        if not chunk:
            return
        yield chunk
        stop.between_chunks()


def _waitable(stream: BinaryIO) -> int | None:
    """Return the descriptor of a pipe, socket or terminal; a regular file never lets a reader wait."""
    try:
        fd = stream.fileno()
        mode = os.fstat(fd).st_mode
    except (AttributeError, OSError, ValueError):  # in memory, or closed
        return None
    return None if stat.S_ISREG(mode) or not Stop.CAN_WAIT else fd


class Stop:
    """Set once, by any thread, a finalizer among them; seen by the thread that reads.

    `wait_readable` belongs to the reading thread, which calls `between_chunks` after each chunk and `close`
    at its end.
    """

    CAN_WAIT: ClassVar[bool] = hasattr(select, "poll")
    """False on Windows, on which only sockets can be waited for; there a stuck reader is left behind."""

    def __init__(self, between_chunks: Callable[[], object] = lambda: None) -> None:
        self.requested = False
        self.between_chunks = between_chunks
        # Reentrant, as a finalizer may call `request` in the very thread that holds it.
        self._lock = threading.RLock()
        self._pipe: tuple[int, int] | None = None

    def request(self) -> None:
        """Ask the reader to stop; never blocks, and may be repeated."""
        with self._lock:
            if not self.requested:
                self.requested = True
                if self._pipe is not None:
                    os.write(self._pipe[1], b"\0")

    def wait_readable(self, fd: int) -> bool:
        """Wait until `fd` has bytes or is at its end; False when asked to stop."""
        with self._lock:
            if self._pipe is None:
                self._pipe = os.pipe()
            if self.requested:
                return False
            waker = self._pipe[0]
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(waker, select.POLLIN)
        poll.poll()
        return not self.requested

    def close(self) -> None:
        """Give the descriptors back; nothing is waited for any more."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
            for fd in pipe or ():
                os.close(fd)
