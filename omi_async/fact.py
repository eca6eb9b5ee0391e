"""What you send: a `Fact`, and the checks that the server will make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NotRequired, TypedDict

import attrs

from omi_async.constants import CONTENT_LENGTH, VISIBILITIES
from omi_async.errors import InvalidFactError

__all__ = ["Fact"]

PRIVATE: Final = "private"
_NONE: Final[tuple[str, ...]] = ()


class Payload(TypedDict):
    """What is sent of a fact, checked; without a category the server chooses one."""

    content: str
    visibility: str
    tags: tuple[str, ...]
    category: NotRequired[str]


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidFactError(f"{field}: must be a string, not {type(value).__name__}", field=field)
    text = value if type(value) is str else str.__str__(value)  # whatever a StrEnum's own methods say
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidFactError(
                f"{field}: holds half of a surrogate pair, which is no Unicode text", field=field
            ) from None
    return text


def _content(value: str | None) -> str:
    if value is None:
        raise InvalidFactError("content: is missing", field="content")
    text = (value if type(value) is str and value.isascii() else _text(value, "content")).strip()
    if not text:
        raise InvalidFactError("content: is empty", field="content")
    if len(text) > CONTENT_LENGTH:
        raise InvalidFactError(
            f"content: has {len(text)} characters, the server takes at most {CONTENT_LENGTH}", field="content"
        )
    return text


def _category(value: str | None) -> str | None:
    if value is None or (type(value) is str and value.isidentifier() and value.isascii()):
        return value
    word = _text(value, "category")
    if not word or "," in word or " " in word or not word.isprintable():
        raise InvalidFactError(
            "category: must be one word, such as 'interesting' or 'system'", field="category"
        )
    return word


def _visibility(value: str) -> str:
    word = value if type(value) is str else _text(value, "visibility")
    if word not in VISIBILITIES:
        raise InvalidFactError("visibility: must be exactly 'private' or 'public'", field="visibility")
    return word


def _tags(value: Iterable[str]) -> tuple[str, ...]:
    if type(value) is not list and (
        isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable)
    ):
        raise InvalidFactError(f"tags: must be a list of strings, not {type(value).__name__}", field="tags")
    tags = tuple(value)
    for tag in tags:
        if type(tag) is not str or not tag.isascii():
            return tuple([_text(tag, "tags") for tag in tags])
    return tags


@attrs.frozen(init=False)
class Fact:
    """A timeless statement about a person, to be stored as a memory.

    It is checked at construction as the server will check it; the text is kept stripped, as the server keeps
    it. Raises `InvalidFactError` (a `ValueError`) that names the field.

    Attributes:
        content: 1 to 500 characters (code points) after stripping.
        category: one word, or None to let the server choose, which costs it a language model call per fact.
            The server knows ``interesting``, ``system``, ``manual`` and others (docs.omi.me).
        visibility: ``"private"`` or ``"public"``.
        tags: any number of strings.
        origin: where the fact comes from, such as ``"facts.csv:17"``; for reports, never sent.
    """

    content: str = attrs.field(converter=_content)
    category: str | None = attrs.field(default=None, converter=_category, kw_only=True)
    visibility: str = attrs.field(default="private", converter=_visibility, kw_only=True)
    tags: tuple[str, ...] = attrs.field(default=(), converter=_tags, kw_only=True)
    origin: str | None = attrs.field(default=None, kw_only=True, eq=False)

    def __init__(
        self,
        content: str,
        *,
        category: str | None = None,
        visibility: str = PRIVATE,
        tags: Iterable[str] = _NONE,
        origin: str | None = None,
    ) -> None:
        visibility = visibility if visibility is PRIVATE else _visibility(visibility)
        checked_tags = _NONE if tags is _NONE else _tags(tags)
        _fill(self, (_content(content), _category(category), visibility, checked_tags), origin)


def _fill(
    fact: Fact, fields: tuple[str, str | None, str, tuple[str, ...]], origin: str | None = None
) -> None:
    """Do what attrs would do for a frozen class, but with the slots' own setters."""
    content, category, visibility, tags = fields
    _set_content(fact, content)
    _set_category(fact, category)
    _set_visibility(fact, visibility)
    _set_tags(fact, tags)
    _set_origin(fact, origin)


_set_content, _set_category, _set_visibility, _set_tags, _set_origin = [
    vars(Fact)[field.name].__set__ for field in attrs.fields(Fact)
]


def fact_from(item: Fact | str | Mapping[str, Any]) -> Fact:
    """Make a `Fact` of what an import was given.

    A mapping may hold other keys too; None stands for an absent value. Raises `InvalidFactError` with the
    item as its `record`, and nothing else, whatever the item is.
    """
    return item if isinstance(item, Fact) else fact_of(checked(item))


def fact_of(payload: Payload) -> Fact:
    """Make the `Fact` of which this is sent."""
    fact = object.__new__(Fact)
    _fill(fact, (payload["content"], payload.get("category"), payload["visibility"], payload["tags"]))
    return fact


def fact_payload(fact: Fact) -> Payload:
    """Return what is sent of a fact."""
    payload: Payload = {"content": fact.content, "visibility": fact.visibility, "tags": fact.tags}
    if fact.category is not None:
        payload["category"] = fact.category
    return payload


def checked(item: Fact | str | Mapping[str, Any]) -> Payload:
    """Return what is sent of the `Fact` that `fact_from` would make, and make none. Raises as that does."""
    try:
        if type(item) is not dict:
            if isinstance(item, Fact):
                return fact_payload(item)
            if isinstance(item, str):
                return {"content": _content(item), "visibility": PRIVATE, "tags": _NONE}
            if not isinstance(item, Mapping):
                raise InvalidFactError(
                    f"a fact must be a Fact, a string or a mapping, not {type(item).__name__}"
                )
        content: Any = item.get("content")
        category: Any = item.get("category")
        visibility: Any = item.get("visibility")
        tags: Any = item.get("tags")
        # No call for what is plainly good.
        text = content.strip() if type(content) is str and content.isascii() else ""
        if not text or len(text) > CONTENT_LENGTH:
            text = _content(content)
        if type(category) is not str or not category.isidentifier() or not category.isascii():
            category = None if category is None else _category(category)
        visibility = PRIVATE if visibility is None else _visibility(visibility)
        tags = _NONE if tags is None else _tags(tags)
    except InvalidFactError as error:
        error.record = item
        raise
    except Exception as error:  # a mapping or an iterable of tags may be anybody's code
        raise InvalidFactError(f"cannot be read: {type(error).__name__}", record=item) from error
    payload: Payload = {"content": text, "visibility": visibility, "tags": tags}
    if category is not None:
        payload["category"] = category
    return payload


def checked_changes(
    *, content: str | None, visibility: str | None, category: str | None, tags: Iterable[str] | None
) -> dict[str, Any]:
    """Return the fields to change, each checked as a `Fact` checks it; None means: leave it alone."""
    changes: dict[str, Any] = {}
    if content is not None:
        changes["content"] = _content(content)
    if visibility is not None:
        changes["visibility"] = _visibility(visibility)
    if category is not None:
        changes["category"] = _category(category)
    if tags is not None:
        changes["tags"] = _tags(tags)
    return changes
