"""What is no list of facts: recognised by what it holds, and refused as a whole before any fact is made.

Anything can be read line by line, so a page, a program or a picture would become hundreds of "facts" if
nothing said no. Three kinds of evidence are asked, strongest first: the first bytes, the first lines, and how
most lines look. A false alarm costs the caller one option (``--format text`` reads anything); a missed one
costs wrong memories.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Final

from omi_async.sources._samples import Sample

__all__ = ["binary_in_words", "json_in_words", "magic_in_words", "name_in_words", "text_in_words"]

INSIST: Final = "If each of its lines is a fact all the same: --format text"

_UNPACK: Final = "unpack it, and import what is inside"

_MAGIC: Final = (
    (b"SQLite format 3\0", "an SQLite database; export its table as CSV"),
    (b"%PDF-", "a PDF; save its text as a text file"),
    (b"{\\rtf", "a document in Rich Text Format; save it as plain text"),
    (b"BZh", f"packed by bzip2; {_UNPACK}"),
    (b"\xfd7zXZ\0", f"packed by xz; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"packed by zstd; {_UNPACK}"),
    (b"\x04\x22\x4d\x18", f"packed by lz4; {_UNPACK}"),
    (b"\x1f\x9d", f"packed by compress; {_UNPACK}"),
    (b"\x1f\x8b", f"packed by gzip twice; {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7-Zip archive; {_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (b"MSCF\0", f"a CAB archive; {_UNPACK}"),
    (b"!<arch>\n", f"an archive of ar; {_UNPACK}"),
    (b"070701", f"an archive of cpio; {_UNPACK}"),
    (b"PAR1", "a Parquet file; export it as CSV or JSON lines"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an office program; save it as CSV or as plain text"),
    (b"\x89PNG", "a picture"),
    (b"GIF8", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"%!PS", "a PostScript document; save its text as a text file"),
)

_TAR: Final = (257, b"ustar")

_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1a\x1b") | {0x7F}
"""Bytes that stand in no text. Escape and Ctrl-Z do: in logs, and at the end of DOS files."""

_FEW: Final = 0.003
"""The share of control characters that a damaged text may have; of packed bytes they are a tenth."""


def magic_in_words(head: bytes) -> str:
    """Name a kind of file by its first bytes, with what to do; "" if they say nothing."""
    if head[_TAR[0] :].startswith(_TAR[1]):
        return f"a tar archive; {_UNPACK}"
    return next((words for magic, words in _MAGIC if head.startswith(magic)), "")


def binary_in_words(head: bytes) -> str:
    """Return words for bytes that are no text, whatever program made them; "" if they may be one."""
    head = head.rstrip(b"\x1a\0") if b"\x1a" in head else head  # DOS filled the last block of a text so
    controls = sum(map(head.count, map(_byte, _CONTROLS)))
    if controls > max(1, len(head) * _FEW):
        return (
            "no text but a binary file; export it as JSON, CSV or plain text. If it is UTF-16, name that:"
            " --encoding utf-16-le or utf-16-be"
        )
    return ""


def _byte(number: int) -> bytes:
    return bytes([number])


_SUFFIXES: Final = {
    "a web page; save its text as a text file": "html htm xhtml mhtml mht shtml webarchive",
    "XML; export it as JSON or CSV": "xml opml enex gpx kml rss atom svg plist xsl xsd fb2",
    "YAML; write it as JSON": "yaml yml",
    "a document; save it as plain text": "rtf doc docx odt pages tex ps epub",
    "a calendar; export it as CSV": "ics ical ifb",
    "a card of an address book; export it as CSV": "vcf vcard",
    "mail; save its text as a text file": "eml mbox msg emlx",
    "SQL; export the table as CSV": "sql",
    "JSON5 or JavaScript; write it as JSON": "js mjs cjs jsx json5 jsonc hjson",
    "settings; write the facts as text, JSON or CSV": "toml ini cfg conf env properties",
    "subtitles; save the sentences as a text file": "srt vtt sub ass",
    "source code": "py pyw ipynb rb pl php c h cc cpp hpp cs java kt kts swift go rs ts tsx lua r jl sh"
    " bash zsh fish ps1 bat cmd css scss less sass vue svelte scala hs clj ex exs erl dart m mm sol asm s"
    " diff patch make cmake gradle bib po pot",
}

_BY_SUFFIX: Final = {
    f".{suffix}": words for words, suffixes in _SUFFIXES.items() for suffix in suffixes.split()
}


def name_in_words(name: str) -> str:
    """Name a kind of file that is no list by the end of its name; "" if it says nothing."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    while suffixes and suffixes[-1] in {".gz", ".gzip"}:
        suffixes.pop()
    words = _BY_SUFFIX.get(suffixes[-1], "") if suffixes else ""
    return f"{words}. {INSIST}" if words else ""


