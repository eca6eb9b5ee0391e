"""The facade: complete, sorted, and honest about types."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import cattrs
import pytest

import omi_async
from omi_async import Fact, ImportReport, Memories, Memory, ResponseFormatError, Retry, Session, errors
from omi_async.local import Fault, LocalServer

CLASSES = [thing for name in omi_async.__all__ if isinstance(thing := getattr(omi_async, name), type)]


def test_the_list_is_sorted_and_every_name_is_there() -> None:
    assert omi_async.__all__ == sorted(omi_async.__all__)
    assert len(omi_async.__all__) == len(set(omi_async.__all__))
    for name in omi_async.__all__:
        assert hasattr(omi_async, name)


def test_the_list_is_complete() -> None:
    assert all(hasattr(omi_async, name) for name in omi_async.__all__)  # each is loaded when it is asked for
    public = {
        name
        for name, thing in vars(omi_async).items()
        if not name.startswith("_")
        and not isinstance(thing, types.ModuleType)
        and name not in {"annotations", "TYPE_CHECKING"}
    }
    assert public | {"__version__"} == set(omi_async.__all__)
    assert set(errors.__all__) <= set(omi_async.__all__)


def test_what_type_checkers_see_is_what_is_there() -> None:
    tree = ast.parse(Path(omi_async.__file__).read_text())
    seen = {
        alias.name: importlib.import_module(node.module or "")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("omi_async.")
        for alias in node.names
    }
    assert seen.keys() | {"__version__"} == set(omi_async.__all__)
    for name, module in seen.items():
        assert getattr(module, name) is getattr(omi_async, name)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("missing", "module"), [("redis", "omi_async.workers"), ("docket", "omi_async.workers.docket")]
)
def test_without_the_extra_workers_it_is_said_what_to_install(missing: str, module: str) -> None:
    if missing == "docket":
        pytest.importorskip("redis", reason="it is of the extra workers")
    run(f"""
import sys
sys.modules["{missing}"] = None
try:
    import {module}
except ImportError as error:
    assert "omi-async[workers]" in str(error)
else:
    raise AssertionError
