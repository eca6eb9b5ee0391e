from __future__ import annotations

import codecs
import gzip
import zlib

import pytest

from omi_async.sources._encoding import unpacked, utf8
from omi_async.sources._errors import DamagedStreamError
from tests.sources.source_reading import read, read_pieces

LINES = '{"content": "tea"}\n{"content": "café 🍵"}\n'
TEXTS = ["tea", "café 🍵"]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_encodings(mark, encoding) -> None:
    data = mark + LINES.encode(encoding)
    assert read(data).texts == TEXTS
    assert read(gzip.compress(data), "x.bin").texts == TEXTS
    assert read_pieces([data[:5], data[5:9], data[9:]]).texts == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_header_behind_a_mark(encoding) -> None:
    found = read("content;category\r\nä;work\r\n".encode(encoding), "x.csv")
    assert [(fact.content, fact.category) for fact in found.facts] == [("ä", "work")]


@pytest.mark.parametrize("data", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"a", b"\xff"])
def test_files_too_short_to_tell(data) -> None:
    assert read(data).error is None


def test_half_a_surrogate_pair_in_utf16_spoils_its_line_only() -> None:
    data = codecs.BOM_UTF16_LE + "a\n\ud83c\nb\n".encode("utf-16-le", "surrogatepass")
    found = read(data, "x.txt")
    assert found.texts == ["a", "b"]
    assert "not UTF-8" in found.reasons[0]


def test_utf16_that_ends_in_half_a_character() -> None:
    found = read(codecs.BOM_UTF16_LE + "a\nb\ncut".encode("utf-16-le")[:-1], "x.txt")
    assert found.texts == ["a", "b"]
    assert str(found.error) == "x.txt:3: the file is broken UTF-16-LE here (truncated data); save it as UTF-8"


def test_what_stands_before_a_broken_character_is_kept() -> None:
    data = codecs.BOM_UTF32_LE + "a\nb\n".encode("utf-32-le") + b"\xff\xff\xff\xff"
    found = read(data, "x.txt")
    assert found.texts == ["a", "b"]
    assert "x.txt:3: the file is broken UTF-32-LE" in str(found.error)


@pytest.mark.parametrize("data", [b"a\0b\nc\nd\ne\n", b"\0\0\0\0", b"plain text"])
def test_a_few_nuls_are_not_utf16(data) -> None:
    assert b"".join(utf8([data])) == data


def test_gzip_is_known_by_its_content() -> None:
    packed = gzip.compress(LINES.encode())
    assert read(packed, "facts.jsonl").texts == TEXTS
    assert read(LINES.encode(), "facts.jsonl.gz").texts == TEXTS
    assert read_pieces(bytes([byte]) for byte in packed).texts == TEXTS


def test_gzip_files_joined_and_padded() -> None:
    packed = gzip.compress(b"a\n") + gzip.compress(b"b\n") + b"\0" * 100
    assert read(packed).texts == ["a", "b"]
    assert read_pieces([packed[:-100], packed[-100:]]).texts == ["a", "b"]


def test_a_cut_gzip_gives_what_was_readable_and_then_raises() -> None:
    data = "".join(f'{{"content": "fact {number}"}}\n' for number in range(5000)).encode()
    packed = gzip.compress(data)
    found = read(packed[: len(packed) // 2], "x.jsonl.gz")
    count = len(found.facts)
    assert 1000 < count < 5000
    assert found.texts == [f"fact {number}" for number in range(count)]
    assert found.invalid == []
    assert (
        str(found.error) == f"x.jsonl.gz:{count + 1}: the gzip data is cut short here; fetch the file again"
    )


def test_a_cut_gzip_of_a_document_and_of_a_table() -> None:
    document = "[" + ",\n".join(f'{{"content": "fact {number}"}}' for number in range(5000)) + "]"
    table = "content,category\n" + "".join(f"fact {number},work\n" for number in range(5000))
    for data in (document, table):
        packed = gzip.compress(data.encode())
        found = read(packed[: len(packed) // 2])
        assert len(found.facts) > 1000
        assert found.texts == [f"fact {number}" for number in range(len(found.facts))]
        assert "cut short" in str(found.error)


def test_a_row_torn_by_the_cut_spoils_none_of_the_rows_in_it() -> None:
    table = 'content,category\na,work\n"stray,work\n' + "".join(f"fact {n},work\n" for n in range(400))
    packed = gzip.compress(table.encode(), compresslevel=0)
    found = read(packed[:-2000])
    assert found.texts[0] == "a"
    assert found.texts[1:] == [f"fact {number}" for number in range(len(found.texts) - 1)]
    assert len(found.texts) > 100
    assert "cut short" in str(found.error)


def test_a_cut_inside_of_the_header() -> None:
    found = read(gzip.compress(b"content,category\n")[:-12], "x.csv.gz", "csv")
    assert found.items == []
    assert "cut short" in str(found.error)


def test_damage_inside_of_gzip_comes_after_what_stands_before() -> None:
    good = gzip.compress(b"a\nb\n")
    found = read(good + b"no gzip at all", "x.gz")
    assert found.texts == ["a", "b"]
    assert str(found.error).startswith("x.gz:3: the gzip data is damaged from here on")


def test_a_wrong_checksum_comes_after_the_text() -> None:
    packed = bytearray(gzip.compress(b"a\nb\n"))
    packed[-8] ^= 1
    chunks = unpacked([bytes(packed)])
    assert next(chunks) == b"a\nb\n"
    with pytest.raises(DamagedStreamError) as caught:
        list(chunks)
    assert isinstance(caught.value.__cause__, zlib.error)


def test_a_bomb_is_unpacked_in_pieces() -> None:
    packed = gzip.compress(b"\n" * 20_000_000 + b"a\n")
    assert max(map(len, unpacked([packed]))) <= 64 * 1024
    assert read(packed, "x.txt").places == ["x.txt:20000001"]