def _pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(text, flags)


_BEGINS: Final = (
    (
        _pattern(r"<!doctype\s+html|<html\b|<head\b|<body\b", re.IGNORECASE),
        "a web page; save its text as a text file",
    ),
    (
        _pattern(r"<!doctype\s+en-export|<en-export\b", re.IGNORECASE),
        "notes of Evernote; export them as plain text",
    ),
    (
        _pattern(
            r"<\?xml|<!doctype|<!--.{0,500}?-->\s*<[a-z]|<[a-z][\w:.-]*(?:\s[^<>]*)?/?>",
            re.IGNORECASE | re.DOTALL,
        ),
        "XML or HTML; export it as JSON or CSV, or save its text as a text file",
    ),
    (_pattern(r"BEGIN:VCALENDAR", re.IGNORECASE), "a calendar; export it as CSV"),
    (
        _pattern(r"BEGIN:V(?:CARD|NOTE|TODO|EVENT|JOURNAL)", re.IGNORECASE),
        "a card of an address book; export it as CSV",
    ),
    (
        _pattern(r"From \S+.*\d{4}\s*$|From - \w{3} ", re.MULTILINE),
        "a mailbox; save its texts as a text file",
    ),
    (
        _pattern(r"%YAML|---[ \t]*\r?\n(?!.*^---)[ \t]*[\w\"'-]+:(?:\s|$)", re.MULTILINE | re.DOTALL),
        "YAML; write it as JSON",
    ),
    (_pattern(r"#!\s*/"), "a script"),
    (_pattern(r"<\?php|<%"), "source code"),
    (_pattern(r"(?:.*\n){0,20}?-----BEGIN [A-Z ]+-----"), "a key, a certificate or an encrypted message"),
    (_pattern(r"(?:#[^\n]*\n\s*)*msgid \""), "translations"),
    (_pattern(r"(?:version: 1\s+)?dn: \w+="), "an address book; export it as CSV"),
    (_pattern(r"WEBVTT\b"), "subtitles; save the sentences as a text file"),
    (_pattern(r"diff --git |Index: \S+\r?\n=+|--- \S+.*\r?\n\+\+\+ "), "a patch"),
    (
        _pattern(r"\\documentclass|\\begin\{|%\s*!TEX", re.IGNORECASE),
        "a TeX document; save its text as a text file",
    ),
    (_pattern(r"@[a-z]+\{[^,\s]*,", re.IGNORECASE), "a bibliography; export it as CSV"),
    (
        _pattern(r"/\*.{0,2000}?\*/\s*[\[{\w.#@]|//[^\n]*\n\s*(?://[^\n]*\n\s*)*[\[{\w]", re.DOTALL),
        "source code or JSON5",
    ),
    (
        _pattern(
            r"(?:window|self|module|var|let|const|export|this)\b[\w.\s\[\]\"'$]*=\s*[\[{(]|export\s+default\b"
        ),
        "JavaScript; write the list in it as JSON",
    ),
    (_pattern(r"\(\s*function\s*\(|!function\s*\("), "JavaScript"),
    (_pattern(r"\w+\(\s*[\[{].{0,40}[\"']", re.DOTALL), "JavaScript; write the list in it as JSON"),
)

_JSON5: Final = re.compile(r"[\[{][\s,\[{]*(?://|/\*|'|[A-Za-z_$][\w$]*\s*:)")
"""A bracket, and before anything of JSON a comment, a single quote or a key without quotes."""

