"""The events of an import, for programs: a JSON document a line."""

from __future__ import annotations

import asyncio
from typing import Any

from omi_async.cli.imports.failure_record import failure_record
from omi_async.cli.imports.inputs import Inputs
from omi_async.cli.output import print_events
from omi_async.importing.report import FactOutcome

__all__ = ["Events", "event_of"]

Event = dict[str, Any]


class Events:
    """Collects events, and writes them together, after each batch.

    Their reader may be slow, such as a pager. If each was written when it happens, the event loop would stand
    still while the pipe is full, in the middle of calls, whose answers would come too late then.
    """

    def __init__(self) -> None:
        self._waiting: list[Event] = []
        self._one_at_a_time = asyncio.Lock()

    def put(self, event: Event) -> None:
        """Add an event to those that wait."""
        self._waiting.append(event)

    async def publish(self) -> None:
        """Write what waits, in a thread."""
        async with self._one_at_a_time:
            if self._waiting:
                await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what waits, here and now."""
        events, self._waiting = self._waiting, []
        print_events(events)


def event_of(outcome: FactOutcome, inputs: Inputs) -> Event | None:
    """Return what is told of a fact that has its state; None of one that another fact stands for."""
    if outcome.failed:
        return {"index": outcome.index, **failure_record(outcome, inputs), "event": "failure"}
    if outcome.memory_id is None:
        return None
    return {
        "event": "stored",
        "index": outcome.index,
        "state": outcome.state,
        "id": outcome.memory_id,
        "origin": outcome.origin,
    }
