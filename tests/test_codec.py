"""The wire's memories: what is read, what is refused with its place, what is written back."""

from __future__ import annotations

import contextlib
import pickle
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omi_async import Fact, Memory, ResponseFormatError
from omi_async._api import json
from omi_async._api.codec import memories_from, memory_from, read_items
from omi_async.fact import fact_payload

GOOD: dict[str, Any] = {
    "id": "mem_789ghi",
    "content": "User is vegetarian",
    "category": "interesting",
    "visibility": "private",
    "tags": ["diet"],
    "created_at": "2024-12-06T11:00:00Z",
    "updated_at": "2024-12-06T11:00:00.25Z",
    "manually_added": True,
    "scoring": "01_999_1733482500",
    "reviewed": True,
    "user_review": None,
    "edited": False,
}


def problems_of(value: Any) -> tuple[str, ...]:
    with pytest.raises(ResponseFormatError) as caught:
        memory_from(value)
    assert caught.value.maybe_applied
    for problem in caught.value.problems:
        assert problem in str(caught.value)
    return caught.value.problems


def test_the_documented_memory_is_read() -> None:
    assert memory_from(GOOD) == Memory(
        id="mem_789ghi",
        content="User is vegetarian",
        category="interesting",
        visibility="private",
        tags=("diet",),
        created_at=datetime(2024, 12, 6, 11, tzinfo=UTC),
        updated_at=datetime(2024, 12, 6, 11, 0, 0, 250_000, tzinfo=UTC),
        manually_added=True,
        scoring="01_999_1733482500",
        reviewed=True,
        user_review=None,
        edited=False,
    )


texts = st.text(max_size=5)
dates = st.none() | st.sampled_from(
    [
        "2024-12-06T11:00:00Z",
        "2024-12-06T11:00:00.123456+00:00",
        "2024-12-06T23:30:00.5-09:30",
        "20241206T110000+053007",
        "2024-12-06T11:00:00",
        "2024-12-06",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
    ]
)
usual: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text(min_size=1, max_size=5),
    "content": texts,
    "category": texts,
    "visibility": st.none() | texts,
    "tags": st.lists(texts, max_size=3),
    "created_at": dates,
    "updated_at": dates,
    "manually_added": st.booleans(),
    "scoring": st.none() | texts,
    "reviewed": st.booleans(),
    "user_review": st.none() | st.booleans(),
    "edited": st.booleans(),
    "locked": st.booleans(),
}
ODD = [
    None,
    True,
    0,
    1,
    1.0,
    "",
    "x",
    "2024-12-06T24:00:01Z",
    "2024-02-30",
    [],
    [1],
    ["x", None],
    {},
    {"x": 1},
]
whole = st.fixed_dictionaries(usual)
partial = st.fixed_dictionaries(
    {"id": usual["id"]}, optional={name: values for name, values in usual.items() if name != "id"}
)
slightly_odd = st.builds(
    lambda memory, name, value: memory | {name: value},
    partial,
    st.sampled_from([*GOOD]),
    st.sampled_from(ODD),
)
very_odd = st.fixed_dictionaries({}, optional=dict.fromkeys(usual, st.sampled_from(ODD)))
pages = st.lists(whole | partial, max_size=6) | st.lists(partial | slightly_odd | very_odd, max_size=6)


@given(pages)
@example([GOOD])  # certainly whole
@example([GOOD | {"id": None}, GOOD])  # certainly odd
def test_a_page_is_read_as_its_memories_are_one_by_one(page: list[dict[str, Any]]) -> None:
    read = read_items(page, Memory)
    whole = []
    for value in page:
        with contextlib.suppress(ResponseFormatError):
            whole.append(memory_from(value))
    assert read.whole == whole
    assert repr(read.whole) == repr(whole)  # True is not 1, and a date has its own offset
    assert bool(read.problems) is (len(whole) < len(page))


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"id"}))
def test_one_odd_value_costs_no_more_than_itself(name: str) -> None:
    for odd in ODD:
        read = read_items([GOOD | {name: odd}, GOOD], Memory)
        assert read.items[1] == memory_from(GOOD)
        expected = {field: getattr(read.items[1], field) for field in GOOD}
        if read.problems:
            assert [*read.problems] == [problem for problem in read.problems if name in problem]
            expected[name] = getattr(Memory(id="x"), name)
        else:
            expected[name] = getattr(read.items[0], name)
        assert read.items[0] == Memory(**expected)


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, {"id": None}, {"id": ""}, {"content": "x"}])
def test_what_cannot_be_named_is_no_memory_and_hides_no_other(value: Any) -> None:
    read = read_items([GOOD, value, GOOD], Memory)
    assert read.items == read.whole == [memory_from(GOOD)] * 2
    assert len(read.problems) == 1