_OUTSIDE_OF_STRINGS: Final = re.compile(
    r"(?:^|[,{\[\s])//|/\*|(?:^|[{,]\s*)[A-Za-z_$][\w$]*\s*:|,\s*\}|'[^']*'\s*[:,}\]]"
)
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')

_MAIL: Final = _pattern(
    r"(?:from|to|cc|bcc|subject|date|message-id|mime-version|received|return-path|delivered-to|reply-to|sender|"
    r"content-type|content-transfer-encoding|in-reply-to|references|x-[\w-]+|dkim-signature|user-agent):\s",
    re.IGNORECASE,
)
_SQL: Final = _pattern(
    r"\s*(?:(?:create|drop|alter)\s+(?:table|database|index|unique|view|schema|sequence|type|function)\b|"
    r"insert\s+(?:or\s+\w+\s+)?into\s+\S+|copy\s+\S+.*\bfrom\s+stdin|select\s.+\sfrom\s.+;\s*$|"
    r"update\s+\S+\s+set\s.+;\s*$|delete\s+from\s+\S+|pragma\s+\w+|lock\s+tables\b|use\s+`?\w+`?;|"
    r"set\s+[\w@.]+\s*(?:=|to)\s*.+;\s*$|begin(?:\s+transaction)?;|commit;)",
    re.IGNORECASE,
)
_YAML_NESTED: Final = _pattern(r"[ \t]*(?:-[ \t]+)?[\"']?[A-Za-z_][\w-]*[\"']?:(?:[ \t].*)?$")
_YAML_KEY: Final = _pattern(r"[ \t]*(?:-[ \t]+)?[\"']?[A-Za-z_][\w-]*[\"']?:\s*(?:[|>&][+-]?\d?)?\s*$")
_YAML_PAIR: Final = _pattern(r"[a-z_][\w-]*:\s")
_YAML_LIST: Final = (_pattern(r"[a-z_][\w-]*:\s*$"), _pattern(r"\s+-\s"))
_YAML_ITEM: Final = _pattern(r"[ \t]*-[ \t]+[a-z_][\w-]*:[ \t]")
_COMMENT: Final = _pattern(r"\s*[#;]")
_PROPERTY: Final = _pattern(r"[\w.-]+=\S*$")
_INI: Final = (_pattern(r"\s*\[[^\[\]]+\]\s*$"), _pattern(r"\s*[\w.\"'-]+\s*=\s*\S"))
_CHAT: Final = _pattern(
    r"\u200e?\[?\d{1,4}[./-]\d{1,2}[./-]\d{2,4},?\s+\d{1,2}[:.]\d\d(?:[:.]\d\d)?(?:\s*[ap]\.?m\.?)?\]?"
    r"\s*(?:-\s*)?[^:]{1,60}:\s",
    re.IGNORECASE,
)
_LOG: Final = _pattern(
    r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?[^ ]*\s|\w{3}\s+\d{1,2} \d\d:\d\d:\d\d\s|"
    r"\S+ \S+ \S+ \[\d\d/\w{3}/\d{4}:"
)
_SUBTITLE: Final = _pattern(r"\s*\d\d?:\d\d(?::\d\d)?[.,]\d{2,3}\s*-->")
_TAG_LINE: Final = _pattern(r"\s*</?[A-Za-z!][^<>]*>")
_LIKE_CODE: Final = _pattern(
    r"\s*(?:#\s*(?:include|define|if|ifdef|ifndef|endif|else|pragma|undef|error)\b|"
    r"(?:from\s+[\w.]+\s+)?import\s+[\w.{*\"'(]\S*(?:\s+as\s+\w+|\s+from\s.+|;|,.*)?\s*$|package\s+[\w.]+;?\s*$|"
    r"using\s+[\w.]+;|(?:async\s+)?def\s+\w+.*|class\s+\w+.*[:{]\s*$|@\w+(?:\(.*\))?\s*$|elif\b.*|"
    r"(?:export\s+)?(?:async\s+)?function\b.*[({]|(?:export\s+)?(?:const|let|var|val|my|our|local)\s+[$@%\w{\[(].*=|"
    r"fn\s+\w+.*|func\s+[\w(].*\{|sub\s+\w+\s*\{|use\s+[\w:]+.*;|"
    r"(?:public|private|protected|static|extern|typedef|final|void|int|char|struct|enum|impl|trait|interface)"
    r"\s+\w.*[{;(=,]\s*$|"
    r"(?:if|for|while|switch|catch|with|except|case|when|unless|until)\b.*(?:[:{]|\bin|\bthen|\bdo)\s*$|"
    r"(?:else|try|finally|do|then|fi|done|esac|end|begin|endif)\s*[:{;]?\s*$|(?:return|raise|throw|yield|assert)\b.*|"
    r"[})\]]+\s*[;,]?.*|.*[;{]\s*$|//.*|/\*.*|\*(?:\s.*|/.*)?$|[$\w][\w.\[\]'\"$]*\s*[-+*/|:.]?=[^=].*|"
    r"[\w.$]+\(.*\)?[,;]?\s*$|[\"']\w+[\"']\s*:.*,\s*$|#.*)"
)
"""A line that may be one of a program, in any of the usual languages; comments among them."""

