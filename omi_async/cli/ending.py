"""How an import ends: its failures written down, its report told, its exit code chosen."""

from __future__ import annotations

from typing import Any

from omi_async.cli import exits
from omi_async.cli.failures import FailuresFile, failure_record
from omi_async.cli.inputs import Inputs
from omi_async.cli.output import emit, put, say
from omi_async.cli.progress import counts_of
from omi_async.cli.words import plural
from omi_async.errors import ImportStoppedError
from omi_async.importing.outcomes import FactOutcome, ImportReport

__all__ = ["Ending"]


class Ending:
    """What is known of the end of an import.

    Attributes:
        interrupted: whether somebody stopped it.
        error: why it could not go on.
    """

    def __init__(self, inputs: Inputs, failures: FailuresFile, *, as_json: bool) -> None:
        self.interrupted = False
        self.error: ImportStoppedError | None = None
        self._inputs = inputs
        self._failures = failures
        self._as_json = as_json

    def note(self, outcome: FactOutcome) -> None:
        """Write down a fact that is not safely stored."""
        if not outcome.failed:
            return
        self._failures.add(outcome)
        if self._as_json:
            record = {"index": outcome.index, **failure_record(outcome, self._inputs)}
            emit({**record, "event": "failure"})

    def tell(self, report: ImportReport) -> int:
        """Print the report and what to do next; return the exit code."""
        if self._inputs.broken:
            report.complete = False
        code = self.code(report)
        if self._as_json:
            emit({"event": "report", **self._document(report), "exit_code": code})
            say(str(report))
        else:
            put(str(report))
        self._say_failures(report)
        self._inputs.complain()
        if self.error is not None:
            return exits.explain(self.error)
        if code == exits.INTERRUPTED:
            say(f"Interrupted: {plural(self._stored(report), 'fact')} stored so far. {_go_on(report)}")
        if code == exits.QUOTA and report.resume_at is not None:
            say(f"Out of quota until {report.resume_at.astimezone():%Y-%m-%d %H:%M}. {_go_on(report)}")
        return code

    def code(self, report: ImportReport) -> int:
        """Choose the exit code."""
        if self.error is not None:
            return exits.code_of(self.error)
        if self.interrupted and (report.not_sent or report.unknown or not report.complete):
            return exits.INTERRUPTED
        if self._inputs.broken:
            return exits.USAGE
        if report.resume_at is not None:
            return exits.QUOTA
        return exits.OK if report.ok else exits.SOME_FAILED

    def _document(self, report: ImportReport) -> dict[str, Any]:
        path = self._failures.path
        return {
            **counts_of(report),
            "elapsed": round(report.elapsed, 3),
            "ok": report.ok,
            "complete": report.complete,
            "interrupted": self.interrupted,
            "resume_at": report.resume_at.isoformat() if report.resume_at else None,
            "failures_file": str(path) if path else None,
        }

    def _say_failures(self, report: ImportReport) -> None:
        if (path := self._failures.path) is None:
            return
        what = "Mend them there, then" if report.invalid or report.rejected else "To try them again"
        say(f"{_facts_are(report.failed)} not safely stored: see {path}. {what}: omi-async import {path}")

    def _stored(self, report: ImportReport) -> int:
        return report.created + report.existing


def _facts_are(number: int) -> str:
    return f"{number:,} fact is" if number == 1 else f"{number:,} facts are"


def _go_on(_report: ImportReport) -> str:
    return "The same command goes on: the server knows a memory by its text and stores none twice."
