"""``import --dry-run``: reads, checks and folds as an import does, and prints what it would take."""

from __future__ import annotations

import json
import os
from contextlib import aclosing, closing, nullcontext
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import attrs

from omi_async.cli import exit_codes
from omi_async.cli.format import duration, local_time, plural, shortened
from omi_async.cli.imports.failures import FailuresFile
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.imports.options import ImportOptions
from omi_async.cli.ledger import ledger_path
from omi_async.cli.options import Common
from omi_async.cli.output import print_json, print_message, print_report
from omi_async.constants import BATCH_SIZE
from omi_async.fact import Fact, fact_payload
from omi_async.importing.item import content_key
from omi_async.importing.report import FactOutcome
from omi_async.sources._records import Recognised

if TYPE_CHECKING:
    from omi_async._quota.policy import QuotaState
    from omi_async.importing.forecast import Forecast

__all__ = ["Estimate", "Limits", "dry_run"]

SAMPLES: Final = 3
"""Facts that are shown as they would be sent: enough to see that the right column was taken."""

SHOWN: Final = 10
"""Invalid records that are named one by one: enough to see what is wrong with all of them."""

CALLS_A_MINUTE: Final = 100
CALLS_A_DAY: Final = 10_000
"""What the documentation promises (docs.omi.me): per key, and per user."""

BATCHES_AN_HOUR: Final = 15
"""What the service's source holds a key to, unless it is told otherwise (backend: `dev:memories_batch`)."""