_SURELY_CODE: Final = _pattern(
    r"\s*(?:#\s*(?:include\s*[<\"]|define\s+\w+|ifdef\s+\w+|ifndef\s+\w+|endif\b)|from\s+[\w.]+\s+import\s|"
    r"(?:async\s+)?def\s+\w+\s*[(:]|class\s+\w+(?:\(.*\))?\s*[:{]|import\s+[\w.]+(?:\s+as\s+\w+)?;\s*$|"
    r"import\s+[a-z_]+[\w.]*\s*$|"
    r"(?:export\s+)?(?:async\s+)?function\s*\w*\s*\(|(?:export\s+)?(?:const|let|var)\s+\w+\s*=|fn\s+\w+\s*[(<]|"
    r"func\s+(?:\(.*\)\s*)?\w+\(|package\s+[\w.]+;\s*$|using\s+[\w.]+;|use\s+(?:strict|warnings|[\w:]+::).*;|"
    r"(?:my|our)\s+[$@%]\w+|sub\s+\w+\s*\{|(?:public|private|protected|static|extern|typedef)\s+\w+\s.*[({;=]|"
    r"return\b.*;\s*$|if\s+\[.*\];?|if\s*\(.*\)\s*\{|(?:fi|done|esac)\s*$|"
    r"\w+\(\)\s*\{|[\w.#*:>, -]+\{\s*$|\}\s*;?\s*$|"
    r"self\.\w+\s*=|\w+\s*=\s*[\[{(]\s*$|[\])]\s*[;,]?\s*$|[a-z_][\w.]*\(.*\);?\s*$|def\s+\w+\s*$|end\s*$|"
    r"\w+\s*=\s*[\w.]+\(.*\)\s*$|@[\w-]+\s.*[{;]\s*$)"
)

_MOST: Final = 0.6
_CODE_SHARE: Final = 0.3
"""Of the lines of a program; the others are what it prints, and what it says of itself."""

_BULLET: Final = _pattern(r"\s*(?:[-*+•]|\d{1,9}[.)])\s")


def text_in_words(text: str, lines: Sequence[str]) -> str:
    """Name what a text is if it is no list of facts; "" if it may be one.

    Args:
        text: the head of a file, without white space around it.
        lines: all of its lines that are not blank.
    """
    words = _by_beginning(text, lines) or _by_lines(lines)
    return f"{words}. {INSIST}" if words else ""


def _by_beginning(text: str, lines: Sequence[str]) -> str:
    if _JSON5.match(text):
        return "JSON5 or a literal of a program; write it as JSON"
    for pattern, words in _BEGINS:
        if pattern.match(text):
            return words
    if len({line.partition(":")[0].casefold() for line in _headers_of_mail(lines)}) > 1:
        return "mail; save its text as a text file"
    return ""


_PAGE: Final = _pattern(r"\s*</?(?:html|body|head|!doctype html)\b", re.IGNORECASE)


def _headers_of_mail(lines: Sequence[str]) -> list[str]:
    headers = []
    for line in lines:
        if _MAIL.match(line):
            headers.append(line)
        elif not line.startswith((" ", "\t")):
            break
    return headers


