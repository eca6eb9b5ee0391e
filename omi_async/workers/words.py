"""Why something failed, in words that may stand in the store: without what facts say.

A server's answer may quote what it refuses, or another fact of the same call. So its words are kept only if
they are about one fact that was refused, and without what they have in common with that one's text. Of every
other answer the status is told.
"""

from __future__ import annotations

from typing import Final

from omi_async._api.failures import log_name
from omi_async.errors import APIError, OmiError
from omi_async.importing.journal.row import kept_words

__all__ = ["why", "why_refused"]

PIECE: Final = 12
"""Characters in a row that may not stand in both a server's words and a text. A shorter piece says hardly
anything; and words that explain ("string too long") have less in common with a text by chance."""


def why(error: OmiError) -> str:
    """Return what went wrong; of a server's answer in it the status, not the words."""
    words = str(error)
    for each in (error, error.__cause__):
        if isinstance(each, APIError):
            words = words.replace(str(each), log_name(each))
    return kept_words(OmiError(words))


def why_refused(error: OmiError, text: str) -> str:
    """Return a server's words about a fact with this text, and dots for each piece of the text in them."""
    words = kept_words(error).replace(text, "...")
    pieces = {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}
    starts = [at for at in range(len(words) - PIECE + 1) if words[at : at + PIECE] in pieces]
    quoted = {place for at in starts for place in range(at, at + PIECE)}
    kept = ["" if place in quoted else sign for place, sign in enumerate(words)]
    for at in quoted:
        if at - 1 not in quoted:
            kept[at] = "..."
    return "".join(kept)
