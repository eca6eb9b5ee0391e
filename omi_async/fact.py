"""What you send: a `Fact`, and the checks that the server will make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NotRequired, Protocol, TypeAlias, TypedDict

import attrs

from omi_async.constants import CONTENT_LENGTH, VISIBILITIES
from omi_async.errors import InvalidFactError

__all__ = ["AnyFact", "Fact", "Payload", "checked", "checked_changes", "fact_from", "refuse_table"]


class Payload(TypedDict):
    """What is sent of a fact, checked; without a category the server chooses one."""

    content: str
    visibility: str
    tags: tuple[str, ...]
    category: NotRequired[str]


def _text(value: object, field: str) -> str:
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise InvalidFactError(f"{field}: must be a string, not {type(value).__name__}", field=field)
    text = str.__str__(value)  # whatever the methods of a StrEnum say
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidFactError(
            f"{field}: holds half of a surrogate pair, which is no Unicode text", field=field
        ) from None
    return text


_LISTS: Final = (tuple, list)
_NO_LISTS: Final = (str, bytes, Mapping)

# One function a field. Each is its converter in `Fact`, and what checks a mapping's value for it.


def _content(value: str) -> str:
    if value is None:
        raise InvalidFactError("content: is missing", field="content")
    # Stripped first: the server keeps the text stripped, and a `Fact` holds what the server will hold.
    text = value if type(value) is str and value.isascii() else _text(value, "content")
    text = text.strip()
    if not text:
        raise InvalidFactError("content: is empty", field="content")
    if len(text) > CONTENT_LENGTH:
        raise InvalidFactError(
            f"content: has {len(text)} characters, the server takes at most {CONTENT_LENGTH}", field="content"
        )
    return text


def _category(value: str | None) -> str | None:
    # Nearly all are None or a plain word, which holds nothing that is looked for below.
    if value is None or (type(value) is str and value.isidentifier() and value.isascii()):
        return value
    word = _text(value, "category")
    # Any word, since the server's list of them grows; but the list's filter separates them by commas.
    if not word or "," in word or " " in word or not word.isprintable():
        raise InvalidFactError(
            "category: must be one word, such as 'interesting' or 'system'", field="category"
        )
    return word


def _visibility(value: str) -> str:
    word = value if type(value) is str else _text(value, "visibility")
    # The server takes any word here, and calls it private: what was meant for all would be hidden in silence.
    if word not in VISIBILITIES:
        raise InvalidFactError("visibility: must be exactly 'private' or 'public'", field="visibility")
    return word


def _tags(value: Iterable[str]) -> tuple[str, ...]:
    # A string is an iterable of strings too, and would become a tag a letter.
    if type(value) not in _LISTS and (isinstance(value, _NO_LISTS) or not isinstance(value, Iterable)):
        raise InvalidFactError(f"tags: must be a list of strings, not {type(value).__name__}", field="tags")
    tags = tuple(value)
    for tag in tags:
        if type(tag) is not str or not tag.isascii():  # else there is nothing to check: nearly always
            return tuple([_text(it, "tags") for it in tags])
    return tags


@attrs.frozen
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

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it."""
        return attrs.asdict(self, recurse=False) | {"tags": [*self.tags]}


class Record(Protocol):
    """What has named values, as a dict has, a `sqlite3.Row` or a database driver's record."""

    def keys(self) -> Iterable[str]:
        """Return the names."""
        ...

    def __getitem__(self, name: str, /) -> Any:
        """Return the value of that name."""
        ...


AnyFact: TypeAlias = Fact | str | Mapping[str, Any] | Record
"""What is taken for a fact: one, its text, or anything with named values, ``content`` among them."""

FIELDS: Final = frozenset({"content", "category", "visibility", "tags"})


def fact_from(item: AnyFact) -> Fact:
    """Make a `Fact` of what an import was given.

    A mapping may hold other keys too. Raises `InvalidFactError` with the item as its `record`, and nothing
    else, whatever the item is.
    """
    return item if isinstance(item, Fact) else fact_of(checked(item))


