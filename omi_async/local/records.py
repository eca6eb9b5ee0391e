"""The record of the calls that a server has handled."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from omi_async.fact import Fact

__all__ = ["CallRecord", "Calls", "assert_each_stored_once"]

KEPT: Final = 100_000
"""Records that are kept, the newest ones."""


@attrs.frozen
class CallRecord:
    """A call that was handled.

    Attributes:
        path: without the query, as it came (percent-encoded).
        kind: "list", "search", "create", "batch", "update", "delete", "key", or "" if there is no such route.
        status: of the answer, or None if the connection was gone before one was sent.
        items: the number of memories in a batch, 1 for a single write, otherwise 0.
        started: by a monotonic clock, in seconds.
        ended: by the same clock.
    """

    method: str
    path: str
    kind: str
    status: int | None
    items: int
    started: float
    ended: float


class Calls:
    """Counts the calls in flight, and remembers those that ended."""

    def __init__(self, log: logging.Logger | None) -> None:
        self.records: deque[CallRecord] = deque(maxlen=KEPT)
        self.peaks: Counter[str] = Counter()
        self.peak = 0
        self._in_flight: Counter[str] = Counter()
        self._total = 0
        self._log = log

    @property
    def in_flight(self) -> int:
        """The number of calls that are being handled."""
        return self._total

    def begin(self, kind: str) -> float:
        """Count a call in. Returns the moment."""
        # Counted here, not in the answer: a call that waits, or whose client is gone, is at work too.
        self._total += 1
        self._in_flight[kind] += 1
        self.peak = max(self.peak, self._total)
        self.peaks[kind] = max(self.peaks[kind], self._in_flight[kind])
        return time.monotonic()

    def end(
        self, *, method: str, path: str, kind: str, status: int | None, items: int, started: float
    ) -> None:
        """Count a call out, remember it and log it: never a key, never a text."""
        self._total -= 1
        self._in_flight[kind] -= 1
        record = CallRecord(method, path, kind, status, items, started, time.monotonic())
        self.records.append(record)
        if self._log is not None:
            took = (record.ended - started) * 1000
            about = {"omi_kind": kind, "omi_status": status, "omi_took": took / 1000, "omi_items": items}
            words = "%s %s %s %.1f ms %d items"
            self._log.info(words, method, path, status or "dropped", took, items, extra=about)


_NAMED: Final = 10
"""Texts that a message names of each kind, at most."""


def assert_each_stored_once(stored: Iterable[Mapping[str, Any]], facts: Iterable[object]) -> None:
    """Raise AssertionError unless every fact is stored exactly once; it names the missing and the doubled."""
    counts = Counter(memory["content"] for memory in stored)
    texts = dict.fromkeys(map(_text, facts))
    missing = [text for text in texts if counts[text] == 0]
    doubled = [f"{text!r} ({counts[text]} times)" for text in texts if counts[text] > 1]
    if missing or doubled:
        said = [_list("missing", [repr(text) for text in missing]), _list("stored more than once", doubled)]
        raise AssertionError(f"of {len(texts)} texts: {'; '.join(filter(None, said))}")


def _text(fact: object) -> str:
    if isinstance(fact, Fact):
        return fact.content
    content = fact["content"] if isinstance(fact, Mapping) else fact
    if not isinstance(content, str):
        raise TypeError(f"a fact is a str, a Fact or a mapping with a content, not {type(fact).__name__}")
    return content.strip()


def _list(what: str, texts: list[str]) -> str:
    if not texts:
        return ""
    more = f", and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return f"{len(texts)} {what}: {', '.join(texts[:_NAMED])}{more}"
