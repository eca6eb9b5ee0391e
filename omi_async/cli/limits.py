"""What is known of the quotas that an import would meet, before it is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs

from omi_async.cli.ledger import ledger_path
from omi_async.cli.options import Common
from omi_async.cli.words import local_time, plural

if TYPE_CHECKING:
    from omi_async._wire import QuotaState
    from omi_async.importing.forecast import Forecast

__all__ = ["Limits"]

Known = Literal["seen", "documented", "unknown", "none"]


@attrs.frozen
class Limits:
    """What is known of a server's quotas for batch calls.

    Attributes:
        known: "seen": earlier commands have met them with this key; "documented": the service's
            documentation alone tells of them; "unknown": nobody does yet; "none": the server has none.
        server: its base URL.
        quotas: the policies for batch calls.
        forecast: what they make of the calls, if these take no time; None where none are known.
    """

    known: Known
    server: str = ""
    quotas: tuple[QuotaState, ...] = ()
    forecast: Forecast | None = None

    @classmethod
    async def look_up(cls, common: Common, facts: int) -> Self:
        """Look into the ledger, where there is one, for what is known to this key; send nothing."""
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
            "quotas": [
                {
                    "policy": state.policy,
                    "limit": state.limit,
                    "window": state.window,
                    "used": state.used,
                    "opens_at": None
                    if state.opens_at is None
                    else state.opens_at.isoformat(timespec="seconds"),
                    "source": state.source,
                }
                for state in self.quotas
            ],
            "windows_to_wait_for": None if forecast is None else forecast.windows,
            "seconds_to_wait": None if forecast is None else round(forecast.wait),
        }

    def what_was_seen(self) -> str:
        """Say what the quotas that were seen make of the calls."""
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
