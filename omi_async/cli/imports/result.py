"""How an import ends: its failures written down, its report told, its exit code chosen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from omi_async.cli import exit_codes
from omi_async.cli.format import duration, facts_are, plural, shell_word, shortened
from omi_async.cli.imports.events import Events, event_of
from omi_async.cli.imports.failures import FailuresFile
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.imports.progress import counts_of
from omi_async.cli.output import print_message, print_report
from omi_async.errors import APIError
from omi_async.importing.journal.journal import Journal
from omi_async.importing.options import OnExisting, OnUnknown
from omi_async.importing.report import FactOutcome, ImportReport, ImportStoppedError

__all__ = ["ImportResult"]


class ImportResult:
    """What is known of the end of an import.

    Args:
        inputs: what is imported.
        failures: takes what is not safely stored.
        journal: the import's.
        on_unknown: what it does about facts in doubt.
        events: takes what a program is told; None if people are told.
        on_existing: what it does about facts that are there with other tags.

    Attributes:
        interrupted: whether the user stopped it.
        error: why it could not go on.
    """

    def __init__(
        self,
        inputs: Inputs,
        failures: FailuresFile,
        journal: Journal | None = None,
        on_unknown: OnUnknown = "reconcile",
        events: Events | None = None,
        *,
        on_existing: OnExisting = "keep",
    ) -> None:
        self.interrupted = False
        self.error: ImportStoppedError | None = None
        self._inputs = inputs
        self._failures = failures
        self._journal = journal
        self._on_unknown = on_unknown
        self._events = events
        self._on_existing = on_existing
        self._refused_categories: set[str] = set()

    def note(self, outcome: FactOutcome) -> None:
        """Write down a fact that is not safely stored; tell a program of each."""
        if outcome.failed:
            self._failures.add(outcome)
            if (category := _refused_category(outcome)) is not None:
                self._refused_categories.add(category)
        if self._events is not None and (event := event_of(outcome, self._inputs)) is not None:
            self._events.put(event)

    def tell(self, report: ImportReport) -> int:
        """Print the report and what to do next; return the exit code."""
        if self._inputs.broken:
            report.complete = False
        code = self.code(report)
        if self._events is not None:
            if self.error is not None:
                self._events.put(exit_codes.explanation_of(self.error).as_json())
            self._events.put({"event": "report", **self._document(report), "exit_code": code})
            self._events.flush()
            print_message(str(report))
        else:
            print_report(str(report))
        if report.other_tags and self._on_existing == "keep":
            print_message("--on-existing add-tags adds your tags to theirs.")
        if left_out := self._inputs.left_out():
            print_message(left_out)
        self._say_failures(report)
        self._say_refused_categories()
        self._inputs.complain()
        if self.error is not None:
            exit_codes.explain(self.error)
        elif code == exit_codes.INTERRUPTED:
            print_message(f"Interrupted: {plural(report.created + report.existing, 'fact')} stored so far.")
        elif code == exit_codes.QUOTA and report.resume_at is not None:
            print_message(_come_back(report.resume_at))
        self._say_how_to_go_on(report)
        return code

    def code(self, report: ImportReport) -> int:
        """Choose the exit code."""
        if self.error is not None:
            return exit_codes.code_of(self.error)
        if self.interrupted and _is_unfinished(report):
            return exit_codes.INTERRUPTED
        if self._inputs.broken:
            return exit_codes.USAGE
        if report.resume_at is not None:
            return exit_codes.QUOTA
        return exit_codes.OK if report.ok else exit_codes.SOME_FAILED

    def _document(self, report: ImportReport) -> dict[str, Any]:
        return {
            **counts_of(report),
            "other_tags": report.other_tags,
            "tags_added": report.tags_added,
            "tags_error": None if report.tags_error is None else str(report.tags_error),
            "skipped": dict(self._inputs.skipped),
            "elapsed": round(report.elapsed, 3),
            "ok": report.ok,
            "complete": report.complete,
            "interrupted": self.interrupted,
            "resume_at": report.resume_at.isoformat() if report.resume_at else None,
            "failures_file": _text(self._failures.path),
            "journal": _text(self._journal.path if self._journal else None),
        }

    def _say_failures(self, report: ImportReport) -> None:
        if (path := self._failures.path) is None:
            return
        command = f"omi-async import {shell_word(path)}"
        if report.invalid or report.rejected:
            what = f" Fix what is invalid or rejected there, then: {command}"
        elif self._journal is None:
            what = f" To try them again: {command}"
        else:
            what = ""  # the same command does it
        print_message(f"{facts_are(report.failed)} not safely stored: see {shortened(path)}.{what}")

    def _say_refused_categories(self) -> None:
        """Name the column that a category comes from which the server does not know."""
        if not self._refused_categories:
            return
        words = ", ".join(map(repr, sorted(self._refused_categories)[:_SHOWN_CATEGORIES]))
        tables = [found.columns for found in self._inputs.recognised]
        columns = sorted({table["category"] for table in tables if "category" in table})
        place = f" (the column {' or '.join(map(repr, columns))})" if columns else ""
        print_message(
            f"The server knows no category {words}{place}: --map category= leaves it out, and --category WORD"
            " gives another."
        )

    def _say_how_to_go_on(self, report: ImportReport) -> None:
        if self._inputs.broken and not report.pulled:
            return  # it would be refused again
        if _is_unfinished(report):
            print_message(self._how_to_go_on(report))
        elif self._journal is not None and not report.requests:
            self._say_that_nothing_was_sent(report, self._journal.path)

    def _say_that_nothing_was_sent(self, report: ImportReport, journal: Path) -> None:
        if report.created or report.existing or report.rejected:
            print_message(
                f"Nothing was sent: an earlier run has settled all of it (journal: {shortened(journal)})."
            )
        if report.rejected:
            command = f"omi-async journal forget {shell_word(journal)} --state rejected"
            print_message(f"What was rejected is sent again when it is fixed, or after: {command}")

    def _how_to_go_on(self, report: ImportReport) -> str:
        if self._journal is None:
            return (
                "The same command begins from the start, for no journal was kept, and sends all of it again; "
                "--skip-existing leaves out what the account holds by then."
            )
        words = f"The same command goes on: the journal {shortened(self._journal.path)} has what is settled"
        if not report.unknown:
            return f"{words}."
        return f"{words}. {plural(report.unknown, 'fact')} in doubt {_IN_DOUBT[self._on_unknown]}."


_IN_DOUBT: Final[dict[OnUnknown, str]] = {
    "reconcile": "will be looked for",
    "resend": "will be sent again",
    "report": "will stay so; --on-unknown reconcile looks for them",
}


_SHOWN_CATEGORIES: Final = 5


def _refused_category(outcome: FactOutcome) -> str | None:
    """Return the category if that is what the server refused a fact for."""
    if outcome.state != "rejected" or outcome.fact is None or not isinstance(outcome.error, APIError):
        return None
    detail = outcome.error.detail  # the server's words for this fact: the field, and what is wrong with it
    named = isinstance(detail, str) and detail.partition(":")[0] == "category"
    return outcome.fact.category if named else None


def _is_unfinished(report: ImportReport) -> bool:
    return bool(report.not_sent or report.unknown or not report.complete)


def _come_back(resume_at: datetime) -> str:
    """Return when the next window opens, in local time."""
    left = max(0.0, (resume_at - datetime.now(UTC)).total_seconds())
    opens = resume_at.astimezone() + timedelta(seconds=1)  # what is cut off of a second would be too early
    return f"Out of quota until {opens:%Y-%m-%d %H:%M:%S}, in {duration(left)}. Come back then."


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
