"""The options of a job: those of the reading of its input, and those of its import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from omi_async._api import json
from omi_async._formats import Format
from omi_async.importing.options import ImportOptions, Lanes, OnExisting, OnUnknown
from omi_async.sources import open_facts
from omi_async.sources._options import Long

__all__ = ["JobOptions", "checked", "parted"]


class JobOptions(TypedDict, total=False):
    """How an input is read (see `omi_async.sources.open_facts`) and imported (see `import_facts`).

    The journal is the job's own, and knows facts by their text, so `dedupe` is always on.
    """

    format: Format
    mapping: Mapping[str, str] | None
    defaults: Mapping[str, Any] | None
    template: str | None
    where: Mapping[str, str | list[str]] | list[str] | None
    under: str | list[str]
    only_tag: str | list[str]
    include: str | list[str]
    long: Long
    encoding: str | None
    concurrency: int
    skip_existing: bool
    on_existing: OnExisting
    on_unknown: OnUnknown
    max_wait: float | None
    lanes: Lanes
    drain_timeout: float


_READING: Final = frozenset(
    {"format", "mapping", "defaults", "template", "where", "under", "only_tag", "include", "long", "encoding"}
)
"""The options that are of the reading of the input; all others are the import's."""


def parted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the reading, and those of the import."""
    reading = {name: options[name] for name in options.keys() & _READING}
    return reading, {name: options[name] for name in options.keys() - _READING}


def checked(options: JobOptions) -> dict[str, Any]:
    """Refuse what the import would refuse, while somebody is there to hear of it.

    Raises TypeError for an unknown option, ValueError for an unusable one.
    """
    if unknown := options.keys() - JobOptions.__annotations__.keys():
        raise TypeError(f"a job has no option {', '.join(sorted(unknown))}")
    reading, importing = parted(options)
    open_facts("input", **reading)  # nothing is opened before it is read
    ImportOptions(**importing)
    try:
        json.dumps(options)
    except ValueError as error:
        raise ValueError(f"the options of a job are kept as JSON: {error}") from None
    return dict(options)
