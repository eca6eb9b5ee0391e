"""What an import is told, checked at once."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import attrs

from omi_async.importing.journal.journal import Journal
from omi_async.importing.journal.protocol import ImportJournal
from omi_async.importing.tracker import OnOutcome, OnProgress

__all__ = ["ImportOptions", "Lanes", "OnExisting", "OnUnknown"]

OnUnknown = Literal["reconcile", "report", "resend"]
OnExisting = Literal["keep", "add-tags"]
Lanes = Literal["batch", "both"]


def _at_least_0(_instance: object, attribute: attrs.Attribute[Any], seconds: float | None) -> None:
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"{attribute.name} must be a number of seconds, at least 0, not {seconds!r}")


def _at_least_1(_instance: object, attribute: attrs.Attribute[Any], number: int) -> None:
    if number < 1 or number != int(number):
        raise ValueError(f"{attribute.name} must be a whole number, at least 1, not {number!r}")


def _one_of(words: Any) -> Any:
    def check(_instance: object, attribute: attrs.Attribute[Any], word: str) -> None:
        if word not in get_args(words):
            raise ValueError(f"{attribute.name} must be one of {get_args(words)}, not {word!r}")

    return check


def _journal_of(given: str | os.PathLike[str] | ImportJournal | None) -> ImportJournal | None:
    return Journal(given) if isinstance(given, str | os.PathLike) else given


@attrs.frozen(kw_only=True)
class ImportOptions:
    """The options of an import; `Memories.import_facts` explains them."""

    concurrency: int = attrs.field(default=4, validator=_at_least_1)
    journal: ImportJournal | None = attrs.field(default=None, converter=_journal_of)
    dedupe: bool = True
    skip_existing: bool = False
    on_existing: OnExisting = attrs.field(default="keep", validator=_one_of(OnExisting))
    on_unknown: OnUnknown = attrs.field(default="reconcile", validator=_one_of(OnUnknown))
    max_wait: float | None = attrs.field(default=None, validator=_at_least_0)
    lanes: Lanes = attrs.field(default="batch", validator=_one_of(Lanes))
    flush_after: float | None = attrs.field(default=None, validator=_at_least_0)
    drain_timeout: float = attrs.field(default=30.0, validator=_at_least_0)
    on_outcome: OnOutcome | None = None
    on_progress: OnProgress | None = None

    def __attrs_post_init__(self) -> None:
        if self.journal is not None and not self.dedupe:
            raise ValueError("a journal knows facts by their text; dedupe=False cannot go with it")
