"""What became of each fact, and the account of an import.

The law that every import obeys, however it ends:
pulled = created + existing + duplicate + invalid + rejected + unknown + not_sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Self

import attrs

from omi_async._quota.policy import QuotaState
from omi_async.errors import InvalidFactError, OmiError
from omi_async.fact import Fact

__all__ = [
    "FactOutcome",
    "ImportFailedError",
    "ImportReport",
    "ImportStoppedError",
    "State",
    "report_from_dict",
    "settled_for_good",
]

State = Literal["created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent"]

FAILED: Final = frozenset[State]({"invalid", "rejected", "unknown", "not_sent"})

FAILURES_KEPT: Final = 10_000
"""Failures that a report keeps one by one; beyond them it only counts, so that its memory stays flat."""


@attrs.frozen
class FactOutcome:
    """What became of one fact.

    Attributes:
        index: its place among the facts that were pulled, from 0.
        fact: the fact, or None if the input could not become one.
        state: one of the seven states.
        memory_id: the id of the memory that holds it, if it is known.
        error: why it failed; None for created, existing and duplicate.
        origin: where it came from, such as ``"facts.csv:17"``.
    """

    index: int
    fact: Fact | None
    state: State
    memory_id: str | None = None
    error: OmiError | None = None
    origin: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the fact is not safely stored: invalid, rejected, unknown or not_sent."""
        return self.state in FAILED

    @property
    def place(self) -> str:
        """Where to find the fact, in one line: its origin, or its number among those pulled."""
        return _in_one_line(self.origin or f"fact {self.index}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it; the error as its words."""
        return {
            "index": self.index,
            "state": self.state,
            "fact": None if self.fact is None else self.fact.to_dict(),
            "memory_id": self.memory_id,
            "error": None if self.error is None else str(self.error),
            "origin": self.origin,
        }


@attrs.define
class ImportReport:
    """The account of an import; each pulled fact stands in exactly one of the seven counts.

    Attributes:
        pulled: facts taken from the input.
        created: stored because of this import.
        existing: held by the server before.
        duplicate: the same text came earlier in this input.
        invalid: refused here and never sent.
        rejected: refused by the server.
        unknown: may or may not be stored, and could not be found out.
        not_sent: pulled, but not sent: the import ended first.
        other_tags: existing facts that brought tags which their memories lack; with
            ``on_existing="add-tags"``, facts whose tags could not be added, duplicates among them.
        tags_added: facts whose tags were added to memories that were there already.
        tags_error: why the first of the tags that could not be added was not.
        failures: the outcomes that are not safely stored, the first 10,000 of them.
        requests: calls made, whatever their answer.
        retries: those of them that repeated a call.
        elapsed: seconds.
        complete: whether the import came to its end: the input was read to its end, nothing is left
            `not_sent`, and it was not stopped or cancelled before what was in doubt was looked for.
        resume_at: when the quota window opens that the import would have waited for, if that ended it.
        waiting_for: the quota that the import is waiting for at this moment; None while it waits for none.
    """

    pulled: int = 0
    created: int = 0
    existing: int = 0
    duplicate: int = 0
    invalid: int = 0
    rejected: int = 0
    unknown: int = 0
    not_sent: int = 0
    other_tags: int = 0
    tags_added: int = 0
    tags_error: OmiError | None = attrs.field(default=None, eq=False)
    failures: list[FactOutcome] = attrs.field(factory=list, repr=False)
    requests: int = 0
    retries: int = 0
    elapsed: float = 0.0
    complete: bool = False
    resume_at: datetime | None = None
    waiting_for: QuotaState | None = attrs.field(default=None, eq=False)

    @property
    def settled(self) -> int:
        """Facts that are in one of the seven states; equals `pulled` at the end."""
        return (
            self.created
            + self.existing
            + self.duplicate
            + self.invalid
            + self.rejected
            + self.unknown
            + self.not_sent
        )

    @property
    def failed(self) -> int:
        """Facts that are not safely stored."""
        return self.invalid + self.rejected + self.unknown + self.not_sent

    @property
    def ok(self) -> bool:
        """Whether nothing is invalid, rejected, unknown or not_sent."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it, with `ok`, and the failures that are kept."""
        counts: dict[str, int] = {state: getattr(self, state) for state in _WORDS}
        return {
            "pulled": self.pulled,
            **counts,
            "other_tags": self.other_tags,
            "tags_added": self.tags_added,
            "tags_error": None if self.tags_error is None else str(self.tags_error),
            "requests": self.requests,
            "retries": self.retries,
            "elapsed": self.elapsed,
            "ok": self.ok,
            "complete": self.complete,
            "resume_at": None if self.resume_at is None else self.resume_at.isoformat(),
            "waiting_for": None if self.waiting_for is None else self.waiting_for.to_dict(),
            "failures": [outcome.to_dict() for outcome in self.failures],
        }

    def add(self, outcome: FactOutcome) -> None:
        """Count an outcome."""
        self.count(outcome.state)
        if outcome.failed and len(self.failures) < FAILURES_KEPT:
            self.failures.append(outcome)

    def count(self, state: State, number: int = 1) -> None:
        """Count facts of which nothing more is to be said."""
        setattr(self, state, getattr(self, state) + number)

    def raise_for_failures(self) -> None:
        """Raise `ImportFailedError`, the group of all failures, unless `ok`."""
        if self.ok:
            return
        errors = []
        for outcome in self.failures:
            error = outcome.error or OmiError(outcome.state)
            copy = _with_note(error, f"{outcome.place}: {outcome.state}")
            errors.append(copy)
        raise ImportFailedError(f"{self.failed:,} of {self.pulled:,} facts are not safely stored", errors)

    def __str__(self) -> str:
        counts = [
            f"{getattr(self, state):,} {words}"
            for state, words in _WORDS.items()
            if state == "created" or getattr(self, state)
        ]
        end = "" if self.complete else "; the import did not come to its end"
        lines = [
            f"{_many(self.pulled, 'fact')}: {', '.join(counts)}{end}",
            f"{_many(self.requests, 'call')} ({self.retries:,} of them repeats) in {self.elapsed:.1f} s",
        ]
        if self.tags_added:
            lines.append(f"the tags of {_many(self.tags_added, 'fact')} added to memories that were there")
        if self.other_tags and self.tags_error is None:
            lines.append(f"{_many(self.other_tags, 'fact')} stored before with other tags")
        elif self.tags_error is not None:
            lines.append(
                f"the tags of {_many(self.other_tags, 'fact')} could not be added: {self.tags_error}"
            )
        # What was not sent has one reason for all, which the end of the import tells.
        listed = [outcome for outcome in self.failures if outcome.state != "not_sent"]
        shown = listed[:_SHOWN]
        lines += [
            f"  {outcome.place}: {outcome.state}: {_in_one_line(str(outcome.error))}" for outcome in shown
        ]
        more = self.failed - self.not_sent - len(shown)
        if more > 0 and shown:
            lines.append(f"  ... and {more:,} more")
        return "\n".join(lines)


def _in_one_line(words: str) -> str:
    """Escape what would break a line or move a cursor: names of files may hold anything but a slash."""
    if words.isprintable():
        return words
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in words)


