"""Which column of a table is the text, the category, the visibility, the tags."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from omi_async._api.json import loads
from omi_async.errors import InvalidFactError
from omi_async.sources._fields import FIELD_NAMES, TEXT_KEYS, Parts
from omi_async.sources._options import ReadOptions

__all__ = ["Columns", "columns_of", "in_one_form"]

USUAL: Final = f"{', '.join(TEXT_KEYS[:-1])} or {TEXT_KEYS[-1]}"
"""The usual names of the text, for people."""

_HIGHLIGHT: Final = "highlight"
"""In a reading list, the column `Note` says what the reader thought of this one."""


@attrs.frozen
class Columns:
    """Finds the parts of a fact in the rows below a header.

    Attributes:
        header: the names of the columns, as they stand in the file.
        places: field of a fact to the number of its column.
        named: name in a template or a filter to the number of its column.
        problem: why the header cannot be used, or "".
        options: what the caller chose.
    """

    options: ReadOptions
    header: Sequence[str]
    places: Mapping[str, int]
    named: Mapping[str, int] = attrs.field(factory=dict)
    problem: str = ""

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.header)

    @property
    def known(self) -> int:
        """How many columns hold a part of a fact."""
        return len(self.places) + len(self.named)

    @property
    def in_words(self) -> dict[str, str]:
        """Field of a fact to the name of its column, or to the template."""
        words = {field: self.header[place] for field, place in self.places.items()}
        template = self.options.fields.template
        return words if template is None else {"content": template.text, **words}

    def wants(self, row: Sequence[str]) -> bool:
        """Whether the caller's filter lets a row through."""
        where = self.options.where
        return not where or where.wants(lambda name: _cell(row, self.named[name]))

    def parts_of(self, row: Sequence[str]) -> Parts:
        """Find the parts of a fact in a row, whose missing cells are empty. Raises `InvalidFactError`."""
        place_of, template = self.places.get, self.options.fields.template
        if template is not None:
            content = template.render(lambda name: _cell(row, self.named[name]))
        else:
            content = _cell(row, place_of("content"))
        category, visibility = _cell(row, place_of("category")), _cell(row, place_of("visibility"))
        return Parts(content, category.strip(), visibility, _tags(_cell(row, place_of("tags"))))

    def record_of(self, row: Sequence[str]) -> dict[str, Any]:
        """Return what the row says, as JSON would say it: a failures file is JSON."""
        template = self.options.fields.template
        if template is not None:
            return dict(zip(self.header, row, strict=False))
        record: dict[str, Any] = dict.fromkeys(FIELD_NAMES, "")
        record |= {field: _cell(row, place) for field, place in self.places.items()}
        with contextlib.suppress(InvalidFactError):
            record["tags"] = _tags(record["tags"])
        return record

    @property
    def category_from(self) -> str:
        """Where categories come from, in words."""
        place = self.places.get("category")
        return "the default" if place is None else f"the column {self.header[place].strip()!r}"


def columns_of(header: Sequence[str], options: ReadOptions) -> Columns | None:
    """Find the columns by their names, in any case; None if one is missing that is needed."""
    names = [in_one_form(name) for name in header]
    places: dict[str, int] = {}
    problems: list[str] = []
    for field, usual in FIELD_NAMES.items():
        found = _places_of(field, usual, names, options)
        if found is None:
            return None
        if found:
            places[field] = found[0]
        if len(found) > 1:
            problems.append(_problem(field, [header[place].strip() for place in found]))
    template, named = options.fields.template, {}
    for name in [*(template.names if template else ()), *options.where.values]:
        if in_one_form(name) not in names:
            return None
        named[name] = names.index(in_one_form(name))
    if template is not None:
        places.pop("content", None)
        problems = [problem for problem in problems if not problem.startswith("content")]
    return Columns(options, header, places, named, "; ".join(problems))


def _places_of(
    field: str, usual: Sequence[str], names: Sequence[str], options: ReadOptions
) -> list[int] | None:
    """Return the columns that may be meant, at best one; None if one is needed and missing."""
    mapped = options.fields.mapping.get(field)
    if mapped is not None:
        wanted = [in_one_form(mapped)] if mapped else []
    elif field == "content" and _HIGHLIGHT in names and "content" not in names:
        wanted = [_HIGHLIGHT]
    else:
        # The API's own name settles it: beside `content`, a column `note` is just one more column.
        wanted = [field] if field in names else list(usual)
    places = [place for place, name in enumerate(names) if name in wanted]
    needed = bool(mapped) or (field == "content" and options.fields.template is None)
    return None if needed and not places else places


def _problem(field: str, names: Sequence[str]) -> str:
    shown = " and ".join(map(repr, names))
    return f"{field} could be any of the columns {shown}; say which: --map {field}=NAME, or rename the others"


def in_one_form(name: str) -> str:
    """Write the name of a column so that equal ones are equal, whatever system wrote them.

    Macs take letters with accents apart, which no eye can see.
    """
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _cell(row: Sequence[str], place: int | None) -> str:
    return row[place] if place is not None and place < len(row) else ""


def _tags(cell: str) -> Any:
    """Read the tags of a cell: a JSON list, or words between ``;`` or ``|`` or ``,``."""
    cell = cell.strip()
    if not cell:
        return []
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return loads(cell)
        except ValueError:
            raise InvalidFactError(
                'tags: must be a JSON list such as ["tea", "work"], or words between ; or | or ,',
                field="tags",
            ) from None
    separator = ";" if ";" in cell else "|" if "|" in cell else ","
    return [tag for part in cell.split(separator) if (tag := part.strip())]
