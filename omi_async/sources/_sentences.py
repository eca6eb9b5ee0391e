"""Where a sentence ends, and how a text that is too long is split without cutting one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from omi_async.constants import CONTENT_LENGTH

__all__ = ["sentences", "split"]

_END: Final = re.compile(
    "[.!?\u2026]+[\"'\u201d\u2019\xbb)\\]]*(?=\\s)"
    "|[\u3002\uff01\uff1f\uff61\u0964\u06d4\u061f]+[\"'\u201d\u2019\xbb\u300d\u300f\uff09)\\]]*"
)
"""The end of a sentence: marks of Latin scripts need a space behind them, so that no number is cut."""

_ABBREVIATIONS: Final = frozenset(
    [
        "dr",
        "mr",
        "mrs",
        "ms",
        "mx",
        "prof",
        "st",
        "sr",
        "jr",
        "fr",
        "hr",
        "rev",
        "gen",
        "col",
        "capt",
        "lt",
        "sgt",
        "hon",
        "pres",
        "gov",
        "messrs",
        "mme",
        "mlle",
        "vs",
        "etc",
        "e.g",
        "i.e",
        "cf",
        "al",
        "approx",
        "ca",
        "est",
        "no",
        "nr",
        "vol",
        "p",
        "pp",
        "fig",
        "ed",
        "eds",
        "dept",
        "univ",
        "inc",
        "ltd",
        "co",
        "corp",
        "bros",
        "ave",
        "blvd",
        "rd",
        "apt",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
        "z.b",
        "u.a",
        "d.h",
        "bzw",
        "usw",
        "ggf",
        "evtl",
        "inkl",
        "str",
        "tel",
        "p.m",
        "a.m",
        "u.s",
        "u.k",
    ]
)
"""Words that end in a full stop without ending a sentence (lower case, without their last stop)."""

_BLANK_LINES: Final = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_NEW_LINE: Final = re.compile(r"\n+")


def sentences(text: str) -> list[str]:
    """Split a paragraph after each sentence; all that is not white space is in one of the pieces."""
    return [piece for piece in map(str.strip, _pieces(text)) if piece]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        if _ends_a_sentence(text[start : end.start()], end[0], text[end.end() :]):
            yield text[start : end.end()]
            start = end.end()
    yield text[start:]


def _ends_a_sentence(before: str, mark: str, behind: str) -> bool:
    if not mark.startswith("."):
        return True
    follows = behind.lstrip()[:1]
    if follows.islower():  # "approx. three", "e.g. tea", and whatever abbreviation is not in the list
        return False
    word = before.rpartition(" ")[2].rpartition("\n")[2].lstrip("\"'“\u2018«([").casefold()
    # One letter is an initial ("J. R. Hartley"); a number alone in its line is that of a list ("1. Tea").
    return not (mark == "." and (word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha())))


def split(text: str, longest: int = CONTENT_LENGTH) -> list[str]:
    """Split a text at paragraphs, then at lines, then behind sentences, no further than it takes to fit.

    A sentence that is too long itself stays whole: it is for the caller to refuse it.
    """
    fitting: list[str] = []
    for paragraph in _parts(_BLANK_LINES, text):
        if len(paragraph) <= longest:
            fitting.append(paragraph)
            continue
        for line in _parts(_NEW_LINE, paragraph):
            fitting += [line] if len(line) <= longest else _packed(sentences(line), longest)
    return fitting


def _parts(border: re.Pattern[str], text: str) -> list[str]:
    return [part for part in map(str.strip, border.split(text)) if part]


def _packed(pieces: list[str], longest: int) -> list[str]:
    """Join neighbours again as long as they fit: what stands together explains itself better."""
    packed: list[str] = []
    for piece in pieces:
        if packed and len(packed[-1]) + 1 + len(piece) <= longest:
            packed[-1] = f"{packed[-1]} {piece}"
        else:
            packed.append(piece)
    return packed