@attrs.define
class Estimate:
    """What an import would do.

    Attributes:
        read: records in the input.
        invalid: those of them that cannot be sent.
        duplicates: those whose text came earlier.
        uncategorised: facts to be sent for which the server would have to find a category.
        shown: the first invalid ones.
        samples: the first facts to be sent.
        sources: what the files were taken for.
        skipped: what is left out on purpose, by reason.
        left_out: the same in words.
        limits: what is known of the server's quotas.
    """

    read: int = 0
    invalid: int = 0
    duplicates: int = 0
    uncategorised: int = 0
    shown: list[FactOutcome] = attrs.field(factory=list)
    samples: list[Fact] = attrs.field(factory=list)
    sources: list[Recognised] = attrs.field(factory=list)
    skipped: dict[str, int] = attrs.field(factory=dict)
    left_out: str = ""
    limits: Limits = attrs.field(factory=lambda: Limits("documented"))

    @property
    def to_send(self) -> int:
        """Facts that would be sent."""
        return self.read - self.invalid - self.duplicates

    @property
    def calls(self) -> int:
        """Batch calls that it takes, if none fails."""
        return ceil(self.to_send / BATCH_SIZE)

    @property
    def documented_seconds(self) -> float:
        """How long that takes at the documented limits."""
        days, rest = divmod(max(0, self.calls - 1), CALLS_A_DAY)
        return days * 86_400 + (rest + 1) / CALLS_A_MINUTE * 60 if self.calls else 0

    @property
    def hourly_seconds(self) -> float:
        """How long that takes with 15 batch calls at the start of each hour."""
        return max(0, ceil(self.calls / BATCHES_AN_HOUR) - 1) * 3600.0

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for a program."""
        return {
            "read": self.read,
            "valid": self.read - self.invalid,
            "invalid": self.invalid,
            "duplicate": self.duplicates,
            "to_send": self.to_send,
            "calls": self.calls,
            "without_category": self.uncategorised,
            "sources": [
                {"name": source.name, "format": source.format, "columns": dict(source.columns)}
                for source in self.sources
            ],
            "samples": [fact_payload(fact) for fact in self.samples],
            "skipped": self.skipped,
            "seconds_at_100_calls_a_minute": round(self.documented_seconds),
            "seconds_at_15_batches_an_hour": round(self.hourly_seconds),
            **self.limits.as_json(),
        }

    def __str__(self) -> str:
        counts = f"{self.read - self.invalid:,} valid, {self.invalid:,} invalid"
        sending = f"{plural(self.duplicates, 'duplicate')}; {plural(self.to_send, 'fact')} to send"
        lines = [f"{plural(self.read, 'record')}: {counts}, {sending}"]
        lines += [f"  {outcome.place}: {outcome.error}" for outcome in self.shown]
        if self.invalid > len(self.shown):
            lines.append(f"  ... and {self.invalid - len(self.shown):,} more")
        lines.append(f"{plural(self.calls, 'batch call')}{self._time()}")
        if self.uncategorised:
            lines.append(f"{plural(self.uncategorised, 'fact')} without a category: {_SLOW}")
        lines += self._what_was_read()
        lines.append("Nothing was sent (--dry-run).")
        return "\n".join(lines)

    def _what_was_read(self) -> list[str]:
        lines = [_source_in_words(source) for source in self.sources[:SHOWN]]
        if len(self.sources) > len(lines):
            lines.append(f"... and {len(self.sources) - len(lines):,} more files")
        if self.samples:
            lines.append("The first facts, as they would be sent:")
        lines += [f"  {json.dumps(fact_payload(fact), ensure_ascii=False)}" for fact in self.samples]
        return [*lines, self.left_out] if self.left_out else lines

    def _time(self) -> str:
        """Return what the quotas make of the calls, as far as they are known."""
        limits = self.limits
        held = (
            f"{duration(self.hourly_seconds)} if your key is held to {BATCHES_AN_HOUR} batch calls an hour "
            f"({BATCHES_AN_HOUR} at the start of each hour)"
        )
        if not self.calls or limits.known == "none":
            return ""
        if limits.known == "seen":
            return f": {limits.what_was_seen()}"
        few = self.calls <= BATCHES_AN_HOUR  # within every limit that is known
        if limits.known == "unknown":
            unknown = f": no limits of {limits.server} are known yet"
            return unknown if few else f"{unknown}; {held}"
        documented = duration(max(60, self.documented_seconds))
        return "" if few else f": {documented} at the documented {CALLS_A_MINUTE} calls a minute; {held}"


_SLOW: Final = (
    "the server then asks a language model for each, which makes the calls slow; "
    "--category interesting spares it that"
)


def _source_in_words(source: Recognised) -> str:
    words = f"{source.name}: read as {source.format}"
    if source.columns:
        columns = ", ".join(f"{field} from {name.strip()!r}" for field, name in source.columns.items())
        words += f"; {columns}"
    if source.ignored:
        words += f"; not used: {', '.join(repr(name.strip()) for name in source.ignored)}"
    return words


async def _estimate(inputs: Inputs, failures: FailuresFile | None, *, dedupe: bool) -> Estimate:
    """Read the whole input; only a hash of each text stays in memory."""
    estimate = Estimate()
    seen: set[bytes] = set()
    async with aclosing(inputs.facts()) as facts:
        async for item in facts:
            estimate.read += 1
            if isinstance(item, FactOutcome):
                _refuse(estimate, item, failures)
            elif dedupe and (key := content_key(item.content)) in seen:
                estimate.duplicates += 1
            else:
                estimate.uncategorised += item.category is None
                if len(estimate.samples) < SAMPLES:
                    estimate.samples.append(item)
                if dedupe:
                    seen.add(key)
    estimate.sources, estimate.skipped = inputs.recognised, dict(inputs.skipped)
    estimate.left_out = inputs.left_out()
    return estimate


def _refuse(estimate: Estimate, outcome: FactOutcome, failures: FailuresFile | None) -> None:
    estimate.invalid += 1
    if len(estimate.shown) < SHOWN:
        estimate.shown.append(outcome)
    if failures is not None:
        failures.add(outcome)


async def dry_run(common: Common, options: ImportOptions) -> int:
    """Print the estimate, and return the exit code."""
    inputs = options.inputs()
    failures = FailuresFile(inputs, options.failures) if options.failures else None
    with closing(failures) if failures else nullcontext():
        estimate = await _estimate(inputs, failures, dedupe=options.dedupe)
    estimate.limits = await Limits.look_up(common, estimate.to_send)
    if common.as_json:
        print_json({"event": "bill", **estimate.as_json()})
        print_message(str(estimate))
    else:
        print_report(str(estimate))
    if failures is not None and failures.path is not None:
        print_message(f"The invalid records are in {shortened(failures.path)}.")
    if inputs.broken:
        inputs.complain()
        return exit_codes.USAGE
    return exit_codes.SOME_FAILED if estimate.invalid else exit_codes.OK


Known = Literal["seen", "documented", "unknown", "none"]


@attrs.frozen
class Limits:
    """What is known of a server's quotas for batch calls.

    Attributes:
        known: "seen": earlier commands have met them with this key; "documented": the service's
            documentation alone tells of them; "unknown": nothing does yet; "none": the server has none.
        server: its base URL.
        quotas: the policies for batch calls.
        forecast: what they make of the calls, if these take no time; None if none are known.
    """

    known: Known
    server: str = ""
    quotas: tuple[QuotaState, ...] = ()
    forecast: Forecast | None = None

    @classmethod
    async def look_up(cls, common: Common, facts: int) -> Self:
        """Look into the ledger, if there is one, for what is known to this key; send nothing."""
        if common.local is not None:
            return cls("none")
        from omi_async.importing.forecast import foresee  # noqa: PLC0415  # with the library
        from omi_async.session import Session  # noqa: PLC0415

        key = os.environ.get("OMI_API_KEY", "").strip()
        path = ledger_path()
        session = Session(
            key or "none",
            base_url=common.base_url,
            allow_http=common.allow_http or None,
            ledger=path if key and path is not None and path.is_file() else None,
        )
        await session.pacing.open()
        quotas = tuple(state for state in session.quotas if "batch" in state.kinds)
        forecast = foresee(session.pacing, facts, 0.0) if quotas else None
        await session.close()
        seen = any(state.source in {"learned", "announced"} or state.opens_at for state in quotas)
        return cls(
            "seen" if seen else "documented" if quotas else "unknown", session.base_url, quotas, forecast
        )

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        forecast = self.forecast
        return {
            "limits": self.known,
            "quotas": [state.to_dict() for state in self.quotas],
            "windows_to_wait_for": None if forecast is None else forecast.windows,
            "seconds_to_wait": None if forecast is None else round(forecast.wait),
        }

    def what_was_seen(self) -> str:
        """Return what the quotas that were seen make of the calls."""
        policies = "; ".join(_policy(state) for state in self.quotas)
        if self.forecast is None or not self.forecast.wait:
            return f"no quota window has to be waited for (known of your key: {policies})"
        windows = plural(max(1, self.forecast.windows), "quota window")
        when = local_time(self.forecast.done_at)
        if any(state.window is None for state in self.quotas):
            return f"at least {windows} to wait for, not done before {when} (known of your key: {policies})"
        return f"{windows} to wait for, done about {when} (known of your key: {policies})"


def _policy(state: QuotaState) -> str:
    if state.opens_at is not None:
        return f"{state.policy}, opens at {local_time(state.opens_at)}"
    return f"{state.policy}, {state.used:,} used"