def test_other_mappings_than_dict_are_objects_too() -> None:
    assert memories_from([OrderedDict(GOOD), GOOD]) == [memory_from(GOOD)] * 2


def test_a_memory_that_was_read_is_like_any_other() -> None:
    (read,) = memories_from([GOOD])
    (again,) = memories_from([GOOD])
    assert hash(read) == hash(again)
    assert pickle.loads(pickle.dumps(read)) == read
    assert attrs.evolve(read, content="x").content == "x"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        read.content = "x"  # type: ignore[misc]  # frozen


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"id"}))
def test_a_field_that_is_missing_has_its_default(name: str) -> None:
    memory = memory_from({key: value for key, value in GOOD.items() if key != name})
    assert getattr(memory, name) == getattr(Memory(id="x"), name)


@pytest.mark.parametrize("name", ["visibility", "created_at", "updated_at", "scoring", "user_review"])
def test_null_is_absent_if_the_official_document_allows_it(name: str) -> None:
    assert getattr(memory_from(GOOD | {name: None}), name) == getattr(Memory(id="x"), name)


@pytest.mark.parametrize(
    "more",
    [
        {"category": "no-such-category"},
        {"visibility": "shared"},
        {"content": "x" * 10_000},
        {"content": ""},
        {"tags": []},
        {"locked": True, "headers": {"a": [None]}},
        {"user_review": False},
        {"id": " "},
    ],
    ids=repr,
)
def test_the_server_owns_its_vocabulary(more: dict[str, Any]) -> None:
    memory = memory_from(GOOD | more)
    for name in more.keys() & GOOD.keys():
        expected = tuple(more[name]) if name == "tags" else more[name]
        assert getattr(memory, name) == expected


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-12-06T11:00:00", datetime(2024, 12, 6, 11, tzinfo=UTC)),
        ("2024-12-06T11:00:00+00:00", datetime(2024, 12, 6, 11, tzinfo=UTC)),
        ("2024-12-06T13:00:00+02:00", datetime(2024, 12, 6, 11, tzinfo=UTC)),
        ("2024-12-06T11:00:00.123456789Z", datetime(2024, 12, 6, 11, 0, 0, 123_456, tzinfo=UTC)),
        ("2024-12-06", datetime(2024, 12, 6, tzinfo=UTC)),
    ],
)
def test_a_date_is_a_moment(text: str, moment: datetime) -> None:
    wire = GOOD | {"created_at": text}
    for memory in (memory_from(wire), *memories_from([wire])):
        assert memory.created_at == moment
        assert memory.created_at is not None
        assert memory.created_at.tzinfo is not None


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("id", None, "memory.id: expected a string, got null"),
        ("id", 7, "memory.id: expected a string, got a number"),
        ("id", "", "memory.id: expected an id, got an empty string"),
        ("content", None, "memory.content: expected a string, got null"),
        ("content", ["secret"], "memory.content: expected a string, got an array"),
        ("category", None, "memory.category: expected a string, got null"),
        ("category", {"secret": 1}, "memory.category: expected a string, got an object"),
        ("visibility", True, "memory.visibility: expected a string, got true or false"),
        ("tags", None, "memory.tags: expected an array, got null"),
        ("tags", "secret", "memory.tags: expected an array, got a string"),
        ("tags", ["secret", 1], "memory.tags: expected a string, got a number"),
        ("manually_added", "false", "memory.manually_added: expected true or false, got a string"),
        ("manually_added", 0, "memory.manually_added: expected true or false, got a number"),
        ("reviewed", None, "memory.reviewed: expected true or false, got null"),
        ("user_review", "secret", "memory.user_review: expected true or false, got a string"),
        ("edited", 1.5, "memory.edited: expected true or false, got a number"),
        ("scoring", 5, "memory.scoring: expected a string, got a number"),
        ("created_at", 1733482500, "memory.created_at: expected a string, got a number"),
        ("created_at", "secret", "memory.created_at: expected an ISO 8601 date and time"),
        ("created_at", "", "memory.created_at: expected an ISO 8601 date and time"),
        ("created_at", "2024-13-01T00:00:00Z", "memory.created_at: expected an ISO 8601 date and time"),
        ("created_at", "99999-01-01T00:00:00Z", "memory.created_at: expected an ISO 8601 date and time"),
        ("updated_at", "2024-01-01T00:00:00+99:00", "memory.updated_at: expected an ISO 8601 date and time"),
    ],
)
def test_a_wrong_type_is_named_with_its_place_and_not_shown(field: str, value: Any, problem: str) -> None:
    assert problems_of(GOOD | {field: value}) == (problem,)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "memory: expected an object, got null"),
        ([], "memory: expected an object, got an array"),
        ("secret", "memory: expected an object, got a string"),
        ({}, "memory.id: is missing"),
    ],
)
def test_what_is_no_memory_is_named(value: Any, problem: str) -> None:
    assert problems_of(value) == (problem,)


