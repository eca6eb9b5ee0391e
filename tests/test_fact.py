"""What a fact is, and what a memory is."""

from __future__ import annotations

import copy
import enum
import math
import pickle
import re
import sqlite3
import traceback
from collections import UserDict
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import Fact, InvalidFactError, Memory
from omi_async.fact import checked, checked_changes, fact_from, fact_payload, refuse_table
from tests.naming import stable_id


class Visibility(enum.StrEnum):
    PUBLIC = "public"
    SECRET = "secret"


class Loud(str):
    """A str whose own methods are not to be trusted."""

    __slots__ = ()

    def strip(self, chars: str | None = None) -> str:
        return " LOUD "

    def __str__(self) -> str:
        return "LOUD"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Uncomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]  # unhashable on purpose


def field_at_fault(*args: Any, **fields: Any) -> str:
    with pytest.raises(InvalidFactError) as caught:
        Fact(*args, **fields)
    assert str(caught.value).startswith(f"{caught.value.field}: ")
    assert caught.value.maybe_applied is False
    return caught.value.field


def test_a_text_is_a_fact() -> None:
    fact = Fact("User is vegetarian")
    assert (fact.content, fact.category, fact.visibility, fact.tags, fact.origin) == (
        "User is vegetarian",
        None,
        "private",
        (),
        None,
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  a \n", "a"),
        ("\u00a0\u3000a\x1c\u2028", "a"),
        ("a\x00", "a\x00"),
        ("x" * 500, "x" * 500),
        (" " * 600 + "x" * 500, "x" * 500),
        ("\U0001f600" * 500, "\U0001f600" * 500),
        ("e\u0301", "e\u0301"),  # no normalisation: the server does none
        (Loud(" quiet "), "quiet"),
        (Visibility.SECRET, "secret"),
    ],
)
def test_content_is_kept_stripped(given: str, kept: str) -> None:
    fact = Fact(given)
    assert repr(fact.content) == repr(kept)
    assert type(fact.content) is str


@pytest.mark.parametrize(
    "content",
    [
        "",
        " \t\n\u3000",
        "x" * 501,
        "\U0001f600" * 501,
        "\ud800",
        "a\udfffb",
        None,
        1,
        True,
        b"bytes",
        ["a"],
        1.5,
    ],
)
def test_content_that_the_server_would_refuse_is_refused_here(content: Any) -> None:
    assert field_at_fault(content) == "content"


def test_the_length_is_told_in_code_points() -> None:
    with pytest.raises(InvalidFactError, match="has 501 characters, the server takes at most 500"):
        Fact("\U0001f600" * 501)


@pytest.mark.parametrize("category", ["interesting", "no-such", "ünï", "a.b", Visibility.PUBLIC, None])
def test_any_word_is_a_category(category: str | None) -> None:
    assert Fact("a", category=category).category == category


@pytest.mark.parametrize(
    "category",
    ["", " ", "two words", "a,b", "a\n", "\ud800", "a\u00a0b", "a\u2028", 1, False, b"a", ["a"], {}],
)
def test_a_category_is_one_word(category: Any) -> None:
    assert field_at_fault("a", category=category) == "category"


@pytest.mark.parametrize("visibility", ["private", "public", Visibility.PUBLIC])
def test_visibility_is_private_or_public(visibility: str) -> None:
    kept = Fact("a", visibility=visibility).visibility
    assert kept == visibility
    assert type(kept) is str


@pytest.mark.parametrize(
    "visibility",
    [
        *["", "Public", "PRIVATE", " public", "publi\u0441", Visibility.SECRET, Loud("public2")],
        *[None, True, 1, b"public", [], {}, math.nan, Uncomparable()],
    ],
)
def test_visibility_is_nothing_else(visibility: Any) -> None:
    assert field_at_fault("a", visibility=visibility) == "visibility"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["a", "b", "a"], ("a", "b", "a")),
        (("", " "), ("", " ")),
        ((tag for tag in "ab"), ("a", "b")),
        ({"a": 1}.keys(), ("a",)),
        (frozenset({"a"}), ("a",)),
        ([Loud("a")], ("a",)),
    ],
)
def test_tags_are_any_strings(given: Any, kept: tuple[str, ...]) -> None:
    tags = Fact("a", tags=given).tags
    assert [str.__str__(tag) for tag in tags] == list(kept)
    assert all(type(tag) is str for tag in tags)


@pytest.mark.parametrize(
    "tags",
    ["abc", b"abc", {"a": "b"}, None, 1, True, ["a", None], [1], [["a"]], ["\ud800"], [b"a"], object()],
)
def test_tags_are_a_list_of_strings(tags: Any) -> None:
    assert field_at_fault("a", tags=tags) == "tags"