def _by_lines(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    if any(map(_PAGE.match, lines)):
        return "a web page; save its text as a text file"
    checks = (
        (_is_sql, "SQL; export the table as CSV"),
        (_is_yaml, "YAML; write it as JSON"),
        (_is_settings, "settings; write the facts as text, JSON or CSV"),
        (_is_code, "source code"),
    )
    looks = [words for pattern, share, words in _BY_LOOKS if _share(pattern, lines) > share]
    looks += [words for check, words in checks if check(lines)]
    return looks[0] if looks else ""


_BY_LOOKS: Final = (
    (_SUBTITLE, 0.1, "subtitles; save the sentences as a text file"),
    (_CHAT, _MOST, "a chat; take the facts out of it first"),
    (_LOG, _MOST, "a log"),
    (_TAG_LINE, _MOST, "XML or HTML; export it as JSON or CSV, or save its text as a text file"),
)
"""How a line looks, and the share of lines that must look so."""


def _is_sql(lines: Sequence[str]) -> bool:
    ends = any(line.rstrip().endswith((";", "(", ",")) for line in lines)
    return ends and any(map(_SQL.match, lines[:20]))


def _is_settings(lines: Sequence[str]) -> bool:
    sections, settings = (_share(pattern, lines) for pattern in _INI)
    comments = _share(_COMMENT, lines)
    tight = _share(_PROPERTY, lines) > _MOST
    return settings * len(lines) > 1 and (
        tight or (bool(sections or comments) and sections + settings + comments > _MOST)
    )


def _share(pattern: re.Pattern[str], lines: Sequence[str]) -> float:
    return sum(pattern.match(line) is not None for line in lines) / len(lines)


def _is_yaml(lines: Sequence[str]) -> bool:
    """Whether keys have something below them; ``Name: Dana`` alone is a fact as well as it is YAML."""
    if any(_is_key_of(line, below) or _is_item_of(line, below) for line, below in pairwise(lines)):
        return True
    # Documents one after the other; with text below the second mark, the first is the front matter of a note.
    inside = [line for line in lines if line.rstrip() != "---"]
    return len(lines) - len(inside) > 1 and _share(_YAML_PAIR, inside) == 1.0


def _is_key_of(line: str, below: str) -> bool:
    inner = _YAML_ITEM.match(below) or (below.startswith((" ", "\t")) and _YAML_NESTED.match(below))
    key, item = _YAML_LIST
    return bool(_YAML_KEY.match(line) and inner) or bool(key.match(line) and item.match(below))


def _is_item_of(line: str, below: str) -> bool:
    inner = below.startswith(" ") and not _BULLET.match(below) and _YAML_NESTED.match(below)
    return bool(_YAML_ITEM.match(line) and inner)


def _is_code(lines: Sequence[str]) -> bool:
    if _share(_BULLET, lines) * 2 > 1:
        return False
    certain = sum(_SURELY_CODE.match(line) is not None for line in lines)
    return certain > 1 and certain * 25 > len(lines) and _share(_LIKE_CODE, lines) > _CODE_SHARE


def json_in_words(sample: Sample, text: str, lines: Sequence[str]) -> str:
    """Name a JSON file that holds no facts, though it comes from a system that we know; "" for any other."""
    around, records = sample.around, sample.records
    if any(
        {"creationDate", "text"} <= entry.keys() for entry in sample.under("entries") if "entries" in around
    ):
        return (
            "a diary of Day One, whose entries are long prose; let an assistant write a list of the facts in"
            " it, and import that"
        )
    if any("chat_messages" in record for record in records):
        return (
            "Claude's conversations, which hold no memories; these are in memories.json or memories-000.zip"
        )
    if "data_files" in around and "version" in around:
        return "the manifest of an export from Claude; import memories-000.zip, which a link in it downloads"
    if _JSON5.match(text) or any(map(_has_more_than_json, lines)):
        return f"JSON5, or JSON with comments; write it as JSON. {INSIST}"
    return ""


def _has_more_than_json(line: str) -> bool:
    bare = _STRING.sub('""', line)
    return bare.count('"') % 2 == 0 and bool(_OUTSIDE_OF_STRINGS.search(bare))
