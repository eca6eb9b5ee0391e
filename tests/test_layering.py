"""Arrows point down only: who may import whom, and what the pure core does without."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import omi_async

ROOT = Path(omi_async.__file__).parent

FACADE = "omi_async"

PURE = {
    "constants",
    "errors",
    "fact",
    "key",
    "memory",
    "_api",
    "_quota.balancer",
    "_quota.kept",
    "_quota.known",
    "_quota.ledger",
    "_quota.policy",
    "_quota.sharing",
    "_quota.window",
    "importing.answers",
    "importing.concurrency",
    "importing.item",
    "importing.journal.index",
    "importing.report",
}
"""The pure core: knowledge, with nothing running."""

MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "_formats": set(),
    "constants": set(),
    "memory": set(),
    "key": {"memory"},
    "errors": {"memory"},
    "fact": {"constants", "errors"},
    # What the API says.
    "_api": {"constants", "errors", "fact", "key", "memory", "_api"},
    # When a call may go.
    "_quota": {"constants", "errors", "_api", "_quota"},
    # Who watches, if anybody does.
    "_observing": {"errors", "_api.failures", "_api.messages", "importing.report"},
    # The importer's own edges: tasks, clocks, the journal's file. They know a Sender, and no session.
    "importing": {"constants", "errors", "fact", "memory", "_api", "_observing", "_quota", "importing"},
    "importing.journal": {"constants", "errors", "fact", "_api", "importing"},
    "importing.report": {"errors", "fact", "_quota.policy"},
    # Method calls to requests. `import_facts` is one of the methods: so the importer, which needs only a
    # Sender, stands below the resource, and not beside the session as an I/O edge would.
    "resources": {"constants", "errors", "fact", "memory", "_api", "importing", "inbox"},
    # Facts one by one: imports one after the other. It needs only a Sender, as an import does.
    "inbox": {"constants", "errors", "fact", "importing"},
    "_settings": {"constants", "errors"},
    "_transport": {"constants", "errors", "_api", "_settings"},
    # The session hands itself to its resources, as their Sender.
    "session": PURE
    | {"_version", "_observing", "_transport", "_settings", "_quota", "importing.stopping", "resources"},
    # Files to facts. A record that is none becomes the outcome that an import would give it.
    "sources": {
        "constants",
        "errors",
        "fact",
        "memory",
        "_api.json",
        "_formats",
        "importing.report",
        "sources",
    },
    # Sessions for many keys: it knows how one is made, and what is kept of one.
    "session_pool": {
        "errors",
        "session",
        "_api.retry",
        "_quota",
        "_settings",
        "_transport",
        "importing.stopping",
    },
    # Background imports: files to facts to the importer, for the sessions of an app.
    "jobs": {"_formats", "errors", "fact", "_api.json", "importing", "sources", "session", "jobs"},
    # Imports on many machines: a journal and a lease in a store that all of them share.
    "workers": {
        "errors",
        "fact",
        "_api",
        "_quota",
        "_settings",
        "importing",
        "jobs.verdict",
        "resources",
        "session",
        "workers",
    },
    # The surfaces: nothing imports them.
    "telemetry": {"_version", "errors", "_api.messages", "_observing", "importing"},
    "local": {"constants", "errors", "fact", "_api.json", "local"},
    "testing": {"local"},
    # Programs as users write them: they know the public names alone.
    "examples": {FACADE, "sources", "workers"},
    "cli": PURE
    | {"_version", "_formats", "_quota", "importing", "resources", "session", "sources", "local", "cli"},
    "__main__": {"cli"},
    FACADE: PURE | {"_version", "importing", "inbox", "jobs", "resources", "session", "session_pool"},
}
"""A module, or the package that it is in, to what it may import of the package."""

ONLY_IN: dict[str, set[str]] = {
    "aiohttp": {"session", "session_pool", "_transport", "_settings", "local"},
    "yarl": {"session", "session_pool", "telemetry", "_transport", "_settings", "local", "cli"},
    "multidict": {"session", "local"},
    "backoff": {"_api.retry"},
    "sqlite3": {"importing.journal", "_quota.store", "jobs", "local", "cli"},
    "asyncio": {
        "session",
        "session_pool",
        "_transport",
        "_quota.clock",
        "_quota.keeper",
        "_quota.pacer",
        "_quota.queue",
        "_quota.store",
        "_quota.storekeeper",
        "importing",
        "inbox",
        "sources",
        "jobs",
        "workers",
        "telemetry",
        "local",
        "cli",
    },
    "random": {"session", "importing.calls", "workers.store", "local", "cli"},
    "time": {
        "session_pool",
        "_transport",
        "_quota.clock",
        "importing",
        "sources",
        "jobs",
        "workers",
        "local",
        "cli",
    },
    "redis": {"workers"},
    "docket": {"workers.docket", "examples"},
    "click": {"cli"},
    "rich": {"cli"},
    "pytest": {"testing"},
    "opentelemetry": {"telemetry"},
}
"""What does I/O, knows the time, or throws dice, to the places that may."""

FORBIDDEN_IN_THE_CORE = {
    "asyncio",
    "aiohttp",
    "sqlite3",
    "time",
    "random",
    "os",
    "socket",
    "threading",
    "logging",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    return name or FACADE


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import, also those inside functions and those for types: an arrow is an arrow."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def imports_of(path: Path) -> set[str]:
    names = set()
    for statement in statements(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
            continue
        assert statement.level == 0, f"{path}: imports are absolute"
        assert statement.module
        for alias in statement.names:
            whole = f"{statement.module}.{alias.name}"
            ours = whole.removeprefix(f"{FACADE}.")
            names.add(whole if ours in MODULES and whole != ours else statement.module)
    return names


def ours(names: set[str]) -> set[str]:
    return {name.removeprefix(f"{FACADE}.") for name in names if name.split(".")[0] == FACADE}


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def most_specific(name: str, table: dict[str, set[str]]) -> str | None:
    """The name, or the nearest package above it, that stands in a table."""
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in table), None)


def covered(name: str, allowed: set[str]) -> bool:
    return any(name == it or name.startswith(f"{it}.") for it in allowed)


CORE = sorted(name for name in MODULES if covered(name, PURE))


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_down(name: str) -> None:
    rule = most_specific(name, MAY_IMPORT)
    assert rule is not None, f"{name} has no place in the picture"
    beyond = {
        it for it in ours(IMPORTS[name]) if it not in MAY_IMPORT[rule] and not covered(it, MAY_IMPORT[rule])
    }
    assert not beyond, f"{name} may not import {sorted(beyond)}"


@pytest.mark.parametrize("name", [name for name in MODULES if not covered(name, {"examples"})])
def test_what_does_io_is_imported_only_where_io_is_done(name: str) -> None:
    for outside in {imported.split(".")[0] for imported in IMPORTS[name]} & ONLY_IN.keys():
        assert covered(name, ONLY_IN[outside]), f"{name} may not import {outside}"


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_pure(name: str) -> None:
    outside = {imported.split(".")[0] for imported in IMPORTS[name]}
    assert not outside & FORBIDDEN_IN_THE_CORE


def test_nothing_imports_in_a_circle() -> None:
    graph = {name: ours(imported) & MODULES.keys() - {FACADE} for name, imported in IMPORTS.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_nothing_below_imports_the_facade() -> None:
    below = {name for name in MODULES if not covered(name, {"examples"})}
    assert [name for name in below if FACADE in IMPORTS[name]] == []


def test_the_picture_shows_nothing_that_is_not_there() -> None:
    for name in MAY_IMPORT.keys() | PURE:
        assert name in MODULES, name


def test_the_rules_would_be_broken_by_what_they_forbid(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import aiohttp\n"
        "def function():\n    if True:\n"
        "        from omi_async import session, Fact\n        import sqlite3.dbapi2\n"
    )
    assert imports_of(module) == {
        *("typing", "aiohttp", "sqlite3.dbapi2"),
        *("omi_async", "omi_async.session"),
    }


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_works_with_nothing_running_and_nothing_to_run_it() -> None:
    """The package's own __init__ may import everything, so an empty package of the same place stands in.

    The standard library's own email.utils, which reads HTTP dates, imports random and socket for other ends.
    """
    run(f"""