def test_every_problem_of_a_memory_is_named() -> None:
    assert sorted(problems_of({"content": 1, "tags": 2, "edited": "x"})) == [
        "memory.content: expected a string, got a number",
        "memory.edited: expected true or false, got a string",
        "memory.id: is missing",
        "memory.tags: expected an array, got a number",
    ]


def test_one_broken_memory_does_not_hide_the_other_24() -> None:
    page = [GOOD | {"id": f"m{number}"} for number in range(25)]
    page[7] = page[7] | {"content": None}
    with pytest.raises(
        ResponseFormatError, match=r"1 of 25 memories .* \[7\]\.content: expected a string"
    ) as caught:
        memories_from(page)
    assert [memory.id for memory in caught.value.memories] == [f"m{n}" for n in range(25) if n != 7]
    assert caught.value.problems == ("[7].content: expected a string, got null",)


def test_the_place_of_a_memory_may_have_a_name() -> None:
    with pytest.raises(ResponseFormatError) as caught:
        memories_from([GOOD, None, GOOD | {"id": 3}], "memories")
    assert caught.value.problems == (
        "memories[1]: expected an object, got null",
        "memories[2].id: expected a string, got a number",
    )


def test_a_message_names_ten_problems_and_counts_the_rest() -> None:
    with pytest.raises(ResponseFormatError) as caught:
        memories_from([None] * 13)
    assert str(caught.value).endswith("[9]: expected an object, got null; and 3 more")
    assert len(caught.value.problems) == 13


@pytest.mark.parametrize("value", [None, {}, {"memories": []}, "secret", 1])
def test_an_array_is_an_array(value: Any) -> None:
    with pytest.raises(ResponseFormatError, match="body: expected an array") as caught:
        memories_from(value)
    assert "secret" not in str(caught.value)


offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
moments = st.none() | st.datetimes(timezones=st.just(UTC) | offsets)
memories = st.builds(
    Memory,
    id=st.text(min_size=1),
    content=st.text(),
    category=st.text(),
    visibility=st.text(),
    tags=st.lists(st.text(), max_size=3).map(tuple),
    created_at=moments,
    updated_at=moments,
    manually_added=st.booleans(),
    scoring=st.none() | st.text(),
    reviewed=st.booleans(),
    user_review=st.none() | st.booleans(),
    edited=st.booleans(),
)


@given(memories)
@example(Memory(id="1", created_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-23)))))
@example(Memory(id="1", created_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=23)))))
def test_a_memory_survives_the_wire(memory: Memory) -> None:
    wire = json.loads(json.dumps(memory.to_dict()))
    assert memory_from(wire) == memory
    assert memories_from([wire, wire]) == [memory, memory]


def test_a_memory_is_written_as_the_service_shows_it() -> None:
    assert memory_from(GOOD).to_dict() == GOOD | {"updated_at": "2024-12-06T11:00:00.250000Z"}


def test_a_naive_date_of_a_users_own_memory_is_taken_for_utc() -> None:
    memory = Memory(id="1", created_at=datetime(2026, 1, 1, 12))  # noqa: DTZ001  # naive on purpose
    assert memory.to_dict()["created_at"] == "2026-01-01T12:00:00Z"


wire_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, wire_values)) | wire_values, max_size=5)
)
def test_a_page_of_anything_is_read_or_refused_by_name(page: list[Any]) -> None:
    problems: tuple[str, ...] = ()
    try:
        read = memories_from(page)
    except ResponseFormatError as error:
        read, problems = list(error.memories), error.problems
    assert all(problem.startswith("[") for problem in problems)
    broken = {problem.partition("]")[0] for problem in problems}
    assert len(read) == len(page) - len(broken)


def test_a_fact_is_sent_without_what_the_server_shall_choose() -> None:
    assert fact_payload(Fact(" a ", origin="f:1")) == {"content": "a", "visibility": "private", "tags": ()}
    whole = Fact("a", category="work", visibility="public", tags=["x", "y"])
    assert json.loads(json.dumps(fact_payload(whole))) == {
        "content": "a",
        "visibility": "public",
        "tags": ["x", "y"],
        "category": "work",
    }
