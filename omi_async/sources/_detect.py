"""Which format a file has: its content says so first, its name second; and the reader of each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final, cast

from omi_async._api.json import loads
from omi_async._formats import Format
from omi_async.sources._csv import Dialect, dialect_of
from omi_async.sources._depth import is_too_deep
from omi_async.sources._errors import SourceError
from omi_async.sources._fields import Fields
from omi_async.sources._front_matter import front_matter
from omi_async.sources._json_document import CONTAINERS
from omi_async.sources._lines import clean
from omi_async.sources._markdown import BULLET, FENCE, is_furniture
from omi_async.sources._options import ReadOptions
from omi_async.sources._refusals import (
    binary_in_words,
    json_in_words,
    magic_in_words,
    name_in_words,
    text_in_words,
)
from omi_async.sources._samples import sample_of_document, sample_of_lines
from omi_async.sources.known import DOCUMENTS, RECORDS, TEXTS

__all__ = ["HEAD", "Head", "detect", "hint_of", "is_json_line", "json_kind"]

HEAD: Final = 64 * 1024
"""Bytes that are looked at: enough for the first record of every system that we know."""

_SAMPLE: Final = 100
"""Lines of them that are tried."""

_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
}

_DOCUMENT: Final = re.compile(r'\[\s*(?:["{\[]|\]?\s*\Z)|\{\s*(?:"(?:[^"\\]|\\.)*+"\s*:|\}?\s*\Z)')
"""How a JSON document begins, and ``[x] a task`` or ``{name} likes tea`` does not."""

_LAID_OUT: Final = re.compile(
    r'\[\s*(?:["{\[]|\]?\s*\Z)|\{[ \t\r]*\n|\{\s*"(?:' + "|".join(CONTAINERS) + r')"\s*:\s*\['
)
"""How a JSON document begins, and a line of a JSONL file, whole or torn, does not."""

_WORDS: Final = 2
"""Words in the name of a column, at most, if nothing but the header says that a file is a table."""

_TIDY: Final = re.compile(r"\w[\w .-]*(?:[,;\t|][\w .-]+)*")


def hint_of(name: str) -> Format:
    """Return the format that a name promises, `auto` if it promises none."""
    suffixes = [
        suffix.lower() for suffix in PurePath(name).suffixes if suffix.lower() not in {".gz", ".gzip"}
    ]
    return _SUFFIXES.get(suffixes[-1], "auto") if suffixes else "auto"


class Head:
    """What is known of a file before it is read.

    Attributes:
        text: the head, without white space around it.
        lines: the lines of it that are not blank, a hundred at most.
        all_lines: all of its lines, whole.
    """

    def __init__(self, raw: bytes, name: str, options: ReadOptions) -> None:
        self.raw = raw
        self.name = name
        self.options = options
        self.fields = options.fields
        self.hint = hint_of(name)
        pieces = [clean(line).decode("utf-8", "replace") for line in re.split(rb"\r\n?|\n", raw)]
        self.text = "\n".join(pieces).strip()
        if len(raw) >= HEAD and len(pieces) > 1:
            pieces.pop()  # it may end in the middle of a line
        self.all_lines = pieces
        self.lines = [line for line in pieces if line.strip()][:_SAMPLE]


def detect(head: bytes, name: str, options: ReadOptions) -> Format:
    """Return the format by the head (UTF-8, unpacked). Raises `SourceError` for what is no list of facts."""
    if words := magic_in_words(head):
        raise SourceError.at(name, None, f"is {words}")
    seen = Head(head, name, options)
    if kind := json_kind(seen):
        return _known_json(seen, kind) or kind
    if kind := _table_kind(seen):
        return kind
    if words := binary_in_words(head):
        raise SourceError.at(name, None, f"is {words}")
    for system in ("bee", "list"):
        if TEXTS[system].matches(seen.all_lines) and seen.hint not in {"json", "jsonl"}:
            return system
    # A note may be about anything, and hold a piece of it; only a page that calls itself Markdown is none.
    if words := (_foreign(seen) if seen.hint != "markdown" or seen.text[:1] == "<" else ""):
        raise SourceError.at(name, None, f"looks like {words}")
    return _text_kind(seen)


def _foreign(seen: Head) -> str:
    spoken = [line for line in seen.all_lines if line.strip()]
    return text_in_words(seen.text, spoken) or name_in_words(seen.name)


def json_kind(seen: Head) -> Format | None:
    text, lines, hint, fields = seen.text, seen.lines, seen.hint, seen.fields
    # A name that promises text or a table decides about quoted lines: they are quotes there, and no JSON.
    kinds = (dict,) if hint in {"csv", "tsv", "text", "markdown"} else (dict, str)
    if text[:1] not in {"{", "[", '"'}:
        # A torn first line must not hide the JSON lines below it.
        return "jsonl" if lines and _mostly_json(lines, fields, *kinds) else None
    if is_too_deep(lines[0]):
        # No record, and nothing that a person writes; but the lines below it are what they are.
        return _ABYSS.get(hint)
    if text.startswith('"') and (hint in {"csv", "tsv"} or _is_sure_table(seen)):
        return None
    if _is_one_object(seen):
        return "json"
    if is_json_line(lines[0], fields, dict) or _mostly_json(lines, fields, *kinds):
        return "jsonl"
    return "json" if _is_document(text, hint) else None


_ABYSS: Final[dict[Format, Format]] = {"json": "json", "jsonl": "jsonl", "auto": "jsonl"}


def _is_document(text: str, hint: Format) -> bool:
    """Whether a file begins like a JSON document, and goes on like one if its name does not say so."""
    if hint == "jsonl":
        return bool(_LAID_OUT.match(text))
    if not _DOCUMENT.match(text):
        return False
    if hint == "json":
        return True
    if text[0] == "{":
        return True
    if end := _end_of_json(text):
        # A sentence may begin with a quote: ["Tea"] is what the user says.
        return "{" in text[:end] or text[end:].lstrip(" \t")[:1] in {"", "\n", ",", "[", "{"}
    # It is cut off by the end of the head, or broken. If not even the first list in it is one, it is a link:
    # [[Tea]] is what the user likes.
    inner = text[1:].lstrip()
    return inner[:1] != "[" or _end_of_json(inner) > 0


def _end_of_json(text: str) -> int:
    """Return where the JSON value ends that a text begins with; 0 if it does not."""
    try:
        return json.JSONDecoder().raw_decode(text)[1]
    except (ValueError, RecursionError):
        return 0


def _is_one_object(seen: Head) -> bool:
    """Whether the file is one line with an object that is no record like ours: an envelope, or an export."""
    if len(seen.lines) != 1 or seen.hint == "jsonl" or seen.text[:1] != "{":
        return False
    try:
        return not seen.fields.has_text(loads(seen.text))
    except ValueError:
        return False


def _known_json(seen: Head, kind: Format) -> Format | None:
    """Ask the systems that we know, unless the caller said what stands where."""
    if kind == "json":
        sample = sample_of_document(seen.text)
        if words := json_in_words(sample, seen.text, seen.lines):
            raise SourceError.at(seen.name, None, f"looks like {words}")
    else:
        sample = sample_of_lines(seen.lines)
    if seen.fields.reshapes:
        return None
    for name, document in DOCUMENTS.items():
        if document.matches(sample):
            return cast("Format", name)
    for name, known in RECORDS.items():
        if known.matches(sample):
            return cast("Format", name)
    return None


def _is_sure_table(seen: Head) -> bool:
    dialect = dialect_of(seen.lines, seen.options) if seen.lines else None
    return dialect is not None and _reads_as_table(seen, dialect) is not None


def _table_kind(seen: Head) -> Format | None:
    if not seen.lines or seen.hint == "markdown":
        return None
    dialect = dialect_of(seen.lines, seen.options)
    if seen.hint in {"csv", "tsv"}:
        # Without a column for the text it may still be something else by a wrong name.
        looks_foreign = dialect is None and (
            binary_in_words(seen.raw) or _foreign(seen) or seen.text[:1] in {"<", "{"}
        )
        return None if looks_foreign else seen.hint
    return None if dialect is None else _reads_as_table(seen, dialect)


def _reads_as_table(seen: Head, dialect: Dialect) -> Format | None:
    """Whether the lines below a likely header are rows of it, and not sentences with commas.

    The names of two fields make a header whatever stands below. A single column looks like any text. Between
    them is what may be either: if half of a sentence would be taken for a cell, the caller must say.
    """
    header, width = dialect.columns.header, dialect.width
    if any(len(name.split()) > _WORDS for name in header) and not seen.fields.reshapes:
        return None
    if width == 1:
        return "csv" if seen.hint != "text" else None
    if dialect.columns.known > 1 or seen.fields.reshapes:
        return "csv"
    fits = _share_of_rows(seen.lines, dialect)
    if fits == 1.0 and _is_tidy(seen.lines[0], dialect):
        return "csv"
    if fits >= 0.5:  # noqa: PLR2004 - a half
        raise SourceError.at(
            seen.name,
            1,
            "may be a table or a text: its first line could be a header with a column for the text, and the"
            " lines below have as many commas. Say which: --format csv or --format text",
        )
    return None


def _is_tidy(line: str, dialect: Dialect) -> bool:
    """Whether names stand between delimiters as programs write them, without the space of a sentence."""
    return f"{dialect.delimiter} " not in line and bool(_TIDY.fullmatch(line.strip().replace('"', "")))


def _share_of_rows(lines: Sequence[str], dialect: Dialect) -> float:
    fits = rows = 0
    below = (f"{line}\n" for line in lines[dialect.lines :])
    try:
        for row in dialect.lenient_rows(below):
            rows += 1
            fits += len(row) == dialect.width
    except ValueError:  # a cell beyond all bounds: no table that a program made
        return 0.0
    return fits / rows if rows else 1.0


def _text_kind(seen: Head) -> Format:
    if seen.hint in {"json", "jsonl"}:  # if it is none, its reader says so best
        return seen.hint
    body = seen.all_lines[front_matter(seen.all_lines).lines :]
    spoken = [line for line in body if line.strip() and not is_furniture(line)][:_SAMPLE]
    bullets = sum(BULLET.match(line) is not None for line in spoken)
    if TEXTS["vault"].matches(seen.all_lines) and (bullets or seen.all_lines[0].startswith(("---", "+++"))):
        return "vault" if bullets else "markdown"
    # The lines of a code block are no facts, whatever stands in it.
    fenced = any(FENCE.match(line) for line in body)
    return "markdown" if fenced or seen.hint == "markdown" or bullets * 2 > len(spoken) else "text"


def is_json_line(line: bytes | str, fields: Fields, *kinds: type) -> bool:
    """Whether a line is a whole record of one of the kinds, and not a whole document in one line."""
    value: Any
    try:
        value = loads(line)
    except ValueError:
        return False
    if isinstance(value, dict) and not fields.has_text(value):
        return not any(isinstance(value.get(key), list) for key in CONTAINERS)
    return isinstance(value, kinds)


def _mostly_json(lines: Sequence[str], fields: Fields, *kinds: type) -> bool:
    return sum(is_json_line(line, fields, *kinds) for line in lines) * 2 >= len(lines)
