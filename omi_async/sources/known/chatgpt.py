"""ChatGPT: an export has no list of memories, but its conversations show them.

What the model was shown as its memories (``model_editable_context``) is the list as it stood then; the newest
one counts. What it wrote to memory after that (a message to ``bio``) comes on top: earlier ones are in the
list, or were deleted. A person's own profile (``user_editable_context``) is taken in its newest form too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

from omi_async.sources._json_scanner import Scanner
from omi_async.sources._options import ReadOptions
from omi_async.sources._samples import Sample
from omi_async.sources._sentences import sentences
from omi_async.sources._statements import Found, LeftOut, Statement
from omi_async.sources.known._values import date_of
from omi_async.sources.known.pasted_list import ListLine, line_of

__all__ = ["matches", "read"]

_FENCED: Final = re.compile(r"```(?:\w*[ \t]*\n)?(?P<inside>.*?)(?:```|\Z)", re.DOTALL)
_FORGET: Final = re.compile(r"(?:please\s+)?forget\b", re.IGNORECASE)

When = float
"""Seconds since 1970; 0 if a message has no time, and its conversation neither."""


def matches(sample: Sample) -> bool:
    """Whether a record is a conversation, kept as a tree of messages."""
    return any(
        isinstance(record.get("mapping"), dict) and ("title" in record or "current_node" in record)
        for record in sample.under("conversations")
    )


@attrs.define
class _Conversation:
    """What a conversation shows of memories; whether it counts is known at its end."""

    created: When = 0.0
    forgotten: bool = False
    written: list[tuple[When, str, int]] = attrs.field(factory=list)
    lists: list[tuple[When, str, int]] = attrs.field(factory=list)
    profiles: list[tuple[When, str, int]] = attrs.field(factory=list)
    instructions: list[tuple[When, str, int]] = attrs.field(factory=list)

    @property
    def size(self) -> int:
        """How much there is to leave out."""
        return sum(map(len, (self.written, self.lists, self.profiles, self.instructions)))


def read(scanner: Scanner, options: ReadOptions) -> Iterator[Found]:
    """Read all conversations, and yield what they show at the end of the last."""
    everything = _Conversation()
    while mark := scanner.peek():
        if mark in ",]}":
            scanner.fail(f"{mark!r} closes or follows nothing; fix the document")
        if mark != "[":
            yield from _gather(scanner, everything)
            continue
        for _ in scanner.elements():
            yield from _gather(scanner, everything)
    yield from _conclusion(everything, options)


def _gather(scanner: Scanner, everything: _Conversation) -> Iterator[Found]:
    """Read a conversation, and add what it shows."""
    if scanner.peek() != "{":
        scanner.skip()
        return
    found = _Conversation()
    for key in scanner.members():
        if key == "mapping" and scanner.peek() == "{":
            for _ in scanner.members():
                line = scanner.line
                value, _ = scanner.value()
                _note_message(value.get("message") if isinstance(value, dict) else None, line, found)
        elif key in {"create_time", "is_do_not_remember"}:
            value, _ = scanner.value()
            if key == "create_time":
                found.created = _when(value)
            else:
                found.forgotten = value is True
        else:
            scanner.skip()
    if found.forgotten:
        for _ in range(found.size):
            yield LeftOut("not to be remembered")
        return
    for name in ("written", "lists", "profiles", "instructions"):
        dated = [(when or found.created, text, line) for when, text, line in getattr(found, name)]
        getattr(everything, name).extend(dated)
    _keep_the_newest(everything)


def _keep_the_newest(everything: _Conversation) -> None:
    """Drop older lists and profiles at once: there is one in each of thousands of conversations."""
    for name in ("lists", "profiles", "instructions"):
        entries = getattr(everything, name)
        setattr(everything, name, [max(reversed(entries), key=lambda entry: entry[0])] if entries else [])


def _note_message(message: Any, line: int, found: _Conversation) -> None:
    if not isinstance(message, dict):
        return
    content = message.get("content")
    content = content if isinstance(content, dict) else {}
    when = _when(message.get("create_time"))
    kind = content.get("content_type")
    about = _about_user(message.get("metadata"))
    if str(message.get("recipient") or "").split(".")[0] == "bio" and _role(message) == "assistant":
        found.written.append((when, _text_of(content), line))
    elif kind == "model_editable_context" and str(content.get("model_set_context") or "").strip():
        found.lists.append((when, str(content["model_set_context"]), line))
    elif kind == "user_editable_context" or about:
        profile, instructions = content.get("user_profile") or about, content.get("user_instructions")
        if isinstance(profile, str) and profile.strip():
            found.profiles.append((when, profile, line))
        if isinstance(instructions, str) and instructions.strip():
            found.instructions.append((when, instructions, line))


def _role(message: dict[str, Any]) -> object:
    author = message.get("author")
    return author.get("role") if isinstance(author, dict) else None


def _about_user(metadata: Any) -> object:
    """Return the profile as exports of 2023 have it."""
    data = metadata.get("user_context_message_data") if isinstance(metadata, dict) else None
    return data.get("about_user_message") if isinstance(data, dict) else None


def _text_of(content: dict[str, Any]) -> str:
    if content.get("content_type") == "code":
        return str(content.get("text") or "")
    parts = content.get("parts")
    return "\n".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else ""


def _when(value: object) -> When:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _conclusion(everything: _Conversation, options: ReadOptions) -> Iterator[Found]:
    told: set[str] = set()
    for _, text, line in everything.lists:
        for entry in _entries(text):
            told.add(entry.text)
            yield Statement(entry.text, entry.tags, entry.date, line)
    yield from _written(everything, told)
    for _, text, line in everything.profiles:
        yield from _sentences(text, line)
    for _, text, line in everything.instructions:
        if "instructions" in options.include:
            yield from _sentences(text, line)
        else:
            yield LeftOut("instructions")


def _written(everything: _Conversation, told: set[str]) -> Iterator[Found]:
    """Yield what was written to memory after the newest list; each text once."""
    since = everything.lists[0][0] if everything.lists else -1.0
    for when, text, line in sorted(everything.written, key=lambda entry: entry[0]):
        for words in map(line_of, filter(str.strip, text.splitlines())):
            if words.text in told:
                yield LeftOut("repeated")
            elif _FORGET.match(words.text):
                yield LeftOut("request to forget")
            elif when <= since:
                yield LeftOut("not in the newest list")
            else:
                told.add(words.text)
                yield Statement(words.text, words.tags, words.date or date_of(when or None), line)


def _entries(text: str) -> list[ListLine]:
    """Read the list; a line without a number goes on with the one above."""
    entries: list[ListLine] = []
    for line in filter(str.strip, text.splitlines()):
        entry = line_of(line)
        if entries and not entry.prefixed:
            entries[-1] = attrs.evolve(entries[-1], text=f"{entries[-1].text} {entry.text}")
        else:
            entries.append(entry)
    return [entry for entry in entries if entry.text]


def _sentences(text: str, line: int) -> Iterator[Found]:
    fenced = _FENCED.search(text)
    for paragraph in (fenced["inside"] if fenced else text).splitlines():
        for sentence in sentences(paragraph):
            yield Statement(sentence, line=line)
