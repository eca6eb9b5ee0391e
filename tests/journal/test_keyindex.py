"""The index against a dict."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_async.importing.keyindex import PLACES, KeyIndex

BYTE = st.integers(0, 255)
FEW_KEYS = st.builds(lambda shard, tag, rest: bytes([shard, tag]) + rest, st.integers(0, 1), BYTE,
                     st.sampled_from([bytes(14), b"\xff" * 14, b"\0" * 6 + b"\xff" * 8]))  # fmt: skip
KEYS = st.binary(min_size=16, max_size=16) | FEW_KEYS
PLACE = st.integers(0, PLACES - 2) | st.sampled_from([0, 1, PLACES - 2])


def tag(key: bytes) -> tuple[int, int]:
    """What the index can tell of a key."""
    return key[0], int.from_bytes(key[1:8], "little") % 2**36


@given(st.lists(st.tuples(KEYS, PLACE), max_size=120), st.lists(KEYS, max_size=20))
@settings(max_examples=200, deadline=None)
def test_it_never_misses_a_place_and_names_others_only_where_tags_are_equal(added, others) -> None:
    index = KeyIndex()
    model: dict[bytes, list[int]] = {}
    for key, place in added:
        index.add(key, place)
        model.setdefault(key, []).append(place)
    assert len(index) == len(added)
    for key in [*model, *others]:
        found = sorted(index.places(key))
        same_tag = sorted(
            place for other, places in model.items() for place in places if tag(other) == tag(key)
        )
        assert found == same_tag
        assert set(model.get(key, ())) <= set(found)


def test_it_finds_everything_after_it_has_grown_many_times() -> None:
    keys = [blake2b(str(number).encode(), digest_size=16).digest() for number in range(30_000)]
    index = KeyIndex()
    for place, key in enumerate(keys):
        index.add(key, place)
    assert all(place in index.places(key) for place, key in enumerate(keys))
    strangers = [blake2b(b"%d" % -number, digest_size=16).digest() for number in range(1, 2000)]
    assert sum(len(list(index.places(key))) for key in strangers) <= 2


def test_a_full_shard_of_one_tag_ends() -> None:
    index = KeyIndex()
    for place in range(100):
        index.add(bytes(16), place)
    assert sorted(index.places(bytes(16))) == list(range(100))
    assert list(index.places(bytes(8) + b"\x01" * 8)) != []  # the tag is all it knows
    assert list(index.places(b"\0\x01" + bytes(14))) == []


@pytest.mark.parametrize("place", [-1, PLACES - 1, PLACES])
def test_a_place_that_does_not_fit_is_refused(place: int) -> None:
    index = KeyIndex()
    with pytest.raises(OverflowError, match="is not between 0 and 268,435,454"):
        index.add(bytes(16), place)
    assert list(index.places(bytes(16))) == []
