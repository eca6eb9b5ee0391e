"""The index against a dict."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_async.importing.journal.index import PLACES, KeyIndex

BYTE = st.integers(0, 255)
FEW_KEYS = st.builds(
    lambda bucket, tag, rest: bytes([bucket, 0, tag]) + rest,
    st.integers(0, 1),
    BYTE,
    st.sampled_from([bytes(13), b"\xff" * 13, b"\0" * 3 + b"\xff" * 10]),
)
KEYS = st.binary(min_size=16, max_size=16) | FEW_KEYS
ROWS = st.tuples(st.lists(KEYS, max_size=25), st.integers(0, PLACES - 25) | st.sampled_from([0, PLACES - 25]))


@given(st.lists(ROWS, max_size=12), st.lists(KEYS, max_size=20), st.sets(st.integers(0, 11)))
@settings(max_examples=200, deadline=None)
def test_it_never_misses_a_place_and_names_others_only_if_tags_are_equal(added, others, removed) -> None:
    index = KeyIndex()
    model: dict[bytes, list[int]] = {}
    by_tag: dict[bytes, list[int]] = {}
    for keys, first in added:
        index.add(b"".join(keys), first)
    for number in removed.intersection(range(len(added))):
        keys, first = added[number]
        index.remove(b"".join(keys), first)
    for keys, first in [row for number, row in enumerate(added) if number not in removed]:
        for place, key in enumerate(keys, first):
            model.setdefault(key, []).append(place)
            by_tag.setdefault(key[:6], []).append(place)  # what the index can tell of a key
    assert len(index) == sum(map(len, model.values()))
    asked = [*model, *others]
    for key, places in zip(asked, index.places(b"".join(asked)), strict=True):
        assert sorted(places) == sorted(by_tag.get(key[:6], ()))
        assert set(model.get(key, ())) <= set(places)


def test_it_finds_everything_among_many() -> None:
    keys = [blake2b(str(number).encode(), digest_size=16).digest() for number in range(200_000)]
    index = KeyIndex()
    for first in range(0, len(keys), 25):
        index.add(b"".join(keys[first : first + 25]), first)
    assert len(index) == len(keys)
    assert all(place in places for place, places in enumerate(index.places(b"".join(keys))))
    strangers = b"".join(blake2b(b"%d" % -number, digest_size=16).digest() for number in range(1, 2000))
    assert sum(map(len, index.places(strangers))) <= 2


def test_a_tag_is_found_only_where_an_entry_begins() -> None:
    index = KeyIndex()
    index.add(b"\0\0" + b"\x01\0\0\0" + bytes(10), 0x01000000)  # its entry holds the tag 0 0 0 0 too
    assert not any(index.places(bytes(16)))
    index.add(bytes(16), 7)
    assert index.places(bytes(16)) == [[7]]


def test_a_bucket_of_one_tag_gives_all_its_places() -> None:
    index = KeyIndex()
    for place in range(100):
        index.add(bytes(16), place)
    (places,) = index.places(bytes(16))
    assert sorted(places) == list(range(100))
    assert index.places(bytes(6) + b"\x01" * 10) == [places]  # the tag is all it knows
    assert not any(index.places(b"\0\0\x01" + bytes(13)))


@pytest.mark.parametrize("place", [-1, PLACES - 1, PLACES])
def test_a_place_that_does_not_fit_is_refused(place: int) -> None:
    index = KeyIndex()
    with pytest.raises(OverflowError, match="is not between 0 and 4,294,967,295"):
        index.add(bytes(32), place)
    assert not any(index.places(bytes(16)))
    index.add(bytes(32), PLACES - 2)
    assert index.places(bytes(16)) == [[PLACES - 2, PLACES - 1]]