import importlib, sys, types
for blocked in ("aiohttp", "asyncio", "sqlite3", "backoff", "yarl", "multidict"):
    sys.modules[blocked] = None
package = types.ModuleType("omi_async")
package.__path__ = [{str(ROOT)!r}]
sys.modules["omi_async"] = package
for name in {CORE!r}:
    importlib.import_module("omi_async." + name)
from omi_async._api.endpoints import create_memory, interpret
from omi_async._api.messages import Response
from omi_async.errors import RateLimitError
from omi_async.fact import Fact
try:
    interpret(create_memory(Fact("a")), Response(429, {{"Retry-After": "7"}}, b"..."))
except RateLimitError as error:
    assert error.retry_after == 7.0
else:
    raise AssertionError
""")


def test_the_facade_starts_without_the_surfaces() -> None:
    loaded = run("import sys; from omi_async import Session; print(*sorted(sys.modules))").split()
    assert "omi_async.session" in loaded
    unwanted = (
        "click",
        "rich",
        "omi_async.local",
        "omi_async.cli",
        "omi_async.sources",
        "uvloop",
        "httpx",
        "opentelemetry",
    )
    assert [name for name in loaded if covered(name, set(unwanted))] == []


@pytest.mark.extras
def test_an_import_reads_no_environment_and_sets_up_no_logging() -> None:
    run("""
import collections.abc, logging, os, sys
import aiohttp, attrs, backoff, cattrs, cattrs.gen, multidict, yarl, random, sqlite3, inspect, typing
import email.utils, ipaddress, urllib.parse, concurrent.futures, orjson, array, hashlib, bisect

class Watched(dict):
    def __getitem__(self, key): raise AssertionError(f"the environment was asked for {key}")
    def get(self, key, default=None): self[key]
    def __contains__(self, key): self[key]
    def __iter__(self): self["everything"]

before = set(logging.root.manager.loggerDict)
os.environ = Watched()
os.getenv = os.environ.get
from omi_async import *
os.environ = {}
log = logging.getLogger("omi_async")
assert not log.handlers and log.level == logging.NOTSET and log.propagate
assert not logging.root.handlers
assert set(logging.root.manager.loggerDict) - before <= {"omi_async"}
""")
