"""The one exception of a file that cannot be read, or not to its end."""

from __future__ import annotations

from omi_async.errors import OmiError

__all__ = ["DamagedStreamError", "SourceError"]


class SourceError(OmiError):
    """A file cannot be read at all, or not beyond some place. All that stands before it was handed out.

    The message says which file and line, what is wrong, and what to do. A single bad record raises
    nothing: it is an `invalid` outcome among the facts.

    Attributes:
        name: the file, as the caller named it.
        line: the line, from 1, where reading ended; None if no line was read.
    """

    def __init__(self, message: str, *, name: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.line = line

    @classmethod
    def at(cls, name: str, line: int | None, message: str) -> SourceError:
        """Put the place in front of the message, as compilers do: ``facts.csv:17: ...``."""
        place = name if line is None else f"{name}:{line}"
        return cls(f"{place}: {message}", name=name, line=line)


class DamagedStreamError(Exception):
    """The bytes end or break here; whoever counts the lines makes a `SourceError` of it."""