""")


def test_the_names_are_loaded_when_they_are_asked_for() -> None:
    loaded = run("import sys, omi_async; dir(omi_async); print(*sys.modules)").split()
    assert [name for name in loaded if name.startswith("omi_async.")] == []
    assert not {"aiohttp", "asyncio", "attrs"} & set(loaded)
    loaded = run("import sys, omi_async; omi_async.Fact; print(*sys.modules)").split()
    assert "omi_async.fact" in loaded
    assert "omi_async.session" not in loaded


def test_a_name_is_found_however_it_is_asked_for() -> None:
    run("from omi_async import *; Session, Fact, NotFoundError, __version__")
    run("import omi_async; assert {*omi_async.__all__} <= {*dir(omi_async)}")
    run("import omi_async.errors; assert omi_async.errors.NotFoundError is omi_async.NotFoundError")
    run("import omi_async.session; assert omi_async.session.Session is omi_async.Session")
    with pytest.raises(AttributeError, match="module 'omi_async' has no attribute 'Nothing'"):
        omi_async.Nothing  # type: ignore[attr-defined]  # noqa: B018  # type checkers know it too


def test_what_was_pickled_is_found_by_a_process_that_has_loaded_nothing() -> None:
    fact = Fact("a", tags=["b"])
    assert pickle.loads(pickle.dumps(fact)) == fact
    run(f"import pickle; fact = pickle.loads({pickle.dumps(fact)!r}); assert fact.tags == ('b',), fact")
    run(f"import pickle; assert pickle.loads({pickle.dumps(Session)!r}).__name__ == 'Session'")


def test_the_fixed_names_are_there() -> None:
    fixed = {"Session", "Fact", "Memory", "Retry", "ImportReport", "FactOutcome", *errors.__all__}
    assert fixed <= set(omi_async.__all__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_name_is_reported_by_the_module_that_it_lives_in(kind: type) -> None:
    assert getattr(importlib.import_module(kind.__module__), kind.__name__) is kind
    assert kind.__doc__


def test_the_version_is_the_one_that_is_installed() -> None:
    assert omi_async.__version__ == metadata.version("omi-async")


def callables(kind: type) -> dict[str, Callable[..., Any]]:
    """The public callables of a class, with what properties call."""
    found: dict[str, Callable[..., Any]] = {"__init__": kind.__init__}  # type: ignore[misc]  # the methods are looked at by name
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(function) and (name in {"__init__", "__aenter__"} or not name.startswith("_")):
            found[name] = function
    return found


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_annotation_can_be_resolved(kind: type) -> None:
    typing.get_type_hints(kind)
    for name, function in callables(kind).items():
        hints = typing.get_type_hints(function)
        if inspect.isfunction(function) and name != "__init__":
            assert "return" in hints, f"{kind.__name__}.{name}"
            parameters = [it for it in inspect.signature(function).parameters if it not in {"self", "cls"}]
            assert set(parameters) <= hints.keys(), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_member_is_documented(kind: type) -> None:
    for name, member in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_the_models_are_what_their_annotations_say() -> None:
    assert typing.get_type_hints(Memory)["created_at"] == datetime | None
    assert typing.get_type_hints(ResponseFormatError.__init__)["memories"] == Sequence[Memory]
    assert typing.get_type_hints(omi_async.ImportStoppedError.__init__)["report"] is ImportReport


def test_the_models_serve_a_converter_of_the_users() -> None:
    memory = cattrs.Converter().structure({"id": "1", "content": "a", "tags": ["t"]}, Memory)
    assert memory == Memory(id="1", content="a", tags=("t",))
    attrs.resolve_types(Memory)
    assert attrs.fields(Memory).tags.type == tuple[str, ...]


def is_a(value: Any, hint: Any) -> bool:  # noqa: PLR0911  # a case a line
    """Whether a value is of an annotated type: as much of typing as the public surface uses."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return any(is_a(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return type(value) is tuple and all(is_a(item, arguments[0]) for item in value)
    if origin is list:
        return type(value) is list and all(is_a(item, arguments[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is not None:
        return isinstance(value, origin) and all(is_a(item, arguments[0]) for item in value)
    return value is None if hint is type(None) else type(value) is hint


def assert_fields(thing: Any) -> None:
    for name, hint in typing.get_type_hints(type(thing)).items():
        assert is_a(getattr(thing, name), hint), f"{type(thing).__name__}.{name} is {getattr(thing, name)!r}"


def test_run_time_types_equal_the_annotations_of_models() -> None:
    class Text(str):
        __slots__ = ()

    fact = Fact(Text("a"), category=Text("b"), visibility=Text("public"), tags=[Text("c")])
    for thing in (fact, Fact("a"), Memory(id="1"), Retry()):
        assert_fields(thing)


async def test_run_time_types_equal_the_annotations_of_calls(server: LocalServer, session: Session) -> None:
    hints = {
        name: typing.get_type_hints(method)["return"]
        for name, method in callables(Memories).items()
        if name[0] != "_"
    }
    created = await session.memories.create("a", tags=["x"])
    results = {
        "create": created,
        "create_batch": await session.memories.create_batch(["b"]),
        "list": await session.memories.list(),
        "update": await session.memories.update(created.id, content="c"),
        "delete": await session.memories.delete(created.id),  # type: ignore[func-returns-value]  # that it is None is the test
        "import_facts": await session.memories.import_facts(["d"]),
    }
    for name, result in results.items():
        assert is_a(result, hints[name]), f"{name} returned {result!r}"
    for memory in [created, *results["create_batch"], *results["list"], results["update"]]:  # type: ignore[misc]  # the methods are looked at by name
        assert_fields(memory)
    iterating = session.memories.iterate()
    assert isinstance(iterating, typing.get_origin(hints["iterate"]))
    async for memory in iterating:
        assert_fields(memory)
    server.faults.add(Fault.rate_limited(retry_after=1))
    async with Session(server.api_key, base_url=server.url, retry=Retry(attempts=1)) as hasty:
        with pytest.raises(omi_async.RateLimitError) as caught:
            await hasty.memories.list()
    assert type(caught.value.retry_after) is float
    assert type(caught.value.status) is int


def test_signatures_are_those_of_the_design() -> None:
    def names(function: Callable[..., Any], *kinds: Any) -> list[str]:
        return [it.name for it in inspect.signature(function).parameters.values() if it.kind in kinds]

    keyword, only = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY
    session = names(Session, keyword)
    assert session[:6] == ["base_url", "timeout", "batch_timeout", "connections", "retry", "client"]
    assert names(Fact, keyword) == ["category", "visibility", "tags", "origin"]
    assert names(Memories.create, keyword) == ["category", "visibility", "tags"]
    assert names(Memories.create, only)[-1] == "fact"
    assert names(Memories.update, keyword) == ["content", "visibility", "category", "tags"]
    assert names(Memories.list, keyword) == ["limit", "offset", "categories"]
    assert names(Memories.iterate, keyword) == ["page_size", "categories"]
    assert attrs.asdict(Retry()) == {"attempts": 4, "base": 0.5, "cap": 8.0}


def test_the_hints_need_nothing_imported_beside() -> None:
    assert isinstance(typing.get_type_hints(Fact.__init__)["tags"], type(Iterable[str]))
    assert "omi_async.fact" in sys.modules
