"""The checks that FastAPI and pydantic make of a request, with their words.

Measured on FastAPI with pydantic 2: the types, messages and places of the errors are theirs, so that a client
that reads them here can read them on the service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from omi_async.constants import BATCH_SIZE, CONTENT_LENGTH
from omi_async.local.messages import ABSENT, BROKEN_DOWN, JSON_TYPE, Refusal, Reply

CATEGORIES: Final = (
    "interesting", "system", "manual", "workflow", "core", "hobbies", "lifestyle",
    "interests", "habits", "work", "skills", "learnings", "other", "auto",
)  # fmt: skip
"""The category enum of the published OpenAPI document."""

_CATEGORY_SET: Final = frozenset(CATEGORIES)
_EXPECTED: Final = ", ".join(f"'{name}'" for name in CATEGORIES[:-1]) + f" or '{CATEGORIES[-1]}'"
_MISSING: Final[Any] = object()

DEEPEST: Final = 990
"""Levels of brackets that the service's parser reads: what Python's limit of 1,000 calls leaves of it."""

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

Place = tuple[str | int, ...]


@attrs.define
class Draft:
    """A memory that a client wants stored, its fields checked, its text not yet stripped."""

    content: str
    category: str | None
    visibility: str
    tags: list[str]


@attrs.define
class Patch:
    """The changes that a client wants; None leaves a field alone."""

    content: str | None
    visibility: str | None
    tags: list[str] | None
    category: str | None


@attrs.define
class Problems:
    """The errors found so far, as pydantic lists them."""

    found: list[dict[str, Any]] = attrs.field(factory=list)

    def add(self, kind: str, place: Place, message: str, given: Any, **ctx: Any) -> None:
        """Note one error; `ctx` holds the limits that were broken."""
        problem = {"type": kind, "loc": list(place), "msg": message, "input": given}
        if ctx:
            problem["ctx"] = ctx
        self.found.append(problem)

    def check(self) -> None:
        """Raise the 422 that lists what was found, if anything was."""
        if self.found:
            raise Refusal(unprocessable(self.found))


def unprocessable(problems: Sequence[Mapping[str, Any]]) -> Reply:
    """Make the 422 of a schema violation. Input that cannot be echoed breaks it, as it breaks the service."""
    try:
        # The standard library's, as the service's is: it alone refuses NaN and half surrogates in what it
        # echoes.
        body = json.dumps(
            {"detail": problems}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except ValueError:  # half a surrogate pair, or NaN
        return BROKEN_DOWN
    return Reply(422, body)


def read_payload(body: bytes, content_type: str | None) -> Any:
    """Read the body as FastAPI does: `ABSENT` if empty, plain text if it does not say that it is JSON.

    Raises `Refusal`, a 422 for what is no JSON, a 400 for bytes that are no text.
    """
    if not body:
        return ABSENT
    # FastAPI looks at the header before the body: JSON without it is a string, and fails as one.
    if content_type != JSON_TYPE and not _says_json(content_type or ""):
        return body.decode(errors="replace")
    return _read_json(body)


def _says_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == JSON_TYPE or (kind.startswith("application/") and kind.endswith("+json"))


def _read_json(body: bytes) -> Any:
    """Read with the service's parser, which is laxer (NaN, half surrogates) and says where it stopped."""
    try:
        # Counted, since how deep is too deep for Python's own parser differs from version to version.
        if body.count(b"[") + body.count(b"{") > DEEPEST and _depth(body) > DEEPEST:
            raise RecursionError
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise Refusal(unprocessable([_json_invalid(error)])) from None
    except (ValueError, RecursionError):
        raise Refusal.because(400, "There was an error parsing the body") from None