def _many(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


_SHOWN = 10
_WORDS: Final[dict[State, str]] = {
    "created": "created",
    "existing": "existing",
    "duplicate": "duplicate",
    "invalid": "invalid",
    "rejected": "rejected",
    "unknown": "unknown",
    "not_sent": "not sent",
}


def _with_note(error: OmiError, note: str) -> OmiError:
    """Return an error of its own for each fact: the facts of one batch share the error of its call."""
    copy = error.__class__.__new__(error.__class__, *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__notes__ = [*getattr(error, "__notes__", ()), note]
    copy.__cause__ = error.__cause__
    return copy


def settled_for_good(report: ImportReport) -> int:
    """Return how many facts need no other run. A run that a quota window ended leaves some `not_sent`."""
    return report.settled - report.not_sent - report.unknown


_COUNTS: Final = (
    "pulled", "created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent",
    "other_tags", "tags_added", "requests", "retries", "elapsed", "complete",
)  # fmt: skip


def report_from_dict(fields: Mapping[str, Any]) -> ImportReport:
    """Make the report again of which this is the `to_dict`, as far as that tells; raises if it is of none."""
    resume_at, tags_error = fields["resume_at"], fields.get("tags_error")
    return ImportReport(
        # Not all of them: a version before this one wrote fewer.
        **{name: fields[name] for name in _COUNTS if name in fields},
        tags_error=OmiError(tags_error) if tags_error else None,
        resume_at=None if resume_at is None else datetime.fromisoformat(resume_at),
        failures=[*map(_outcome_from_dict, fields["failures"])],
    )


def _outcome_from_dict(fields: Mapping[str, Any]) -> FactOutcome:
    try:
        fact = None if fields["fact"] is None else Fact(**fields["fact"])
    except InvalidFactError:  # by the rules of a later version; the outcome is one all the same
        fact = None
    error = None if fields["error"] is None else OmiError(fields["error"])
    return FactOutcome(**{**fields, "fact": fact, "error": error})


class ImportStoppedError(OmiError):
    """The import could not go on. What caused it is the `__cause__`.

    Attributes:
        report: the account of every fact that was pulled before the stop.
    """

    def __init__(self, message: str, report: ImportReport) -> None:
        super().__init__(message)
        self.report = report


class ImportFailedError(OmiError, ExceptionGroup[OmiError]):
    """Some facts failed: the group of their errors, each with a note that names the fact's place."""

    def __new__(cls, message: str, failures: Sequence[OmiError], /) -> Self:  # noqa: D102  # see the class
        return super().__new__(cls, message, failures)

    def derive(self, excs: Sequence[Any], /) -> ImportFailedError:  # type: ignore[override]
        """Make the part of a split the same kind as the whole (typeshed wants it generic in its errors)."""
        return ImportFailedError(self.message, excs)
