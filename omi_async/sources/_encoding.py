"""Whatever bytes a file has, as UTF-8: gzip unpacked, byte order marks dropped, UTF-16 recoded."""

from __future__ import annotations

import codecs
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from omi_async.sources._errors import DamagedStreamError

__all__ = ["peek", "unpacked", "utf8"]

_GZIP: Final = b"\x1f\x8b"
_MOST_OUT: Final = 64 * 1024
"""Bytes unpacked at once, so that a small file of zeros cannot fill the memory."""

_MARKS: Final = (  # UTF-32 first: its little-endian mark begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, ""),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def peek(chunks: Iterable[bytes], enough: Callable[[bytes], bool]) -> tuple[bytes, Iterator[bytes]]:
    """Read chunks until `enough(head)`, or to the end; return the head, and all chunks again.

    What breaks while the head is read, breaks again behind the head.
    """
    source = iter(chunks)
    head = b""
    try:
        while not enough(head):
            head += next(source)
    except StopIteration:
        return head, iter([head] if head else [])
    except DamagedStreamError as error:
        return head, _then_raise(head, error)
    return head, itertools.chain([head], source)


def _then_raise(head: bytes, error: DamagedStreamError) -> Iterator[bytes]:
    if head:
        yield head
    raise error


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack gzip, known by its first bytes and not by a name; anything else is passed on."""
    head, chunks = peek(chunks, lambda head: len(head) >= len(_GZIP))
    return _gunzip(chunks) if head.startswith(_GZIP) else chunks


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        packed = chunk
        while packed:
            if member.eof:  # gzip files may be joined by `cat`, and padded with zeros on tapes
                packed = packed.lstrip(b"\0")
                if not packed:
                    break
                member = zlib.decompressobj(wbits=31)
            before = member.copy()
            try:
                data = member.decompress(packed, _MOST_OUT)
            except zlib.error as error:
                yield _salvage(before, packed)
                raise DamagedStreamError(
                    "the gzip data is damaged from here on; fetch the file again, or unpack it and fix it"
                ) from error
            yield data
            packed = member.unused_data if member.eof else member.unconsumed_tail
    yield member.flush()
    if not member.eof:
        raise DamagedStreamError("the gzip data is cut short here; fetch the file again")


def _salvage(member: zlib._Decompress, packed: bytes) -> bytes:
    """Unpack byte by byte, as zlib drops what it had unpacked of a call that meets damage."""
    data = bytearray()
    with suppress(zlib.error):
        for at in range(len(packed)):
            data += member.decompress(packed[at : at + 1])
    return bytes(data)


def utf8(chunks: Iterable[bytes], encoding: str | None = None) -> Iterator[bytes]:
    """Recode to UTF-8 and drop the byte order mark; UTF-8 itself is passed on unchecked, broken or not.

    Args:
        chunks: the bytes of a file.
        encoding: what they are, if the caller knows; a byte order mark knows better.
    """
    head, chunks = peek(chunks, _tells_encoding)
    for mark, marked in _MARKS:
        if head.startswith(mark):
            rest = _without(chunks, len(mark))
            return _recoded(rest, marked) if marked else rest
    if encoding is not None:
        return chunks if encoding.startswith("utf-8") else _recoded(chunks, encoding)
    unmarked = _unmarked_utf16(head[:1024])
    return _recoded(chunks, unmarked) if unmarked else chunks


def _tells_encoding(head: bytes) -> bool:
    """Whether the head is long enough: a live pipe may begin with a line of two bytes, and then wait."""
    if len(head) >= len(codecs.BOM_UTF32_LE):
        return True
    return len(head) > 1 and head.endswith(b"\n") and head.isascii() and 0 not in head


def _without(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    yield next(chunks)[length:]
    yield from chunks


def _unmarked_utf16(sample: bytes) -> str | None:
    """Recognise UTF-16 without a mark: every other byte of Western text is NUL, and only those."""
    even, odd = sample[::2], sample[1::2]
    if len(sample) < 4:  # noqa: PLR2004 - two characters are the least that can tell
        return None
    if odd.count(0) * 2 > len(odd) and 0 not in even:
        return "utf-16-le"
    if even.count(0) * 2 > len(even) and 0 not in odd:
        return "utf-16-be"
    return None


def _recoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    # What is no text becomes bad UTF-8, half a surrogate pair for one: that spoils its own record only.
    errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    for chunk in itertools.chain(chunks, [None]):
        try:
            text = decoder.decode(chunk or b"", final=chunk is None)
        except UnicodeDecodeError as error:
            yield (error.object[: error.start].decode(encoding, errors).encode("utf-8", errors))
            raise DamagedStreamError(
                f"the file is broken {encoding.upper()} here ({error.reason}); save it as UTF-8"
            ) from error
        yield text.encode("utf-8", errors)