def _depth(body: bytes) -> int:
    """Return how deep brackets are nested, those in strings left out."""
    depth = deepest = 0
    for mark in _STRING.sub(b"", body):
        depth += (mark in b"[{") - (mark in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _json_invalid(error: json.JSONDecodeError) -> dict[str, Any]:
    return {
        "type": "json_invalid",
        "loc": ["body", error.pos],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": error.msg},
    }


def read_draft(payload: Any) -> Draft:
    """Check the body of a create. Raises `Refusal` (422)."""
    problems = Problems()
    fields = _object(payload, ("body",), problems)
    draft = None if fields is None else _draft(fields, ("body",), problems)
    problems.check()
    assert draft is not None  # noqa: S101 - problems.check() has raised otherwise
    return draft


def read_drafts(payload: Any) -> list[Draft]:
    """Check the body of a batch. Raises `Refusal` (422) that names every bad item by its index."""
    problems = Problems()
    fields = _object(payload, ("body",), problems)
    drafts = [] if fields is None else _drafts(fields, problems)
    problems.check()
    return drafts


def read_patch(payload: Any) -> Patch:
    """Check the body of an update. Raises `Refusal` (422)."""
    problems = Problems()
    fields = _object(payload, ("body",), problems) or {}
    content, visibility, tags = fields.get("content"), fields.get("visibility"), fields.get("tags")
    if content is not None:
        _content(content, ("body", "content"), problems)
    if visibility is not None:
        _string(visibility, ("body", "visibility"), problems)
    if tags is not None:
        _tags(tags, ("body", "tags"), problems)
    category = _category(fields, ("body",), problems)
    problems.check()
    return Patch(content, visibility, tags, category)


def _object(payload: Any, place: Place, problems: Problems) -> dict[str, Any] | None:
    if payload is ABSENT:
        problems.add("missing", place, "Field required", None)
    elif not isinstance(payload, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        problems.add("model_attributes_type", place, message, payload)
    else:
        return payload
    return None


def _drafts(fields: dict[str, Any], problems: Problems) -> list[Draft]:
    place: Place = ("body", "memories")
    items = fields.get("memories", _MISSING)
    if items is _MISSING:
        problems.add("missing", place, "Field required", fields)
    elif not isinstance(items, list):
        problems.add("list_type", place, "Input should be a valid list", items)
    elif len(items) > BATCH_SIZE:
        message = f"List should have at most {BATCH_SIZE} items after validation, not {len(items)}"
        limits = {"field_type": "List", "max_length": BATCH_SIZE, "actual_length": len(items)}
        problems.add("too_long", place, message, items, **limits)
    else:
        return _each_draft(items, problems)
    return []


def _each_draft(items: list[Any], problems: Problems) -> list[Draft]:
    drafts = []
    for index, item in enumerate(items):
        place = ("body", "memories", index)
        if (fields := _object(item, place, problems)) is not None:
            drafts.append(_draft(fields, place, problems))
    return drafts


def _draft(fields: dict[str, Any], place: Place, problems: Problems) -> Draft:
    content = fields.get("content", _MISSING)
    if content is _MISSING:
        problems.add("missing", (*place, "content"), "Field required", fields)
    else:
        _content(content, (*place, "content"), problems)
    category = _category(fields, place, problems)
    visibility = fields.get("visibility", "private")
    _string(visibility, (*place, "visibility"), problems)
    tags = fields.get("tags", [])
    _tags(tags, (*place, "tags"), problems)
    return Draft(content, category, visibility, tags)


def _content(value: Any, place: Place, problems: Problems) -> None:
    if not _string(value, place, problems):
        return
    if not value:
        problems.add(
            "string_too_short", place, "String should have at least 1 character", value, min_length=1
        )
    elif len(value) > CONTENT_LENGTH:
        message = f"String should have at most {CONTENT_LENGTH} characters"
        problems.add("string_too_long", place, message, value, max_length=CONTENT_LENGTH)


def _string(value: Any, place: Place, problems: Problems) -> bool:
    if not isinstance(value, str):
        problems.add("string_type", place, "Input should be a valid string", value)
        return False
    if not value.isascii() and _half_surrogate(value):
        message = "Input should be a valid string, unable to parse raw data as a unicode string"
        problems.add("string_unicode", place, message, value)
        return False
    return True


def _half_surrogate(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _tags(value: Any, place: Place, problems: Problems) -> None:
    if not isinstance(value, list):
        problems.add("list_type", place, "Input should be a valid list", value)
        return
    for index, tag in enumerate(value):
        _string(tag, (*place, index), problems)


def _category(fields: dict[str, Any], place: Place, problems: Problems) -> str | None:
    value = fields.get("category")
    if value is None or (isinstance(value, str) and value in _CATEGORY_SET):
        return value
    problems.add("enum", (*place, "category"), f"Input should be {_EXPECTED}", value, expected=_EXPECTED)
    return None


def read_integer(query: Mapping[str, str], name: str, default: int, problems: Problems) -> int:
    """Read a whole number of the query as pydantic does: "5", "+5", " 5", "1_000" and "5.0" are numbers."""
    given = query.get(name)
    if given is None:
        return default
    try:
        # int() alone would also take digits of other scripts, which pydantic does not.
        return int(re.sub(r"\.0+\s*$", "", given.encode("ascii").decode()))
    except ValueError:
        message = "Input should be a valid integer, unable to parse string as an integer"
        problems.add("int_parsing", ("query", name), message, given)
        return default


def read_categories(query: Mapping[str, str]) -> list[str]:
    """Read the category filter of the list. Raises `Refusal` (400) if one word is no category."""
    wanted = [name.strip() for name in query.get("categories", "").split(",") if name.strip()]
    if not _CATEGORY_SET.issuperset(wanted):
        raise Refusal.because(400, "Invalid category. Please provide a valid category.")
    return wanted


def read_search(query: Mapping[str, str]) -> tuple[str, int]:
    """Read the words and the limit of a search. Raises `Refusal` (422)."""
    problems = Problems()
    words = query.get("query")
    if words is None:
        problems.add("missing", ("query", "query"), "Field required", None)
    elif not words:
        message = "String should have at least 1 character"
        problems.add("string_too_short", ("query", "query"), message, "", min_length=1)
    limit = read_integer(query, "limit", 10, problems)
    place, given = ("query", "limit"), query.get("limit")
    if limit < 1:
        problems.add("greater_than_equal", place, "Input should be greater than or equal to 1", given, ge=1)
    elif limit > 100:  # noqa: PLR2004 - the maximum of the published document
        problems.add("less_than_equal", place, "Input should be less than or equal to 100", given, le=100)
    problems.check()
    return words or "", limit