def fact_of(payload: Payload) -> Fact:
    """Make the `Fact` of which this is sent."""
    return Fact(
        payload["content"],
        category=payload.get("category"),
        visibility=payload["visibility"],
        tags=payload["tags"],
    )


def fact_payload(fact: Fact) -> Payload:
    """Return what is sent of a fact."""
    payload: Payload = {"content": fact.content, "visibility": fact.visibility, "tags": fact.tags}
    if fact.category is not None:
        payload["category"] = fact.category
    return payload


def checked(item: AnyFact) -> Payload:
    """Return what is sent of the `Fact` that `fact_from` would make, and make none. Raises as that does.

    An import that is asked for no outcomes needs no `Fact`, and a `Fact` costs as much as its checks.
    """
    try:
        # A dict first: to ask for a Mapping takes as long as all the checks of a fact.
        if type(item) is dict:
            return _payload_of(item)
        if isinstance(item, Fact):
            return fact_payload(item)
        if isinstance(item, str):
            return {"content": _content(item), "visibility": "private", "tags": ()}
        return _payload_of(item if isinstance(item, Mapping) else _named_values(item))
    except InvalidFactError as error:
        error.record = item
        raise
    except Exception as error:  # a mapping or an iterable of tags may be anybody's code
        raise InvalidFactError(f"cannot be read: {type(error).__name__}", record=item) from error


def _payload_of(record: Mapping[str, Any]) -> Payload:
    content: Any = record.get("content")
    category: Any = record.get("category")
    visibility: Any = record.get("visibility")
    tags: Any = record.get("tags")
    # What nearly all of them are is seen here: to call a field's function costs more than its check.
    text = content.strip() if type(content) is str and content.isascii() else ""
    if not 0 < len(text) <= CONTENT_LENGTH:
        text = _content(content)
    payload: Payload = {
        "content": text,
        "visibility": "private" if visibility is None or _is_absent(visibility) else _visibility(visibility),
        "tags": () if tags is None or (type(tags) is not list and _is_absent(tags)) else _tags(tags),
    }
    if type(category) is str and category.isidentifier() and category.isascii():
        payload["category"] = category
    elif not _is_absent(category):
        payload["category"] = _category(category)  # type: ignore[typeddict-item]  # None is absent
    return payload


def _is_absent(value: object) -> bool:
    """Whether a value is what tables hold in an empty cell: None, an empty text, NaN."""
    if value is None or isinstance(value, str):
        return not value
    return isinstance(value, float) and value != value  # noqa: PLR0124  # so NaN is told apart


def _named_values(item: object) -> dict[str, Any]:
    """Return the fields of a fact from what has `keys()` and ``[]``, but need be no `Mapping`."""
    keys = getattr(item, "keys", None)
    if not callable(keys) or not hasattr(item, "__getitem__"):
        raise InvalidFactError(f"a fact must be a Fact, a string or a mapping, not {type(item).__name__}")
    # By its keys, not by trying: for a name that it lacks, a sqlite3.Row raises IndexError, others KeyError.
    return {name: item[name] for name in keys() if name in FIELDS}


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


_ROWS_OF: Final = {
    "to_dicts": "(frame.to_dicts())",
    "to_pylist": "(table.to_pylist())",
    "to_dict": '(frame.to_dict("records"))',
}
"""The method that makes dicts of the rows of a table (polars, pyarrow, pandas), what to pass."""


def refuse_table(source: object) -> None:
    """Raise TypeError for a source of facts that gives the names of its columns, or whole columns, instead.

    An import of it would succeed, and store the words "content" and "category".
    """
    if isinstance(source, Mapping):
        raise TypeError("facts must be an iterable of facts, and a mapping is one fact: pass it in a list")
    columns = getattr(source, "columns", getattr(source, "column_names", None))
    if columns is None or callable(columns):  # a database's result has a method of that name
        return
    how = next((f" {call}" for name, call in _ROWS_OF.items() if hasattr(source, name)), "")
    raise TypeError(f"a {type(source).__name__} gives its columns, not its rows: pass these as dicts{how}")
