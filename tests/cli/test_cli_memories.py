"""list, create, update, delete."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
from pathlib import Path

import pytest

from omi_async import Retry
from omi_async.cli import prompt_sender
from omi_async.local import DOCUMENTED_QUOTAS, Fault, ThreadedServer
from tests.cli.driving import Omi, Start, ended


def test_create_stores_a_memory(omi: Omi, served: ThreadedServer) -> None:
    done = omi("create", "User is vegetarian", "--category", "system", "--tag", "food", "--tag", "diet")
    [memory] = served.memories()
    assert done.code == 0
    assert done.out == f"stored {memory['id']} (system, private, #food, #diet)\n"
    assert (memory["content"], memory["tags"]) == ("User is vegetarian", ["food", "diet"])


def test_create_as_json_prints_the_memory(omi: Omi, served: ThreadedServer) -> None:
    done = omi("create", "User is vegetarian", "--visibility", "public", "--json")
    assert json.loads(done.out)["visibility"] == "public"
    assert len(served.memories()) == 1


def test_create_tells_when_the_server_knew_the_text(omi: Omi, served: ThreadedServer) -> None:
    served.add("User is vegetarian", category="system", visibility="public")
    done = omi("create", "User is vegetarian")
    assert done.code == 0
    assert "Not as you asked: its visibility." in done.err


@pytest.mark.parametrize("text", ["", "x" * 501])
def test_create_refuses_what_is_no_fact(omi: Omi, served: ThreadedServer, text: str) -> None:
    done = omi("create", text)
    assert done.code == 1
    assert "Error: content:" in done.err
    assert not served.requests


def test_a_lost_answer_is_told_with_what_to_do(omi: Omi, served: ThreadedServer) -> None:
    served.faults.add(Fault.reset(stored=True), on="create")
    done = omi("create", "User is vegetarian")
    assert done.code == 3
    assert "may be stored all the same" in done.err


def test_list_prints_lines_for_other_programs(omi: Omi, served: ThreadedServer) -> None:
    served.add("a text\twith\nspaces \x1b[31m", tags=["x", "y"])
    [line] = omi("list").out.splitlines()
    cells = line.split("\t")
    assert cells[0] == served.memories()[0]["id"]
    assert cells[1:3] == ["interesting", "private"]
    assert cells[4:] == ["x,y", "a text with spaces  [31m"]


def test_list_as_json_prints_an_object_a_line(omi: Omi, served: ThreadedServer) -> None:
    served.add("one", "two", "three")
    found = omi("list", "--json", "--limit", 2).events
    assert [memory["content"] for memory in found] == ["three", "two"]
    assert found[0]["created_at"].endswith("Z")


def test_list_takes_offset_and_categories(omi: Omi, served: ThreadedServer) -> None:
    served.add("one", "two", category="system")
    served.add("three", category="manual")
    served.add("four", category="interesting")
    done = omi("list", "--json", "--offset", 1, "--category", "system", "--category", "manual")
    assert [memory["content"] for memory in done.events] == ["two", "one"]


def test_list_pages_through_more_than_a_thousand(omi: Omi, served: ThreadedServer) -> None:
    served.add(*[f"number {index}" for index in range(1200)])
    everything = omi("list", "--json", "--limit", 5000).events
    assert len({memory["id"] for memory in everything}) == 1200
    part = omi("list", "--json", "--limit", 1001, "--offset", 10).events
    assert part == everything[10:1011]


def test_update_changes_what_is_named_only(omi: Omi, served: ThreadedServer) -> None:
    [memory] = served.add("old", tags=["a"])
    done = omi("update", memory["id"], "--content", "new", "--visibility", "public", "--category", "system")
    assert done.out == f"updated {memory['id']} (system, public, #a)\n"
    done = omi("update", memory["id"], "--tag", "b", "--json")
    assert json.loads(done.out)["tags"] == ["b"]
    assert omi("update", memory["id"], "--tag", "").code == 0
    assert served.memories()[0]["tags"] == []


def test_update_needs_something_to_change(omi: Omi, served: ThreadedServer) -> None:
    done = omi("update", "some-id")
    assert done.code == 1
    assert "nothing to change" in done.err


@pytest.mark.parametrize("memory_id", ["", ".", ".."])
def test_an_unusable_id_is_a_usage_error(omi: Omi, served: ThreadedServer, memory_id: str) -> None:
    done = omi("delete", memory_id, "--yes")
    assert done.code == 1
    assert done.err.startswith("Error: ")


def test_delete_deletes(omi: Omi, served: ThreadedServer) -> None:
    first, second = served.add("one", "two")
    assert omi("delete", first["id"], "--yes").out == f"deleted {first['id']}\n"
    assert omi("delete", second["id"], "--yes", "--json").event == {"id": second["id"], "deleted": True}
    assert not served.memories()


def test_delete_asks_for_yes_if_there_is_no_terminal(omi: Omi, start: Start, served: ThreadedServer) -> None:
    [memory] = served.add("one")
    done = ended(start("delete", memory["id"]))
    assert done.code == 1
    assert "--yes" in done.err
    assert len(served.memories()) == 1


@pytest.mark.parametrize("words", [["update", "no-such", "--content", "x"], ["delete", "no-such", "--yes"]])
def test_no_such_memory_exits_5(omi: Omi, served: ThreadedServer, words: list[str]) -> None:
    done = omi(*words)
    assert done.code == 5
    assert "Memory not found" in done.err
    assert "omi-async list" in done.err


def test_a_wrong_key_exits_2(omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    done = omi("list")
    assert done.code == 2
    assert "401" in done.err


def test_no_key_exits_2_and_says_what_to_set(omi: Omi) -> None:
    done = omi("list")
    assert done.code == 2
    assert "OMI_API_KEY" in done.err
    assert "--local" in done.err


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.answer(402, "A paid plan is required"), 2),
        (Fault.answer(403, "Insufficient permissions"), 2),
        (Fault.answer(409, "Conflict"), 1),
        (Fault.answer(418, "I'm a teapot"), 3),
        (Fault.garbage(stored=False), 3),
        (Fault.rate_limited(3000), 4),
        (Fault.answer(503, "busy", headers={"Retry-After": "3000"}), 3),
    ],
)
def test_each_refusal_has_its_exit_code(omi: Omi, served: ThreadedServer, fault: Fault, code: int) -> None:
    served.faults.add(fault, on="list")
    assert omi("list").code == code
    assert len(served.requests) == 1


def test_an_hour_of_quota_is_not_waited_for(omi: Omi, served: ThreadedServer) -> None:
    served.quotas.replace(*DOCUMENTED_QUOTAS)
    served.quotas.change("minute", limit=0, window=3600)
    done = omi("create", "text")
    assert done.code == 4
    assert "try again in 60 min" in done.err or "try again in 1 h 0 min" in done.err


def test_a_429_without_a_wait_exits_4_in_the_end(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_sender, "RETRY", Retry(base=0.001))
    served.faults.add(Fault.rate_limited(), on="create", times=10)
    done = omi("create", "text")
    assert done.code == 4
    assert "try again later" in done.err
    assert len(served.requests) == 4


def test_a_short_trouble_is_tried_again(omi: Omi, served: ThreadedServer) -> None:
    served.faults.add(Fault.rate_limited(0), on="create")
    served.faults.add(Fault.answer(500, "no"), on="list")
    assert omi("create", "text").code == 0
    assert omi("list").code == 0


def test_a_lost_delete_is_not_repeated(omi: Omi, served: ThreadedServer) -> None:
    [memory] = served.add("one")
    served.faults.add(Fault.reset(stored=True), on="delete")
    done = omi("delete", memory["id"], "--yes")
    assert done.code == 3
    assert "deleting it again does no harm" in done.err


def test_a_dead_server_exits_3(omi: Omi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_any_of_all")
    monkeypatch.setattr(prompt_sender, "RETRY", Retry(base=0.001))
    done = omi("list", "--base-url", "http://127.0.0.1:1")
    assert done.code == 3
    assert "was not reached" in done.err
    assert "--base-url" in done.err


@pytest.mark.parametrize("url", ["ftp://x", "http://example.com", "https://user:word@example.com"])
def test_an_unusable_address_exits_1(omi: Omi, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_any_of_all")
    done = omi("list", "--base-url", url)
    assert done.code == 1
    assert "word" not in done.err.replace("password", "")


def test_a_slow_server_is_waited_for_as_long_as_was_said(omi: Omi, served: ThreadedServer) -> None:
    served.faults.add(Fault.slow(60), on="create")
    done = omi("create", "text", "--timeout", "0.05")
    assert done.code == 3
    assert "no answer in time" in done.err


def test_verbose_shows_the_calls_and_never_the_key(omi: Omi, served: ThreadedServer) -> None:
    done = omi("create", "a private text", "-v")
    assert "POST /v1/dev/user/memories: 200" in done.err
    assert "a private text" not in done.err


def test_local_keeps_memories_in_a_file(omi: Omi, tmp_path: Path) -> None:
    assert omi("create", "--local", "one").code == 0
    assert (tmp_path / "omi-local.db").exists()
    assert omi("list", "--local", "--json").event["content"] == "one"
    assert omi("create", "two", "--local", "other.sqlite").code == 0
    assert omi("list", "--json", "--local=other.sqlite").event["content"] == "two"
    assert omi("create", "--local", "--", "--local").code == 0


def test_local_leaves_a_foreign_file_alone(omi: Omi, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a database")
    done = omi("list", "--local", "notes.db")
    assert done.code == 1
    assert (tmp_path / "notes.db").read_text() == "not a database"
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    assert omi("list", "--local", "foreign.db").code == 1


def test_local_and_base_url_exclude_each_other(omi: Omi) -> None:
    done = omi("list", "--local", "--base-url", "http://127.0.0.1:1")
    assert done.code == 1
    assert "two different servers" in done.err


def test_local_needs_no_key(omi: Omi) -> None:
    assert "OMI_API_KEY" not in os.environ
    assert omi("list", "--local").code == 0


def test_an_error_is_json_too(omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = omi("delete", "no-such", "--yes", "--json")
    assert (missing.code, missing.out) == (5, "")
    error = json.loads(missing.err)
    assert (error["type"], error["exit_code"]) == ("NotFoundError", 5)
    assert "Memory not found" in error["error"]
    assert "omi-async list" in error["hint"]
    usage = json.loads(omi("list", "--json", "--limit", "few").err)
    assert (usage["event"], usage["exit_code"]) == ("error", 1)
    assert "few" in usage["error"]
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    assert json.loads(omi("list", "--json").err)["exit_code"] == 2


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["create", "Likes", "tea"], "'Likes tea'"),
        (["create", "Likes", "Ann's", "tea"], shlex.quote("Likes Ann's tea")),
        (["update", "some-id", "--content", "Likes", "tea"], "'Likes tea'"),
    ],
)
def test_a_text_that_was_not_quoted_is_told_how_to(
    omi: Omi, served: ThreadedServer, words: list[str], quoted: str
) -> None:
    done = omi(*words)
    assert done.code == 1
    assert f"in quotes: {quoted}\n" in done.err
    assert not served.requests


@pytest.mark.parametrize(
    "words", [["list"], ["export"], ["delete", "x", "--yes"], ["update", "x", "--tag", "y"]]
)
def test_a_named_database_that_is_missing_is_an_error(omi: Omi, tmp_path: Path, words: list[str]) -> None:
    done = omi(*words, "--local", "missing.db")
    assert done.code == 1
    assert "there is no missing.db" in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_default_database_is_not_made_by_looking_into_it(omi: Omi, tmp_path: Path) -> None:
    done = omi("list", "--local")
    assert (done.code, done.out) == (0, "")
    assert "There is no omi-local.db in this directory" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def through_a_proxy(served: ThreadedServer, monkeypatch: pytest.MonkeyPatch) -> ThreadedServer:
    """A server that is reached only through a proxy, which in truth answers itself."""
    monkeypatch.setenv("OMI_API_BASE", "http://omi.invalid")
    monkeypatch.setenv("OMI_ALLOW_HTTP", "1")
    monkeypatch.setenv("http_proxy", served.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return served


def test_a_proxy_of_the_environment_is_used(
    omi: Omi, through_a_proxy: ThreadedServer, tmp_path: Path
) -> None:
    (tmp_path / "facts.txt").write_text("one\n")
    assert omi("import", "facts.txt", "--category", "system").code == 0
    assert omi("list", "--json").event["content"] == "one"


def test_no_proxy_is_used_for_those_that_the_environment_names(
    omi: Omi, through_a_proxy: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "omi.invalid")
    done = omi("list", "--max-wait", 0)
    assert done.code == 3
    assert "no address for the host omi.invalid" in done.err
    assert not through_a_proxy.requests


def test_a_dead_proxy_is_named(
    omi: Omi, through_a_proxy: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1")
    done = omi("list", "--max-wait", 0)
    assert done.code == 3
    assert "through the proxy http://127.0.0.1:1" in done.err
    assert "secret" not in done.err


def test_search_shows_what_fits_best(omi: Omi) -> None:
    for text in ("User likes green tea", "User has a cat", "User drinks tea at noon"):
        assert omi("create", text, "--local").code == 0
    done = omi("search", "tea", "--limit", 2, "--local")
    assert done.code == 0
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert {row[2] for row in rows} == {"User likes green tea", "User drinks tea at noon"}
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    found = omi("search", "tea", "--json", "--local").events[0]
    assert found.keys() == {"id", "content", "category", "relevance_score"}
    assert "in quotes: 'green tea'" in omi("search", "green", "tea").err
    assert omi("search", "  ", "--local").code == 1


def test_key_says_which_one_it_is_and_what_it_may_do(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = omi("key")
    assert done.code == 0
    assert "memories:write" in done.out
    info = omi("key", "--json").event
    assert "memories:read" in info["scopes"]
    assert served.api_key not in done.out + json.dumps(info)
    assert [call.kind for call in served.requests] == ["key", "key"]
    served.faults.add(Fault.answer(404, "Not Found"), on="key")
    old = omi("key")
    assert (old.code, "omi-async list" in old.err) == (3, False)
    monkeypatch.setenv("OMI_API_KEY", "omi_dev_of_another_user")
    assert omi("key").code == 2
