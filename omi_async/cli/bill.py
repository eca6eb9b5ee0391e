"""``import --dry-run``: reads, checks and folds as an import does, and prints what it would cost."""

from __future__ import annotations

from contextlib import aclosing, closing, nullcontext
from math import ceil
from typing import Any, Final

import attrs

from omi_async.cli import exits
from omi_async.cli.failures import FailuresFile
from omi_async.cli.inputs import Inputs
from omi_async.cli.limits import Limits
from omi_async.cli.options import Common
from omi_async.cli.output import put, put_json, say
from omi_async.cli.wishes import Wishes
from omi_async.cli.words import duration, plural
from omi_async.config import BATCH_SIZE
from omi_async.importing.chunks import content_key
from omi_async.importing.outcomes import FactOutcome

__all__ = ["Bill", "dry_run"]

SHOWN: Final = 10
"""Invalid records that are named one by one."""

CALLS_A_MINUTE: Final = 100
CALLS_A_DAY: Final = 10_000
"""What the documentation promises (docs.omi.me): per key, and per user."""

BATCHES_AN_HOUR: Final = 15
"""What the service's source holds a key to, unless it is told otherwise (backend: `dev:memories_batch`)."""


@attrs.define
class Bill:
    """What an import would do.

    Attributes:
        read: records in the input.
        invalid: those of them that cannot be sent.
        duplicates: those whose text came earlier.
        uncategorised: facts to be sent for which the server would have to find a category.
        shown: the first invalid ones.
        limits: what is known of the server's quotas.
    """

    read: int = 0
    invalid: int = 0
    duplicates: int = 0
    uncategorised: int = 0
    shown: list[FactOutcome] = attrs.field(factory=list)
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
        lines.append("Nothing was sent (--dry-run).")
        return "\n".join(lines)

    def _time(self) -> str:
        """Say what the quotas make of the calls, as far as somebody knows them."""
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


async def _make_bill(inputs: Inputs, failures: FailuresFile | None, *, dedupe: bool) -> Bill:
    """Read the whole input; only a hash of each text stays in memory."""
    bill = Bill()
    seen: set[bytes] = set()
    async with aclosing(inputs.facts()) as facts:
        async for item in facts:
            bill.read += 1
            if isinstance(item, FactOutcome):
                _refuse(bill, item, failures)
            elif dedupe and (key := content_key(item.content)) in seen:
                bill.duplicates += 1
            else:
                bill.uncategorised += item.category is None
                if dedupe:
                    seen.add(key)
    return bill


def _refuse(bill: Bill, outcome: FactOutcome, failures: FailuresFile | None) -> None:
    bill.invalid += 1
    if len(bill.shown) < SHOWN:
        bill.shown.append(outcome)
    if failures is not None:
        failures.add(outcome)


async def dry_run(common: Common, wishes: Wishes) -> int:
    """Print the bill, and return the exit code."""
    inputs = wishes.inputs()
    failures = FailuresFile(inputs, wishes.failures) if wishes.failures else None
    with closing(failures) if failures else nullcontext():
        bill = await _make_bill(inputs, failures, dedupe=wishes.dedupe)
    bill.limits = await Limits.look_up(common, bill.to_send)
    if common.as_json:
        put_json({"event": "bill", **bill.as_json()})
        say(str(bill))
    else:
        put(str(bill))
    if failures is not None and failures.path is not None:
        say(f"The invalid records are in {failures.path}.")
    if inputs.broken:
        inputs.complain()
        return exits.USAGE
    return exits.SOME_FAILED if bill.invalid else exits.OK
