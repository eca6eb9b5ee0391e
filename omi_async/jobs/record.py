"""What is known of a job: as its users see it, and as `job.json` keeps it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

import attrs

from omi_async._api import json
from omi_async.importing.report import ImportReport, report_from_dict, settled_for_good

__all__ = ["FINISHED", "JobRecord", "JobSnapshot", "JobState"]

JobState = Literal["waiting", "running", "done", "stopped", "failed"]

FINISHED: Final = frozenset[JobState]({"done", "stopped", "failed"})

FAILURES_KEPT: Final = 1000
"""Failures that the file of a job keeps one by one: it is written each second, the journal has them all."""


@attrs.frozen
class JobSnapshot:
    """How far a job is.

    Attributes:
        id: the job's.
        owner: whose job it is.
        state: "waiting" (for its turn, a quota window or the end of an outage), "running", "done", "stopped"
            or "failed".
        report: the account of the import so far, over all of its runs.
        expected: facts in the input; None until they are counted.
        eta: when it is done, if nothing fails; None if that is not known.
        error: why it failed, or what it waits for.
    """

    id: str
    owner: str
    state: JobState
    report: ImportReport
    expected: int | None = None
    eta: datetime | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it is done, stopped or failed."""
        return self.state in FINISHED

    @property
    def percent(self) -> float | None:
        """Facts of which it is known what became of them, of 100; None until the input is counted."""
        if self.expected is None:
            return None
        return (
            100.0 if not self.expected else min(100.0, 100.0 * settled_for_good(self.report) / self.expected)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes as it is."""
        return {
            "id": self.id,
            "owner": self.owner,
            "state": self.state,
            "expected": self.expected,
            "percent": self.percent,
            "eta": _written(self.eta),
            "error": self.error,
            "report": _shortened(self.report).to_dict(),
        }


@attrs.frozen(kw_only=True)
class JobRecord:
    """What `job.json` holds. No key is in it.

    Attributes:
        name: the name of the file that holds the input.
        options: of the reading and the import, as `ImportJobs.start` takes them.
        created_at: epoch seconds.
        waited: seconds that the job has waited for quota windows.
        tries: runs in a row that ended in an outage or in doubt, and settled nothing more.
    """

    id: str
    owner: str
    name: str
    options: dict[str, Any]
    created_at: float
    state: JobState = "waiting"
    report: ImportReport = attrs.field(factory=ImportReport)
    expected: int | None = None
    eta: datetime | None = None
    error: str | None = None
    waited: float = 0.0
    tries: int = 0

    @property
    def snapshot(self) -> JobSnapshot:
        """What users see of it."""
        return JobSnapshot(self.id, self.owner, self.state, self.report, self.expected, self.eta, self.error)

    def to_json(self) -> bytes:
        """Return the contents of the file."""
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(JobRecord)}
        report = _shortened(self.report).to_dict()
        return json.dumps(fields | {"report": report, "eta": _written(self.eta)})

    @classmethod
    def from_json(cls, data: bytes) -> JobRecord:
        """Read the contents of a file. Raises ValueError, KeyError or TypeError if no job wrote it."""
        fields = json.loads(data)
        fields["report"] = report_from_dict(fields["report"])
        fields["eta"] = _read(fields["eta"])
        return cls(**fields)


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _read(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _shortened(report: ImportReport) -> ImportReport:
    return attrs.evolve(report, failures=report.failures[:FAILURES_KEPT])
