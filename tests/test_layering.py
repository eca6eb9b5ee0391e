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
    "config",
    "errors",
    "models",
    "_json",
    "_codec",
    "_retry",
    "_wire",
    "_failures",
    "_requests",
    "_listing",
    "_quota",
    "_quota_forecast",
    "_quota_history",
    "_quota_policies",
    "_quota_signs",
    "_quota_windows",
    "importing.answers",
    "importing.chunks",
    "importing.folding",
    "importing.items",
    "importing.keyindex",
    "importing.outcomes",
}
"""The pure core: knowledge, with nothing running."""

MAY_IMPORT: dict[str, set[str]] = {
    "config": set(),
    "errors": {"config"},
    "_json": set(),
    "importing.keyindex": set(),
    "importing.chunks": {"config"},
    "importing.folding": set(),
    "models": {"config", "errors"},
    "_retry": {"config", "errors"},
    "_quota_signs": {"_retry", "_wire"},
    "_quota_policies": {"_wire"},
    "_quota_windows": {"_wire", "_quota_policies"},
    "_quota_forecast": {"_quota_windows"},
    "_quota_history": {"_wire", "_quota_policies", "_quota_windows"},
    "_quota": {"config", "errors", "_retry", "_wire"}
    | {"_quota_forecast", "_quota_history", "_quota_policies", "_quota_signs", "_quota_windows"},
    "_codec": {"config", "errors", "models", "_json"},
    "_wire": set(),
    "_failures": {"config", "errors", "_json", "_quota_signs", "_wire"},
    "_requests": {"config", "errors", "models", "_json", "_codec", "_failures", "_wire"},
    "_listing": {"config", "errors", "_wire"},
    "importing.outcomes": {"errors", "models", "_wire"},
    "importing.items": PURE,
    "importing.answers": PURE,
    # The importer's own edges: tasks, clocks, the journal's file. They know a Sender, and no session.
    "importing": PURE | {"importing"},
    # Method calls to requests. `import_facts` is one of the methods: so the importer, which needs only a
    # Sender, stands below the resource, and not beside the session as an I/O edge would.
    "resources": PURE | {"importing"},
    "_transport": {"errors", "_requests"},
    "_settings": {"config", "errors"},
    "_ledger_file": {"_quota"},
    "_pacing": {"errors", "_quota", "_quota_signs", "_wire", "_ledger_file"},
    # The session hands itself to its resources, as their Sender; and tells the version in its User-Agent.
    "session": PURE | {"_transport", "_settings", "_pacing", "_ledger_file", "resources", FACADE},
    # Files to facts. A record that is none becomes the outcome that an import would give it.
    "sources": {"config", "errors", "models", "_json", "importing.chunks", "importing.outcomes", "sources"},
    # The surfaces: nothing imports them.
    "local": {"config", "errors", "models", "_json", "local"},
    "testing": PURE | {"session", "local", "testing"},
    "cli": PURE | {"importing", "resources", "session", "sources", "local", "cli", FACADE},
    "__main__": {"cli"},
    FACADE: PURE | {"importing", "resources", "session"},
}
"""A module, or the package that it is in, to what it may import of ours."""

ONLY_IN: dict[str, set[str]] = {
    "aiohttp": {"session", "_transport", "_settings", "local"},
    "yarl": {"session", "_settings", "local", "cli"},
    "multidict": {"session", "local"},
    "backoff": {"session"},
    "sqlite3": {
        *("importing.journal", "importing.journal_file", "importing.journal_rows"),
        *("_ledger_file", "local", "cli"),
    },
    "asyncio": {"session", "_transport", "_pacing", "importing", "sources", "local", "cli"},
    "random": {"session", "importing.calls", "local", "cli"},
    "time": {"session", "_pacing", "_ledger_file", "importing", "sources", "local", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "pytest": {"testing"},
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


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that runs, also those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not is_for_type_checkers(child):
            yield from statements(child)


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


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_down(name: str):
    rule = most_specific(name, MAY_IMPORT)
    assert rule is not None, f"{name} has no place in the picture"
    beyond = {
        it for it in ours(IMPORTS[name]) if it not in MAY_IMPORT[rule] and not covered(it, MAY_IMPORT[rule])
    }
    assert not beyond, f"{name} may not import {sorted(beyond)}"


@pytest.mark.parametrize("name", MODULES)
def test_what_does_io_is_imported_only_where_io_is_done(name: str):
    for outside in {imported.split(".")[0] for imported in IMPORTS[name]} & ONLY_IN.keys():
        assert covered(name, ONLY_IN[outside]), f"{name} may not import {outside}"


@pytest.mark.parametrize("name", sorted(PURE & MODULES.keys()))
def test_the_core_is_pure(name: str):
    outside = {imported.split(".")[0] for imported in IMPORTS[name]}
    assert not outside & FORBIDDEN_IN_THE_CORE


def test_nothing_imports_in_a_circle():
    graph = {name: ours(imported) & MODULES.keys() - {FACADE} for name, imported in IMPORTS.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_session_takes_only_the_version_from_above():
    tree = ast.parse(MODULES["session"].read_text())
    taken = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == FACADE
    }
    assert taken == {"__version__"}


def test_the_picture_shows_nothing_that_is_not_there():
    for name in MAY_IMPORT.keys() | PURE:
        assert name in {*MODULES, "_quota", "testing"}, name


def test_the_rules_would_be_broken_by_what_they_forbid(tmp_path: Path):
    module = tmp_path / "module.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import aiohttp\n"
        "def function():\n    if True:\n"
        "        from omi_async import session, models\n        import sqlite3.dbapi2\n"
    )
    assert imports_of(module) == {"typing", "omi_async.session", "omi_async.models", "sqlite3.dbapi2"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_works_with_nothing_running_and_nothing_to_run_it():
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
for name in {sorted(PURE & MODULES.keys())!r}:
    importlib.import_module("omi_async." + name)
from omi_async._requests import Response, create_memory, interpret
from omi_async.errors import RateLimitError
from omi_async.models import Fact
try:
    interpret(create_memory(Fact("a")), Response(429, {{"Retry-After": "7"}}, b"..."))
except RateLimitError as error:
    assert error.retry_after == 7.0
else:
    raise AssertionError
""")


def test_the_facade_starts_without_the_surfaces():
    loaded = run("import sys; from omi_async import Session; print(*sorted(sys.modules))").split()
    assert "omi_async.session" in loaded
    unwanted = ("click", "rich", "omi_async.local", "omi_async.cli", "omi_async.sources", "uvloop", "httpx")
    assert [name for name in loaded if covered(name, set(unwanted))] == []


@pytest.mark.extras
def test_an_import_reads_no_environment_and_sets_up_no_logging():
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
