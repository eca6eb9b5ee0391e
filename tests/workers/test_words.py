"""What is kept of a server's words: they explain, and do not quote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("redis", reason="it is of the extra workers")

from omi_async.errors import OmiError
from omi_async.workers.words import PIECE, why_refused

pytestmark = pytest.mark.extras

TEXTS = st.text("abcdef ", min_size=1, max_size=60).map(str.strip).filter(bool)


@given(text=TEXTS, data=st.data())
def test_no_piece_of_the_text_is_left(text: str, data: st.DataObject) -> None:
    # Catches: only whole texts are hidden, or only the first one of several quotations.
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    before, between = data.draw(st.text("XYZ", max_size=9)), data.draw(st.text("XYZ", min_size=1, max_size=9))
    words = why_refused(OmiError(f"{before}{text[start:end]}{between}{text}"), text)
    assert text not in words
    assert not any(text[at : at + PIECE] in words for at in range(len(text) - PIECE + 1))
    assert words.startswith(before)
    assert between in words


def test_words_that_quote_nothing_stay_as_they_are() -> None:
    words = "content: String should have at most 500 characters"
    assert why_refused(OmiError(words), "User has 500 books at home") == words


def test_a_quotation_is_told_by_dots() -> None:
    error = OmiError("'User is vege' is no good: 'User is vegetarian'")
    assert why_refused(error, "User is vegetarian") == "'...' is no good: '...'"
