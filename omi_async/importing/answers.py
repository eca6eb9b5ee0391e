"""What an answer or a page of the list says about the facts that were sent."""

from __future__ import annotations

import math
import re
from bisect import insort
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from omi_async._api.headers import parse_http_date
from omi_async._api.messages import BatchAnswer, Response
from omi_async.errors import InvalidFactError, InvalidRequestError
from omi_async.fact import Payload
from omi_async.importing.item import Item
from omi_async.importing.report import State

__all__ = ["KnownRefusals", "Matched", "ServerClock", "match", "may_be_locked", "moment_of"]

_FRACTION: Final = re.compile(r"[.,]([0-9]+)", re.ASCII)

LOCKED_LENGTH = 70
"""Characters of a locked memory that the list shows, before `...` (backend)."""


MARGIN: Final = 2.0
"""Seconds by which the clocks of the service's machines may differ, while little is known of them. A memory
stamped before its call left, by another clock, would be looked for in vain, and stored twice. With more, the
looks read further back than they need to, which may be further than the list is shown."""

ENOUGH_WITNESSES: Final = 8
"""Answers that must agree on the clock before the margin is as narrow as they have shown it. With a few, all
may have come from one machine of several. With more, a look beside a fast import, or into an account that was
filled just before, reads seconds that may hold more memories than the list shows."""


class Matched(NamedTuple):
    """What an answer says of the items of a call.

    Attributes:
        found: those that it names; each has its memory and its state now.
        missing: those that it does not.
        strangers: texts in it that were never sent; they are counted only if something is missing.
    """

    found: list[Item]
    missing: list[Item]
    strangers: int


def match(items: list[Item], named: BatchAnswer, clock: ServerClock) -> Matched:
    """Find the memory of each item by its text; neither number nor position says anything.

    If the same text was sent twice, each takes a memory of its own. One that is left without has to be looked
    for; a server that knows memories by their text names the same one twice, and leaves none without.
    """
    if [item.content for item in items] == named.contents:
        clock.judge(items, named.ids, named.created)
        return Matched(items, [], 0)
    by_text: dict[str, list[tuple[str, str]]] = {}
    for memory_id, content, created in zip(named.ids, named.contents, named.created, strict=True):
        by_text.setdefault(content.strip(), []).append((memory_id, created))
    taken: dict[str, set[str]] = {}
    found, missing = list[Item](), list[Item]()
    ids, moments = list[str](), list[str]()
    for item in items:
        memories = by_text.get(item.content)
        if not memories:
            missing.append(item)
            item.others = (item.others or set()) | taken.get(item.content, set())
            continue
        memory_id, created = memories.pop(0)
        taken.setdefault(item.content, set()).add(memory_id)
        found.append(item)
        ids.append(memory_id)
        moments.append(created)
    clock.judge(found, ids, moments)
    strangers = len(by_text.keys() - {item.content for item in items}) if missing else 0
    return Matched(found, missing, strangers)


def may_be_locked(item: Item, content: str) -> bool:
    """Whether a listed text may be this item's, cut short because the memory is locked."""
    return content.endswith("...") and content[:-3] == item.content[:LOCKED_LENGTH]


