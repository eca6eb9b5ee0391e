"""Reads JSON value by value, however long the document is."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn

import attrs

from omi_async.sources._depth import TOO_DEEP, is_too_deep
from omi_async.sources._errors import DamagedStreamError, SourceError
from omi_async.sources._records import LONGEST, hint_at_encoding, shown

__all__ = ["Broken", "Scanner"]

_SPACES: Final = " \t\r\n\ufeff\x1a"
"""What may stand between values; among them what only files have, as when several were joined."""

_SPACE: Final = re.compile(f"[{_SPACES}]*")

_TOKEN: Final = re.compile(r'"(?:[^"\\\n\r]++|\\[^\n\r])*+"|["\[\]{},]')
"""A whole string, a bracket, a comma; or the quote of a string that does not end on its line."""

_SHORT: Final = 2**16
"""Characters of a value that are read again with each chunk."""

_CLOSES: Final = {"[": "]", "{": "}"}


@attrs.frozen
class Broken:
    """A value that cannot be read, though its end is plain."""

    reason: str
    text: str


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("not JSON: NaN and infinities are none")


class Scanner:
    """Reads values and marks; every method may raise `SourceError` with the line, if no more can be told.

    Attributes:
        line: the line, from 1, of what comes next.
        offset: characters read so far.
        lost: whether the file came to its end in the depth of a value, and no bracket closes any more.
    """

    def __init__(self, chunks: Iterable[bytes], name: str, longest: int = LONGEST) -> None:
        self.line = 1
        self.offset = 0
        self.lost = False
        self._chunks = iter(chunks)
        self._name = name
        # Bad bytes become half surrogates, which spoil the value they stand in and no other.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._read_value = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
        self._text = ""
        self._at = 0
        self._longest = longest
        self._ended = False

    def peek(self) -> str:
        """Skip white space; return the next character, or nothing at the end of the file."""
        mark = self._text[self._at : self._at + 1]
        if mark and mark not in _SPACES:
            return mark
        while True:
            found = _SPACE.match(self._text, self._at)
            self._advance(found.end() if found else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def expect(self, mark: str) -> None:
        """Step over a bracket, comma or colon."""
        found = self.peek()
        if self.lost:
            return
        if found != mark:
            self.fail(f"{mark!r} is expected here, not {found!r}; fix the document" if found else _CUT)
        self._step()

    def elements(self) -> Iterator[None]:
        """Stand before each element of a list, which the caller then reads."""
        self.expect("[")
        while self.peek() != "]" and not self.lost:
            yield
            if self.peek() == ",":
                self._step()
            elif self._text[self._at : self._at + 1] != "]":
                self.expect(",")
        self.expect("]")

    def members(self) -> Iterator[str]:
        """Yield each key of an object, and stand before its value, which the caller then reads."""
        self.expect("{")
        while self.peek() != "}" and not self.lost:
            key, line = self.value()
            if not isinstance(key, str):
                raise SourceError.at(self._name, line, "a key in quotes must stand here; fix the file")
            self.expect(":")
            yield key
            if self.peek() != "}":
                self.expect(",")
        self.expect("}")

    def skip(self) -> None:
        """Step over a value, however long it is, without keeping it."""
        if self.peek() not in {"[", "{"}:
            self.value()
        elif not self._skip_brackets():
            self.fail(_CUT)

    def _skip_brackets(self) -> bool:
        """Step over a list or an object; return whether it has an end."""
        depth = 0
        while True:
            end = self._at
            for token in _TOKEN.finditer(self._text, self._at):
                mark = token[0]
                if mark == '"':
                    break  # its end may be in the next chunk
                end = token.end()
                depth += (mark in "[{") - (mark in "]}")
                if not depth and mark in "]}":
                    self._advance(end)
                    return True
            self._advance(end)
            if not self._fill():
                return False

    def value(self) -> tuple[Any, int]:
        """Read a value; return it and its line; a `Broken` one if only its inside is damaged."""
        if not self.peek():
            self.fail(_CUT)
        line = self.line
        while True:
            try:
                value, end = self._read_value(self._text, self._at)
            except RecursionError:
                return self._too_deep(), line
            except ValueError as error:
                if is_too_deep(self._text[self._at :]):
                    return self._too_deep(), line
                value, end = error, self._extent()
            if self._is_whole(end) or not self._fill_twice_as_much():
                break
        if end < 0:
            self.fail(
                _CUT if self._text[self._at] in '{["' else "no JSON value begins here; fix the document"
            )
        return self._taken(value, end), line

    def _too_deep(self) -> Broken:
        """Step over a value that no parser reads. If it has no end, nothing is left that could be read."""
        text = shown(self._text[self._at : self._at + LONGEST].encode("utf-8", "surrogateescape"))
        self.lost = not self._skip_brackets()
        if self.lost:
            self._advance(len(self._text))
            return Broken(f"{TOO_DEEP}, and has no end: what may stand behind it was not read", text)
        return Broken(TOO_DEEP, text)

    def _is_whole(self, end: int) -> bool:
        """Whether the next chunk can change nothing: a number may go on in it."""
        return -1 < end < len(self._text) and self._text[end] not in "+-.eE0123456789"

    def _taken(self, value: Any, end: int) -> Any:
        text = self._text[self._at : end]
        self._advance(end)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                byte = ord(text[error.start]) & 0xFF
                value = ValueError(
                    f"is not UTF-8: byte 0x{byte:02x} after {error.start} characters of the record;"
                    f" {hint_at_encoding(text.encode('utf-8', 'surrogateescape'))}"
                )
        if is_too_deep(text):
            return Broken(TOO_DEEP, shown(text.encode("utf-8", "surrogateescape")))
        if isinstance(value, Exception):
            return Broken(_words(value), shown(text.encode("utf-8", "surrogateescape")))
        return value

    def _extent(self) -> int:
        """Find the end of a broken value by its brackets and quotes; -1 if it is not in the buffer yet."""
        open_: list[str] = []
        for token in _TOKEN.finditer(self._text, self._at):
            mark = token[0]
            if mark in _CLOSES:
                open_.append(_CLOSES[mark])
            elif mark == '"':
                return self._unclosed(token.start())
            elif mark in "]}":
                if not open_:
                    return token.start()
                if open_.pop() != mark:
                    self.fail(f"a record's brackets do not match ({mark!r}); fix the document")
                if not open_:
                    return token.end()
            elif mark == "," and not open_:
                return token.start()
        return -1

    def _unclosed(self, start: int) -> int:
        if re.compile(r"[\n\r]").search(self._text, start):
            self.fail("a string in this record does not end on its line; fix the document")
        return -1

    def _step(self) -> None:
        """Go over a mark, which ends no line."""
        self._at += 1
        self.offset += 1

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self.offset += to - self._at
        self._at = to

    def _fill_twice_as_much(self) -> bool:
        """Read on in a value that has not come to its end; False at the end of the file.

        A long one is tried again only when there is twice as much of it: else each chunk would be the reason
        to read all of it once more. A short one is tried at once, since it may come from a live stream.
        """
        size = len(self._text) - self._at
        wanted = min(2 * size, self._longest) if size > _SHORT else 0
        found = self._fill()
        while found and len(self._text) < wanted and self._fill():
            pass
        return found

    def _fill(self) -> bool:
        """Read a chunk behind what is not read yet; False at the end."""
        if len(self._text) - self._at > self._longest:
            self.fail(f"a record of more than {self._longest:,} characters; a fact has 500")
        if self._ended:
            return False
        try:
            chunk = next(self._chunks, None)
        except DamagedStreamError as error:
            raise SourceError.at(self._name, self.line, str(error)) from error
        self._ended = chunk is None
        self._text = self._text[self._at :] + self._decode(chunk or b"", chunk is None)
        self._at = 0
        return True

    def fail(self, message: str) -> NoReturn:
        """Raise `SourceError` for what comes next."""
        raise SourceError.at(self._name, self.line, message)


def _words(error: Exception) -> str:
    match error:
        case json.JSONDecodeError(msg=reason):
            return f"not JSON: {reason}"
        case _:
            return str(error)


_CUT: Final = "the document is cut short; what stands before was read. Fetch it again"