def test_a_fact_does_not_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Fact("a").content = "b"  # type: ignore[misc]  # wrong on purpose


def test_equality_ignores_the_origin() -> None:
    facts = {Fact("a", origin="x.csv:1"), Fact(" a", origin="y.csv:2"), Fact("a", tags=["t"]), Fact("A")}
    assert len(facts) == 3


@pytest.mark.parametrize(
    "model",
    [Fact("a", category="work", tags=["x"], origin="f:1"), Memory(id="1"), Memory(id="2", tags=("a",))],
)
def test_models_can_be_copied_and_pickled(model: Fact | Memory) -> None:
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin == model
        assert hash(twin) == hash(model)
        assert repr(twin) == repr(model)


def test_only_the_text_of_a_fact_is_positional() -> None:
    with pytest.raises(TypeError):
        Fact("a", "work")  # type: ignore[call-arg]  # wrong on purpose


@given(st.text(max_size=8) | st.text(st.sampled_from("a_1é ,\u2028\u200b\u00ad\ud800"), max_size=4))
def test_a_category_is_one_printable_word(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        word = False
    else:
        word = bool(text) and text.isprintable() and not {",", " "} & set(text)
    try:
        assert Fact("a", category=text).category == text
    except InvalidFactError:
        assert not word
    else:
        assert word


def test_a_changed_copy_is_checked_too() -> None:
    fact = Fact("a", category="work", tags=["x"], origin="f:1")
    assert attrs.evolve(fact, content=" b ") == Fact("b", category="work", tags=["x"])
    assert attrs.evolve(fact, content="b").origin == "f:1"
    with pytest.raises(InvalidFactError):
        attrs.evolve(fact, tags="abc")


def test_a_kind_of_fact_is_checked_as_a_fact_is() -> None:
    @attrs.frozen(kw_only=True)
    class Dated(Fact):
        year: int

    assert Dated(content=" a ", tags=["x"], year=1).content == "a"
    assert Dated(content="a", tags=["x"], year=1).tags == ("x",)
    with pytest.raises(InvalidFactError):
        Dated(content=" ", year=1)


def test_a_fact_matches_by_its_text() -> None:
    match Fact("a", category="work"):
        case Fact(text):
            assert text == "a"


# fact_from


def test_a_fact_stays_the_same_object() -> None:
    fact = Fact("a")
    assert fact_from(fact) is fact


@given(
    st.fixed_dictionaries(
        {"content": st.text(max_size=4)},
        optional={
            "category": st.none() | st.text(max_size=3),
            "visibility": st.sampled_from(["public", "private", "", "x", None]),
            "tags": st.lists(st.text(max_size=2), max_size=2),
        },
    )
)
@example({"content": " a ", "category": "work", "tags": ["x"]})
def test_what_is_sent_of_a_mapping_is_what_is_sent_of_its_fact(mapping: dict[str, Any]) -> None:
    try:
        fact = fact_from(mapping)
    except InvalidFactError as error:
        with pytest.raises(InvalidFactError, match=re.escape(str(error))):
            checked(mapping)
    else:
        assert checked(mapping) == checked(fact) == fact_payload(fact)


def test_a_mapping_may_hold_nulls_and_other_keys() -> None:
    given: dict[Any, Any] = {"content": " a ", "id": 7, "origin": "no", 3: 4}
    fact = fact_from({**given, "category": None, "visibility": None, "tags": None})
    assert fact == Fact("a")
    assert fact.origin is None


def test_a_mapping_brings_its_fields() -> None:
    given = UserDict({"content": "a", "category": "work", "visibility": "public", "tags": ["t"]})
    assert fact_from(given) == Fact("a", category="work", visibility="public", tags=["t"])


class Row:
    """Named values as some database drivers give them: `keys()` and ``[]``, and no more."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def keys(self) -> Iterator[str]:
        return iter(self.values)

    def __getitem__(self, name: str, /) -> Any:
        return self.values[name]


def test_whatever_has_named_values_is_a_fact() -> None:
    assert fact_from(Row(content="a", category="work", id=7)) == Fact("a", category="work")
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    (row,) = connection.execute("SELECT 'a' AS content, 'public' AS visibility, NULL AS category")
    connection.close()
    assert fact_from(row) == Fact("a", visibility="public")  # and no IndexError for the tags


@pytest.mark.parametrize("empty", [None, "", math.nan])
@pytest.mark.parametrize("field", ["category", "visibility", "tags"])
def test_an_empty_cell_is_an_absent_value(field: str, empty: Any) -> None:
    assert fact_from({"content": "a", field: empty}) == Fact("a")
    assert checked({"content": "a", field: empty}) == fact_payload(Fact("a"))
    with pytest.raises(InvalidFactError, match=r"^content: "):
        fact_from({"content": empty})


class Frame:
    """As the data frames are: iterating over one gives the names of its columns."""

    columns = ("content", "category")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Pandas(Frame):
    def to_dict(self, orient: str) -> Any: ...


class Polars(Frame):
    def to_dict(self) -> Any: ...

    def to_dicts(self) -> Any: ...


class Arrow:
    column_names = ("content", "category")

    def to_pylist(self) -> Any: ...


@pytest.mark.parametrize(
    ("table", "advice"),
    [
        (Pandas(), r'dicts \(frame.to_dict\("records"\)\)$'),
        (Polars(), r"dicts \(frame.to_dicts\(\)\)$"),
        (Arrow(), r"dicts \(table.to_pylist\(\)\)$"),
        (Frame(), "pass these as dicts$"),
        ({"content": ["a", "b"]}, "pass it in a list"),
    ],
    ids=stable_id,
)
def test_a_table_is_no_source_of_facts(table: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=advice):
        refuse_table(table)


class Result:
    """As an SQL toolkit's: it gives rows, and has a method that happens to be called so."""

    def columns(self, *names: str) -> Any: ...


@pytest.mark.parametrize("source", [["a"], iter(["a"]), {"a": 1}.values(), Result(), "text", None])
def test_other_sources_are_none_of_its_business(source: Any) -> None:
    refuse_table(source)


class Hostile(Mapping[str, Any]):
    """A mapping that breaks in one of its methods."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __getitem__(self, key: str) -> Any:
        if self.method == "getitem":
            raise ZeroDivisionError
        return "a"

    def get(self, key: str, default: Any = None) -> Any:
        if self.method == "get":
            raise ZeroDivisionError
        return self[key]

    def __iter__(self) -> Iterator[str]:
        raise ZeroDivisionError

    def __len__(self) -> int:
        raise ZeroDivisionError


def breaking() -> Iterator[str]:
    yield "a"
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({}, "content"),
        ({"content": None}, "content"),
        ({"text": "a"}, "content"),
        ({"content": 1}, "content"),
        ("", "content"),
        ({"content": "a", "tags": "abc"}, "tags"),
        ({"content": "a", "visibility": []}, "visibility"),
        (None, ""),
        (1, ""),
        (["a"], ""),
        (b"a", ""),
        (Memory(id="1"), ""),
        (Hostile("get"), ""),
        (Hostile("getitem"), ""),
        ({"content": "a", "tags": breaking()}, ""),
        ({"content": "a", "visibility": Uncomparable()}, "visibility"),
    ],
    ids=stable_id,
)
def test_what_is_no_fact_is_an_invalid_fact_that_keeps_its_record(item: Any, field: str) -> None:
    with pytest.raises(InvalidFactError) as caught:
        fact_from(item)
    assert caught.value.field == field
    assert caught.value.record is item


def test_a_mapping_that_breaks_says_with_what() -> None:
    with pytest.raises(InvalidFactError, match="ZeroDivisionError") as caught:
        fact_from(Hostile("get"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(
            st.sampled_from(["content", "category", "visibility", "tags", "x"]) | st.integers(),
            inner,
            max_size=5,
        )
        | st.fixed_dictionaries(
            {"content": st.text(max_size=5)}, optional={"tags": inner, "visibility": inner}
        )
    ),
    max_leaves=8,
)


@given(anything)
@example({"content": "a", "visibility": {"x": []}})
@example({"content": "a", "category": ["\ud800"]})
@example("far too long " * 40)  # certainly a text that is refused
def test_anything_at_all_is_a_fact_or_an_invalid_one(item: Any) -> None:
    try:
        fact = fact_from(item)
    except InvalidFactError as error:
        refusal = error
    else:
        assert 1 <= len(fact.content) <= 500
        assert fact.content == fact.content.strip()
        assert fact_from(attrs.asdict(fact)) == fact
        return
    assert refusal.record is item
    assert refusal.field in {"", "content", "category", "visibility", "tags"}
    if isinstance(item, str) and len(item) > 5:
        assert item not in "".join(traceback.format_exception_only(refusal))


# checked_changes


def test_changes_are_checked_as_facts_are() -> None:
    unchanged: dict[str, Any] = {"content": None, "visibility": None, "category": None, "tags": None}
    assert checked_changes(**unchanged) == {}
    assert checked_changes(**unchanged | {"tags": []}) == {"tags": ()}
    assert checked_changes(content=" a ", visibility="public", category="work", tags=["t"]) == {
        "content": "a",
        "visibility": "public",
        "category": "work",
        "tags": ("t",),
    }
    for field, value in [("content", " "), ("visibility", ""), ("category", ""), ("tags", "abc")]:
        with pytest.raises(InvalidFactError, match=f"^{field}: "):
            checked_changes(**unchanged | {field: value})
