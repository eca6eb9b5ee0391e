"""How far a part is, and the import that it is of: as the store knows it, for whoever asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import attrs

from omi_async.errors import OmiError
from omi_async.importing.report import FactOutcome, ImportReport, report_from_dict
from omi_async.workers.words import why, why_refused

__all__ = [
    "ImportSnapshot",
    "PartSnapshot",
    "PartState",
    "account_of",
    "import_snapshot",
    "in_json",
    "read_report",
]

PartState = Literal["waiting", "running", "done", "stopped", "failed"]

FINISHED: Final = frozenset[PartState]({"done", "stopped", "failed"})

FAILURES_KEPT: Final = 1000
"""Failures that the store keeps one by one of a part: a million of them would be most of what it holds."""


@attrs.frozen
class PartSnapshot:
    """How far a part is.

    Attributes:
        part: its name.
        state: "waiting" (for a worker, a quota window, the end of another one's lease), "running", "done",
            "stopped", or "failed": it could not go on, or facts stay in doubt. A part that has failed goes on
            when it is run again.
        report: the account of the part so far, over all of its runs. The failures in it, of which the first
            1,000 are kept, are without their facts.
        resume_at: when the quota window opens that it waits for.
        error: why it failed.
    """

    part: str
    state: PartState
    report: ImportReport
    resume_at: datetime | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it is done, stopped or failed."""
        return self.state in FINISHED

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes as it is."""
        return {
            "part": self.part,
            "state": self.state,
            "resume_at": None if self.resume_at is None else self.resume_at.isoformat(),
            "error": self.error,
            "report": self.report.to_dict(),
        }


@attrs.frozen
class ImportSnapshot:
    """How far an import is: all of its parts.

    Attributes:
        name: the import's.
        parts: of each that is known, in the order of their numbers. If the import was split here (`parts=4`),
            those are all of them, also the ones that have not begun; if not, those that have begun.
        stopping: whether somebody asked the import to stop.
    """

    name: str
    parts: tuple[PartSnapshot, ...]
    stopping: bool = False

    @property
    def state(self) -> PartState:
        """Return the state of the whole.

        "running" if any part is; else "waiting" if any has yet to be run, as an import has that nobody knows;
        else "failed" if any has; else "stopped" if any was; else "done".
        """
        states = {part.state for part in self.parts}
        order: tuple[PartState, ...] = ("running", "waiting", "failed", "stopped", "done")
        return next((state for state in order if state in states), "waiting")

    @property
    def finished(self) -> bool:
        """Whether all parts are done, stopped or failed."""
        return self.state in FINISHED

    @property
    def report(self) -> ImportReport:
        """The sum of the parts' reports: `complete` if they all are; the time is that of the longest."""
        return _sum([part.report for part in self.parts])

    @property
    def resume_at(self) -> datetime | None:
        """When the first of the quota windows opens that parts wait for."""
        return min((part.resume_at for part in self.parts if part.resume_at is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes as it is."""
        return {
            "name": self.name,
            "state": self.state,
            "stopping": self.stopping,
            "resume_at": None if self.resume_at is None else self.resume_at.isoformat(),
            "report": self.report.to_dict(),
            "parts": [part.to_dict() for part in self.parts],
        }


_ADDED: Final = (
    "pulled", "created", "existing", "duplicate", "invalid", "rejected", "unknown", "not_sent",
    "other_tags", "tags_added", "requests", "retries",
)  # fmt: skip


def _sum(reports: list[ImportReport]) -> ImportReport:
    counts: dict[str, Any] = {name: sum(getattr(report, name) for report in reports) for name in _ADDED}
    return ImportReport(
        **counts,
        failures=[failure for report in reports for failure in report.failures],
        elapsed=max((report.elapsed for report in reports), default=0.0),
        complete=bool(reports) and all(report.complete for report in reports),
        resume_at=min((report.resume_at for report in reports if report.resume_at), default=None),
    )


# As the store holds it


def account_of(report: ImportReport, before: ImportReport) -> ImportReport:
    """Return a copy that counts the calls and seconds of all runs; its facts are those of all already."""
    return attrs.evolve(
        report,
        requests=before.requests + report.requests,
        retries=before.retries + report.retries,
        elapsed=before.elapsed + report.elapsed,
    )


def in_json(report: ImportReport) -> str:
    """Write a report, without the texts of facts: of a failure its place and why it failed."""
    failures = [*map(_without_text, report.failures[:FAILURES_KEPT])]
    return json.dumps(attrs.evolve(report, failures=failures, waiting_for=None).to_dict())


def _without_text(outcome: FactOutcome) -> FactOutcome:
    error = outcome.error
    if error is not None:
        refused = outcome.fact if outcome.state == "rejected" else None
        error = OmiError(why(error) if refused is None else why_refused(error, refused.content))
    return attrs.evolve(outcome, fact=None, error=error)


def read_report(text: str | bytes) -> ImportReport:
    """Read a report that `in_json` has written; an empty one of an empty text."""
    return report_from_dict(json.loads(text)) if text else ImportReport()


def import_snapshot(
    name: str, now: bytes, whole: Sequence[bytes], *parts: tuple[int, Sequence[bytes]]
) -> ImportSnapshot:
    """Read what the store knows of an import.

    Args:
        name: the import's.
        now: the moment by the store's clock, in milliseconds.
        whole: the record of the import: names and values.
        parts: the numbers and the records of the parts.
    """
    stopping = "stop" in _record(whole)
    snapshots = [
        _part_snapshot(f"{name}/{number}", _record(fields), float(now), stopping=stopping)
        for number, fields in sorted(parts)
    ]
    return ImportSnapshot(name, tuple(snapshots), stopping)


def _record(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _part_snapshot(part: str, fields: Mapping[str, str], now: float, *, stopping: bool) -> PartSnapshot:
    state: Any = fields.get("state", "waiting")
    if state == "running" and float(fields["until"]) <= now:
        state = "waiting"  # its worker was not heard of for a whole lease
    if state in {"waiting", "failed"} and stopping:
        state = "stopped"  # no worker begins it any more
    resume_at = fields.get("resume_at") if state == "waiting" else None
    return PartSnapshot(
        part=part,
        state=state,
        report=read_report(fields.get("report", "")),
        resume_at=datetime.fromisoformat(resume_at) if resume_at else None,
        error=fields.get("error") or None,
    )