class ServerClock:
    """The server's clock, as far as its answers show it: the evidence that tells `existing` from `created`.

    The API has no flag for it. A memory whose `created_at` lies before the start of the import was there
    before. The server's clock is taken to agree with ours unless the Date header of its first answer shows
    otherwise.

    Attributes:
        offset: seconds that the server's clock is ahead of ours; None before the first answer.
    """

    def __init__(self, started: float = 0.0) -> None:
        self.offset: float | None = None
        self._started = started
        self._least = -math.inf  # what the offset is at least, by all answers
        self._most = math.inf  # and at most, by those that created something
        self._narrowest = list[float]()  # seconds between the two bounds of single answers, in their order
        self._grain = 0.0  # seconds that the server's texts for moments leave out
        self._start: datetime  # by the server's clock, once the offset is known
        self._start_text: str  # the same, as the service writes it

    def start(self, moment: float) -> None:
        """Note when the import begins, by our clock, in epoch seconds."""
        self._started = moment

    def learn(self, answer: Response) -> None:
        """Compare the clocks at the first answer."""
        if self.offset is not None:
            return
        date, sent, received = answer.header("Date"), answer.sent, answer.received
        moment = parse_http_date(date) if date else None
        offset = 0.0
        if moment is not None and sent is not None and received is not None:
            # A Date has whole seconds: the server's clock stood in [date, date + 1) while ours went from
            # sent to received. If the clocks differ, the least difference errs towards `created`.
            least, most = moment.timestamp() - received, moment.timestamp() + 1.0 - sent
            offset = least if least > 0.0 or most < 0.0 else 0.0
            self._least = least
        try:
            self._start = datetime.fromtimestamp(self._started + offset, UTC)
        except (ValueError, OverflowError):  # a Date at the end of time
            offset, self._least = 0.0, -math.inf
            self._start = datetime.fromtimestamp(self._started, UTC)
        self.offset = offset
        self._start_text = self._start.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def witness(self, created: str, answer: Response) -> None:
        """Learn from the youngest memory that an answer names: it was made before the answer came.

        If it is one of this import, it was also made after the call left. So each answer narrows the offset
        down to the time that a call takes; a Date has whole seconds only::

            our clock           sent ......................... received
            the server's               created_at                        the same moment, somewhere in between

        So ``created_at - received <= offset <= created_at - sent``.
        """
        moment = moment_of(created)
        if moment is None or answer.sent is None or answer.received is None or self.offset is None:
            return
        seconds = moment.timestamp()
        least, most = seconds - answer.received, seconds - answer.sent
        self._least = max(self._least, least)
        self._grain = max(self._grain, _grain(created))
        if moment > self._start:
            self._most = min(self._most, most)
            insort(self._narrowest, most - least)
            del self._narrowest[ENOUGH_WITNESSES:]

    def before(self, item: Item) -> datetime | None:
        """Return a moment of the server's clock at which no call had left with an item; None if unknown."""
        if item.first_sent is not None and item.clock_offset is not None:
            # That offset was learned from a Date, which has whole seconds.
            return _utc(item.first_sent + item.clock_offset - 1.0 - MARGIN)
        own = item.sent_at
        if item.first_sent is not None:
            own = item.first_sent if item.by_own_clock else None
        if own is None or self.offset is None:
            return None
        least = min(self._least, self._most)
        margin = self._margin() if item.first_sent is None else MARGIN
        return _utc(own + (least if math.isfinite(least) else self.offset) - margin)

    def _margin(self) -> float:
        """Return how far a machine's clock may lie before the least offset that all answers allow.

        If there is one clock, its offset lies between the bounds of each answer, so no further before the
        least of them than the narrowest are wide. Clocks of several machines show as bounds that contradict
        each other. One that answered none of so many calls is taken to be no worse than those.
        """
        if len(self._narrowest) < ENOUGH_WITNESSES:
            return MARGIN + self._grain
        return min(self._narrowest[-1], MARGIN) + self._grain + max(0.0, self._least - self._most)

    def judge(self, items: Sequence[Item], ids: Sequence[str], created: Sequence[str]) -> None:
        """Set the memories and states of items; `created` are the texts of `created_at`, or empty."""
        new = self._are_new(created)
        for item, memory_id, text in zip(items, ids, created, strict=True):
            item.memory_id = memory_id
            if new and item.first_sent is None:
                item.state = "created"
            else:
                item.state = self.state_of(text, item.first_sent, item.clock_offset)

    def _are_new(self, created: Sequence[str]) -> bool:
        """Whether all these texts are later than the start of the import, as far as that can be seen at once.

        Nearly all are written exactly as our start is, and such texts are ordered as the moments are. To
        parse each would cost as much as all else that is done with an answer.
        """
        if self.offset is None or {*map(len, created)} != {len(self._start_text)}:
            return False
        first = min(created)
        return first > self._start_text and first[19::7] == ".Z"

    def state_of(
        self, text: str, first_sent: float | None = None, clock_offset: float | None = None
    ) -> State:
        """Return whether a memory is there because of this import (or of the earlier run that sent its fact).

        Args:
            text: the memory's `created_at`, or empty.
            first_sent: when an earlier run sent it first, by that machine's clock.
            clock_offset: how far the server's was ahead of that one; as far as of ours, if that is not known.
        """
        created_at = moment_of(text)
        if self.offset is None or created_at is None:
            return "created"
        start = self._start
        if first_sent is not None:
            start = _utc(first_sent + (self.offset if clock_offset is None else clock_offset))
        if created_at > start:
            return "created"
        return "existing" if created_at <= start - timedelta(seconds=_grain(text)) else "created"


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def moment_of(text: str) -> datetime | None:
    """Read the server's text for a moment; None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _grain(moment: str) -> float:
    """Return the step of a timestamp's clock in seconds: one of whole seconds lies up to a second earlier."""
    fraction = _FRACTION.search(moment)
    return 10.0 ** -min(len(fraction[1]), 6) if fraction else 1.0


class KnownRefusals:
    """What the server's refusals taught: facts that it would refuse again are not sent to it again.

    Attributes:
        any: whether they have taught anything.
    """

    def __init__(self) -> None:
        self.any = False
        self._longest: int | None = None
        self._categories: set[str] = set()

    def learn(self, error: InvalidRequestError, items: list[Item]) -> None:
        """Take the rules out of FastAPI's validation errors for a batch of these items."""
        for problem in error.detail if isinstance(error.detail, list) else ():
            match problem:
                case {
                    "loc": ["body", "memories", int(index), "content"],
                    "type": "string_too_long",
                    "ctx": {"max_length": int(longest)},
                } if self._believable(index, items) and len(items[index].content) > longest > 0:
                    self._longest = min(longest, self._longest or longest)
                case {"loc": ["body", "memories", int(index), "category"], "type": "enum"} if (
                    self._believable(index, items)
                ):
                    self._categories.add(items[index].payload.get("category", ""))
                case _:
                    pass
        self.any = self._longest is not None or bool(self._categories)

    @staticmethod
    def _believable(index: Any, items: list[Item]) -> bool:
        return type(index) is int and 0 <= index < len(items)

    def refuse(self, payload: Payload) -> InvalidFactError | None:
        """Return why the server would refuse this fact, or None."""
        content, category = payload["content"], payload.get("category")
        if self._longest is not None and len(content) > self._longest:
            return InvalidFactError(
                f"content: has {len(content)} characters, this server said that it takes at most "
                f"{self._longest}",
                field="content",
            )
        if category is not None and category in self._categories:
            return InvalidFactError(
                f"category: this server said that it does not know {category!r}", field="category"
            )
        return None
