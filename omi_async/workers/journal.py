"""The journal of a part: what its import has sent and what became of it, in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from omi_async.errors import JournalError
from omi_async.importing.intake import SeenTexts
from omi_async.importing.item import Item, content_key, fingerprint
from omi_async.importing.journal.row import IN_DOUBT, SUSPECTED, Recalled, letter_of, state_of
from omi_async.workers.errors import LeaseLost
from omi_async.workers.lease import Lease
from omi_async.workers.words import why_refused

__all__ = ["PartJournal"]

HAS_ROW: Final = 0
"""The place of an item that has a row. Which row, its key says."""

FINGERPRINT: Final = 16
"""Letters of a fingerprint in a row."""


class PartJournal:
    """Fulfils `ImportJournal` with a row for each fact that was sent.

    The key of a row is the hash of the text. Its value is a letter of state, as in the file of a journal, and

    | letter | what follows |
    |---|---|
    | `s` `u` `a` | in doubt; when the first call was about to leave that may have stored it |
    | `c` `e` | the memory's id |
    | `r` | a fingerprint of what was refused, and why |

    Moments are milliseconds of the store's clock. What was certainly not stored has no row.

    Args:
        lease: of the part; a row is written only while it is this worker's.
        rows: whether earlier workers have left rows.
        suspect: whether facts without a row may have been sent by an earlier worker.

    Attributes:
        clock_offset: what the import knows of the server's clock. It is not kept: moments are of the store's
            clock, which is the same for all workers.
    """

    def __init__(self, lease: Lease, *, rows: bool, suspect: bool) -> None:
        self.clock_offset: float | None = None
        self._lease = lease
        self._rows = rows
        self._unknown = SUSPECTED if suspect else None
        self._seen = SeenTexts()

    async def begin(self, server: str) -> None:
        """Begin. The part was taken before, for this server."""

    async def recall(self, contents: Sequence[str], /) -> list[Recalled | Literal["seen"] | None]:
        """Return for each text what earlier workers know, ``"seen"`` if it came before, or None."""
        keys = [content_key(content) for content in contents]
        # What this worker itself writes needs no reading: its facts have been seen.
        values = await self._lease.read(keys) if self._rows else [None] * len(keys)
        again = self._seen.came_again(contents)
        return ["seen" if seen else self._recalled(row) for seen, row in zip(again, values, strict=True)]

    def _recalled(self, row: bytes | None) -> Recalled | None:
        if row is None:
            return self._unknown
        text = row.decode(errors="surrogatepass")
        letter, rest = text[:1], text[1:]
        in_doubt, rejected = letter in IN_DOUBT, letter == "r"
        return Recalled(
            place=HAS_ROW,
            state=None if in_doubt else state_of(letter),
            in_doubt=in_doubt,
            maybe_reworded=letter == "a",
            memory_id=None if in_doubt or rejected else rest or None,
            words=rest[FINGERPRINT:] if rejected else None,
            fact=None,
            fingerprint=rest[:FINGERPRINT] if rejected else None,
            sent_at=self._lease.to_own_clock(float(rest)) if in_doubt else None,
            clock_offset=None,
            by_own_clock=True,
        )

    async def sending(self, items: Sequence[Item], /) -> None:
        """Write down that a call with these items is about to leave."""
        self._lease.departs()
        try:
            await self._write([(content_key(item.content), b"s") for item in items])
        except BaseException:
            self._lease.landed()
            raise
        for item in items:
            item.place = HAS_ROW

    async def settled(self, items: Sequence[Item], /) -> None:
        """Write down what became of items that have a row."""
        rows = [(content_key(item.content), _value(item)) for item in items if item.place is not None]
        if rows:
            await self._write(rows)

    async def end(self) -> None:
        """End. The lease is given back by whoever has taken it."""

    async def _write(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        try:
            await self._lease.write(rows)
        except LeaseLost as lost:
            raise JournalError(str(lost)) from lost


def _value(item: Item) -> bytes:
    """Return the row of an item that has its state; empty for none."""
    letter = letter_of(item)
    if letter in IN_DOUBT:
        return letter.encode()
    if item.state in {"created", "existing"}:
        return f"{letter}{item.memory_id or ''}".encode(errors="surrogatepass")
    if item.state == "rejected":
        words = "" if item.error is None else why_refused(item.error, item.content)
        return f"{letter}{fingerprint(item.payload)}{words}".encode(errors="surrogatepass")
    return b""
