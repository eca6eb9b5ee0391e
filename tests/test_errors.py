"""The exception tree: its shape, what it carries, and that it travels."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
from multidict import CIMultiDict

from omi_async import ImportReport, Memory, OmiError, errors
from omi_async.errors import (
    APIError,
    ConnectError,
    InvalidFactError,
    InvalidRequestError,
    JournalError,
    JournalInUseError,
    ListLimitError,
    NotFoundError,
    RateLimitError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    TransportError,
)
from omi_async.importing.report import ImportFailedError, ImportStoppedError

CLASSES = [*(getattr(errors, name) for name in errors.__all__), ImportFailedError, ImportStoppedError]


def parents_drawn() -> dict[str, str]:
    """Read the tree in the docstring: class to parent, by the indentation of its branches."""
    assert errors.__doc__ is not None
    path: list[tuple[int, str]] = []
    parents = {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^(?P<branch>[ |`-]*)(?P<name>\w+Error)\b", line)
        if match is None:
            continue
        depth = len(match["branch"])
        while path and path[-1][0] >= depth:
            path.pop()
        parents[match["name"]] = path[-1][1] if path else "Exception"
        path.append((depth, match["name"]))
    return parents


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    assert parents_drawn() == {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES}


def test_every_error_of_the_module_is_listed() -> None:
    defined = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, BaseException)
    }
    assert defined == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize(
    ("error", "maybe_applied"),
    [
        (OmiError("m"), False),
        (ConnectError("m"), False),
        (TransportError("m"), False),
        (ResponseLostError("m"), True),
        (InvalidFactError("m"), False),
        (APIError("m", status=418), False),
        (NotFoundError("m", status=404), False),
        (RateLimitError("m"), False),
        (ServerError("m", status=500), True),
        (ServerError("m", status=503, maybe_applied=False), False),
        (ResponseFormatError("m"), True),
    ],
)
def test_each_knows_whether_the_write_may_have_been_applied(error: OmiError, maybe_applied: bool) -> None:
    assert error.maybe_applied is maybe_applied


def group() -> ImportFailedError:
    failure = InvalidRequestError("bad", status=422, detail=[{"loc": []}], headers=CIMultiDict({"A": "b"}))
    failure.add_note("fact 3 (facts.csv:4)")
    return ImportFailedError(
        "2 facts failed", [failure, InvalidFactError("worse", field="tags", record={"a": 1})]
    )


REPORT = ImportReport()

ERRORS = [
    OmiError("m"),
    InvalidFactError("m", field="content", record={"content": None}),
    APIError("m", status=418, detail={"a": [1]}, headers=CIMultiDict([("X", "1"), ("x", "2")])),
    RateLimitError("m", retry_after=1.5, headers=CIMultiDict({"Retry-After": "1.5"})),
    ServerError("m", status=503, maybe_applied=False, retry_after=2.0),
    ResponseFormatError("m", problems=["a: b"], memories=[Memory(id="1")]),
    ListLimitError("m", read=5000),
    JournalError("m", remembers=True),
    JournalInUseError("m"),
    ImportStoppedError("m", REPORT),
    group(),
]


def told(error: BaseException) -> dict[str, Any]:
    facts = {
        **vars(error),
        "args": [str(part) for part in error.args[:1]],
        "str": str(error),
        "repr": repr(error),
    }
    if isinstance(error, ImportFailedError):
        facts["failures"] = [told(failure) for failure in error.exceptions]
    return facts


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "twin_of",
    [copy.copy, copy.deepcopy, *(lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in (0, 2, 5))],
    ids=["copy", "deepcopy", "pickle0", "pickle2", "pickle5"],
)
def test_an_error_can_be_copied_and_pickled_with_all_it_carries(error: OmiError, twin_of: Any) -> None:
    error.add_note("batch 3: facts 75-99")
    try:
        twin = twin_of(error)
        assert type(twin) is type(error)
        assert told(twin) == told(error)
    finally:
        del error.__notes__


def test_every_class_is_among_those_that_were_pickled_or_is_built_like_one() -> None:
    builders = {kind.__init__ for kind in CLASSES}
    assert builders == {type(error).__init__ for error in ERRORS}


def test_sequences_are_kept_as_tuples() -> None:
    error = ResponseFormatError("m", problems=["a"], memories=[])
    assert (error.problems, error.memories) == (("a",), ())


def test_a_group_of_failures_is_caught_by_kind_and_split_into_its_own_kind() -> None:
    failures = group()
    assert failures.maybe_applied is False
    matched, rest = failures.split(InvalidFactError)
    assert isinstance(matched, ImportFailedError)
    assert isinstance(rest, ImportFailedError)
    assert [str(error) for error in matched.exceptions] == ["worse"]
    caught: list[type] = []
    try:
        raise failures
    except* InvalidRequestError as part:
        caught.append(type(part))
    except* InvalidFactError as part:
        caught.append(type(part))
    assert caught == [ImportFailedError, ImportFailedError]
    with pytest.raises(OmiError):
        raise failures


def test_an_invalid_fact_is_a_value_error_and_does_not_show_its_record() -> None:
    error = InvalidFactError("m", field="content", record="the text")
    assert isinstance(error, ValueError)
    assert "the text" not in str(error)
    assert "the text" not in repr(error)
