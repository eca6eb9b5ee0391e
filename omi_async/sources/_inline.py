"""What stands inside of a line of Markdown: tags, links, comments; and how to write a text that has none."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escaped", "inline", "is_only_an_embed", "unescaped"]

_WORDS: Final = r"(?:TODO|DOING|DONE|LATER|NOW|WAITING|CANCELED)\s|\d{4}-\d\d-\d\d|[\w./-]+::"
_GUARD: Final = re.compile(rf"\\(?:[$&-;=>?@\[-\]_-~\"']|{_WORDS})")
_LOOKALIKE: Final = re.compile(rf"[-\[`~]|{_WORDS}|{_GUARD.pattern}")
"""What, at the start of a bullet's text, a reader would take for something else; a backslash guards it."""

_SPECIAL: Final = re.compile(r"(\\*)(\n|<br[ ]?/?>|#(?=[\w/\[-])|\[\[|!\[|%%|<!--|\^(?=[\w-]+$))")
"""What, anywhere in a line, is no text; an odd number of backslashes in front of it make it one."""

_MARK: Final = re.compile(r"[\\\n#\[%<^\0]")
"""One of which a line has that says anything but words."""

_COMMENT: Final = re.compile(r"\s*(?:%%.*?%%|<!--.*?-->)\s*")
_EMBED: Final = re.compile(r"\s*(?:!\[\[[^\]]*\]\]|!\[[^\]]*\]\([^)]*\))\s*")
_LINK: Final = re.compile(r"\[\[(?P<target>[^\[\]|#^]++)[^\[\]|]*+(?:\|(?P<alias>[^\[\]]*+))?\]\]")
_BLOCK_ID: Final = re.compile(r"\s\^[\w-]+$")

_TAG_WORD: Final = r"#(?:\[\[[^\]]+\]\]|(?=[\w/-]*[^\W\d])[\w/-]+)"
"""A tag has a letter in it: ``#12`` is a number, and the ``#`` of ``C#`` begins nothing."""

_TAG: Final = re.compile(rf"(?:(?<=\s)|^){_TAG_WORD}")
_TAGS_AROUND: Final = re.compile(rf"^(?:{_TAG_WORD}(?:\s+|$))+|(?:(?:\s+|^){_TAG_WORD})+$")

_LONGEST: Final = 20_000
"""Characters of a line that is looked into. What is longer is no line of a person's notes, and to look for
marks in it may take a time that grows with the square of its length."""

_HELD: Final = re.compile("\0([0-9]+)\0")


def escaped(text: str) -> str:
    """Write a text so that it stands on one line, behind a bullet, and is read back as it was."""
    line = _SPECIAL.sub(_write, text)
    return f"\\{line}" if _LOOKALIKE.match(line) else line


def _write(found: re.Match[str]) -> str:
    slashes, what = found.groups()
    return f"{slashes * 2}<br>" if what == "\n" else f"{slashes * 2}\\{what}"


def unescaped(line: str) -> str:
    """Read the text behind a bullet as `escaped` wrote it, with no other meaning in it."""
    text, held = _hold(line)
    return _HELD.sub(lambda found: held[int(found[1])], text)


def inline(line: str) -> tuple[str, tuple[str, ...]]:
    """Read the text behind a bullet; return it without what Markdown's dialects put into it, and its tags.

    Tags at either end leave the text; one in the middle is a word of the sentence, and only loses its mark.
    """
    if _MARK.search(line) is None:
        return line.strip(), ()
    if "\0" in line or len(line) > _LONGEST:  # no text, as its reader will say
        return line, ()
    text, held = _hold(line)
    text = _EMBED.sub(" ", _COMMENT.sub(" ", text)).strip()
    text = _BLOCK_ID.sub("", text).strip()
    tags = [tag[1:].removeprefix("[[").removesuffix("]]") for tag in _TAG.findall(text)]
    text = _TAGS_AROUND.sub("", text).strip()
    text = _TAG.sub(lambda found: found[0][1:], text)
    text = _LINK.sub(lambda found: (found["alias"] or found["target"]).strip(), text)
    text = _HELD.sub(lambda found: held[int(found[1])], text).strip()
    return text, tuple(dict.fromkeys(tags))


def is_only_an_embed(line: str) -> bool:
    """Whether a line shows a picture or another note, and says nothing itself."""
    return bool(_EMBED.fullmatch(line))


def _hold(line: str) -> tuple[str, list[str]]:
    """Take the guard off, and put what is to be text out of reach of all that looks for marks."""
    if "\\" not in line and "<br" not in line:
        return line, []
    held: list[str] = []

    def read(found: re.Match[str]) -> str:
        slashes, what = found.groups()
        half = slashes[: len(slashes) // 2]
        if len(slashes) % 2:
            held.append(what)
            return f"{half}\0{len(held) - 1}\0"
        return f"{half}\n" if what.startswith("<br") else f"{half}{what}"

    return _SPECIAL.sub(read, line[1:] if _GUARD.match(line) else line), held
