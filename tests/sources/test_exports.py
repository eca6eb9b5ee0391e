"""The exports of other systems, each read as its people would expect; the samples are invented."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from omi_async import Fact
from omi_async.sources import SourceError, open_facts
from tests.sources.source_reading import Read, read

EXPORTS = Path(__file__).parent / "exports"

Expected = list[tuple[str, tuple[str, ...]]]

WHAT_IT_SAYS: dict[str, tuple[dict[str, Any], Expected, dict[str, int]]] = {
    "chatgpt_list.txt": (
        {},
        [
            ("User likes ice cream.", ()),
            ("User is learning Rust.", ()),
            ("User has a dog named Bodil.", ()),
            ("User prefers metric units.", ()),
        ],
        {"around the list": 1},
    ),
    "vault": (
        {},
        [("I am vegetarian", ("me", "facts", "food")), ("Allergic to nuts", ("me", "facts"))],
        {"front matter": 1, "prose": 1, "task": 2},
    ),
    "vault/Me.md": (
        {},
        [("I am vegetarian", ("me", "facts", "food")), ("Allergic to nuts", ("me", "facts"))],
        {"front matter": 1, "prose": 1, "task": 2},
    ),
    "openmemory.jsonl": ({}, [("Works as a nurse", ("work",))], {"deleted": 1}),
    "mem0_v1.json": ({}, [], {"expired": 1}),
    "mem0_v2.json": (
        {},
        [("Dana is vegetarian", ("food",)), ("Dana lives in Oslo", ("personal_details",))],
        {},
    ),
    "mem0_oss.json": ({}, [("Plays chess on Sundays", ())], {}),
    "readwise.csv": ({}, [("Attention is trained, not given.", (".favorite", "focus"))], {}),
    "GEMINI.md": (
        {},
        [("User prefers Traditional Chinese.", ()), ("User lives in Oslo.", ())],
        {"prose": 1},
    ),
    "bee_facts.md": (
        {},
        [("Dana likes to read.", ("books", "leisure")), ("Dana is left-handed.", ())],
        {"pending": 1},
    ),
    "bee_facts.json": ({}, [("Dana likes to read.", ("hobby",))], {}),
    "claude_memories.json": (
        {},
        [
            ("Dana is a nurse in Oslo.", ("Work context",)),
            ("Has a dog named Bodil", ("Personal context",)),
            ("Prefers metric units", ("Personal context",)),
            ("Speaks Norwegian", ("Profile",)),
            ("Lives in UTC+1", ("Profile", "inferred")),
        ],
        {"project": 1},
    ),
    "chatgpt_conversations.json": (
        {},
        [
            ("User likes ice cream.", ()),
            ("User has a dog named Bodil.", ()),
            ("User is vegetarian.", ()),
            ("I am a nurse in Oslo.", ()),
        ],
        {"instructions": 1},
    ),
    "letta.af": ({}, [("Name: Dana", ()), ("Likes tea", ()), ("Works nights", ())], {"block 'persona'": 1}),
    "letta_passages.json": ({}, [("Dana adopted Bodil in 2021.", ("dog",))], {}),
    "keep_note.json": ({}, [("Sizes: Shoes 42", ("me",)), ("Sizes: Jacket M", ("me",))], {}),
    "mcp_memory.jsonl": (
        {},
        [("Dana: Speaks Norwegian", ()), ("Dana: Prefers morning meetings", ())],
        {"relation": 1},
    ),
    "zep_edges.json": ({}, [("Dana lives in Oslo", ())], {"expired": 1}),
    "langgraph_store.json": ({}, [("Dana prefers tea", ())], {}),
    "supermemory.json": ({}, [("Dana likes tea", ())], {}),
    "openwebui.json": ({}, [("Dana likes tea", ())], {}),
    "omi_cli_list.json": ({}, [("User likes tea", ())], {}),
    "linkedin_positions.csv": (
        {"template": "User worked as {Title} at {Company Name}[ since {Started On}][ until {Finished On}]"},
        [("User worked as Nurse at St. Olavs since Jan 2020", ())],
        {},
    ),
    "linkedin_skills.csv": ({"template": "User knows {Name}"}, [("User knows Triage", ())], {}),
    "goodreads.csv": (
        {"template": "User read {Title} by {Author}", "where": {"Exclusive Shelf": "read"}},
        [("User read Growth of the Soil by Knut Hamsun", ())],
        {},
    ),
    "notion.csv": ({"mapping": {"content": "Name"}}, [("Prefers aisle seats", ("travel", "me"))], {}),
}


@pytest.mark.parametrize("name", WHAT_IT_SAYS)
async def test_what_a_sample_says(name) -> None:
    options, expected, skipped = WHAT_IT_SAYS[name]
    async with open_facts(EXPORTS / name, **options) as facts:
        found = [fact async for fact in facts]
    assert [(fact.content, fact.tags) for fact in found if isinstance(fact, Fact)] == expected
    assert len(found) == len(expected)
    assert facts.skipped == Counter(skipped)


@pytest.mark.parametrize(
    "name", ["linkedin_positions.csv", "linkedin_skills.csv", "goodreads.csv", "notion.csv"]
)
def test_a_table_without_a_text_is_refused_with_what_to_do(name) -> None:
    found = read((EXPORTS / name).read_bytes(), name)
    assert found.items == []
    for words in ("content, text, memory, fact, body, note or value", "--map content=NAME", "--template"):
        assert words in str(found.error)


def test_a_diary_is_recognised_and_refused() -> None:
    found = read((EXPORTS / "dayone.json").read_bytes(), "Journal.json")
    assert found.items == []
    assert "a diary of Day One" in str(found.error)


def export(name: str, **options: Any) -> Read:
    return read((EXPORTS / name).read_bytes(), name, **options)


@pytest.mark.parametrize(
    ("name", "include", "more"),
    [
        ("claude_memories.json", "projects", "The project uses Postgres 16."),
        ("chatgpt_conversations.json", "instructions", "Answer in short sentences."),
        ("bee_facts.md", "pending", "Dana may like jazz."),
        ("mcp_memory.jsonl", "relations", "Dana works at St. Olavs"),
    ],
)
def test_what_is_left_out_may_be_included(name, include, more) -> None:
    without, with_it = export(name), export(name, include=include)
    assert set(with_it.texts) - set(without.texts) == {more}
    assert sum(with_it.skipped.values()) < sum(without.skipped.values())


def test_dates_go_into_the_origin() -> None:
    assert export("chatgpt_list.txt").places[0] == "chatgpt_list.txt:2 (2025-05-02)"
    assert export("bee_facts.md").places[0] == "bee_facts.md:5 (2026-01-01T00:00:00Z)"
    assert export("claude_memories.json").places[-1] == "claude_memories.json:1 (2026-10-02T03:04:05.000000Z)"


def test_only_a_tag_is_taken() -> None:
    found = export("claude_memories.json", only_tag="#profile")
    assert found.texts == ["Speaks Norwegian", "Lives in UTC+1"]
    assert found.skipped["without the tag"] == 3


def test_a_known_format_may_be_named() -> None:
    assert export("mem0_v2.json", wanted="mem0").texts == export("mem0_v2.json").texts
    assert export("bee_facts.json", wanted="bee").texts == ["Dana likes to read."]
    assert export("bee_facts.md", wanted="bee").texts == export("bee_facts.md").texts


def test_memories_of_two_people_are_not_mixed() -> None:
    memories = [{"memory": f"likes {n}", "user_id": user} for n, user in enumerate(["dana", "kim", "dana"])]
    data = json.dumps({"results": memories})
    found = read(data, "m.json")
    assert found.items == []
    assert "2 owners, by the field 'user_id' (dana, kim); choose one: --where user_id=NAME" in str(
        found.error
    )
    chosen = read(data, "m.json", where=["user_id=dana"])
    assert chosen.texts == ["likes 0", "likes 2"]
    assert chosen.skipped == {"not chosen by where": 1}


# ChatGPT


def node(content: dict[str, Any], *, role: str = "user", to: str = "all", at: float | None = None) -> Any:
    return {"message": {"author": {"role": role}, "recipient": to, "create_time": at, "content": content}}


def listed(text: str, at: float | None = None) -> Any:
    return node({"content_type": "model_editable_context", "model_set_context": text}, at=at)


def written(text: str, at: float) -> Any:
    return node({"content_type": "text", "parts": [text]}, role="assistant", to="bio", at=at)


def talk(*nodes: Any, at: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"title": "x", "create_time": at, "mapping": {str(n): it for n, it in enumerate(nodes)}, **more}


def chatgpt(*conversations: dict[str, Any]) -> Read:
    return read(json.dumps(list(conversations)), "conversations.json")


def test_the_newest_list_counts_and_what_was_written_after_it() -> None:
    found = chatgpt(
        talk(listed("1. [2025-01-01]. Old."), written("Deleted later.", 150), at=100),
        talk(listed("1. [2025-02-01]. Kept.\n2. [2025-03-01]. Goes on\nover a line."), at=200),
        talk(written("Kept.", 250), written("New.", 300), written("Forget that I like tea.", 301), at=240),
        talk(listed("  "), at=400),
    )
    assert found.texts == ["Kept.", "Goes on over a line.", "New."]
    assert found.skipped == {"not in the newest list": 1, "repeated": 1, "request to forget": 1}


def test_without_a_list_everything_written_counts_once() -> None:
    found = chatgpt(talk(written("A.\nB.", 2), written("A.", 3)), talk(written("Z.", 1)))
    assert found.texts == ["Z.", "A.", "B."]


def test_what_is_not_to_be_remembered_is_left_out() -> None:
    found = chatgpt(talk(written("A.", 1), is_do_not_remember=True), talk(written("B.", 1)))
    assert found.texts == ["B."]
    assert found.skipped == {"not to be remembered": 1}


def test_an_older_profile_gives_way_to_a_newer() -> None:
    old = {"message": {"metadata": {"user_context_message_data": {"about_user_message": "I am ten."}}}}
    new = node(
        {
            "content_type": "user_editable_context",
            "user_profile": "Preferred:\n```\nI am 11. Dr. Ek is my GP.\n```",
        }
    )
    assert chatgpt(talk(old, at=1), talk(new, at=2)).texts == ["I am 11.", "Dr. Ek is my GP."]


@pytest.mark.parametrize("fence", ["```{}```", "```\n{}\n```", "``` \n{}```", "```text\n{}"])
def test_of_a_profile_only_the_block_is_the_persons_own(fence: str) -> None:
    shown = (
        "The user provided this about themselves. It is shown to you in all conversations.\nUser profile:\n"
    )
    profile = shown + fence.format("I am 11. I live in Oslo.\nI like tea.")
    found = chatgpt(talk(node({"content_type": "user_editable_context", "user_profile": profile})))
    assert found.texts == ["I am 11.", "I live in Oslo.", "I like tea."]


# What stands in a record, and is no fact, or not all of one


def test_an_entity_is_named_only_by_a_whole_word() -> None:
    entities = [
        {"type": "entity", "name": "Al", "observations": ["Also likes tea", "Al's cat", "al sings", " "]},
        {"type": "entity", "name": "\u592a\u90ce", "observations": ["\u592a\u90ce\u306f\u8336", "tea"]},
    ]
    found = read("\n".join(map(json.dumps, entities)), "memory.jsonl")
    assert found.texts == [
        "Al: Also likes tea",
        "Al's cat",
        "al sings",
        "\u592a\u90ce\u306f\u8336",
        "\u592a\u90ce: tea",
    ]
    assert found.skipped == {"empty": 1}


def test_a_block_of_an_agent_may_be_written_as_markdown() -> None:
    blocks = [
        {"label": "human", "value": "# Dana\n- Likes tea\n1. Works nights\n---\nName: Dana", "limit": 9},
        {"label": "human", "value": {"name": "Dana"}, "limit": 9},
    ]
    found = read(json.dumps({"agents": [], "groups": [], "blocks": blocks}), "dana.af")
    assert found.texts == ["Likes tea", "Works nights", "Name: Dana"]
    assert found.skipped == {"heading": 2}
    assert found.reasons == ["dana.af:1: content: the value of a block must be a text"]


def test_tables_and_rules_in_a_memory_of_claude_are_no_facts() -> None:
    text = "# Dana\nLikes tea.\n---\nWorks nights.\n| a | b |\n|---|---|\n- Lives in Oslo\n***\n"
    found = read(json.dumps({"memory_files": [{"path": "/a.md", "content": text}]}), "memories.json")
    assert found.texts == ["Likes tea.", "Works nights.", "Lives in Oslo"]
    assert found.skipped == {"table": 2}


MEMORY = """
import asyncio, re, sys
from pathlib import Path
from omi_async.sources import open_facts

async def main():
    async with open_facts(sys.argv[1]) as facts:
        print([fact.content async for fact in facts], facts.recognised[0].format)
    # Not ru_maxrss: Linux hands that on through exec, so that it never lies below the size of the parent.
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_a_large_export_takes_little_memory(tmp_path) -> None:
    path = tmp_path / "conversations.json"
    filler = node({"content_type": "text", "parts": ["x" * 20_000]})
    conversation = json.dumps(talk(*[filler] * 50, written("Likes tea.", 1)))
    with path.open("w") as file:
        file.write("[" + ",".join([conversation] * 60) + "]")
    assert path.stat().st_size > 60e6
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    said, used = done.stdout.splitlines()
    assert said == "['Likes tea.'] chatgpt"
    assert int(used) < 200 * 1024


# Archives and folders


def packed(files: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


FACT = '{"content": "tea"}\n'
PRIVATE = '[{"content": "private"}]'


def test_claude_of_both_layouts_and_nothing_else_of_it() -> None:
    memories = (EXPORTS / "claude_memories.json").read_bytes()
    others = {"users.json": PRIVATE, "conversations.json": PRIVATE, "projects.json": PRIVATE}
    old = read(packed({**others, "memories.json": memories}), "data.zip")
    one = json.loads(memories)[0]
    inner = packed({"memories/0198.json": json.dumps(one)})
    new = read(
        packed({"memories-000.zip": inner, "light_metadata-000.zip": packed({"a.json": PRIVATE})}), "d.zip"
    )
    assert old.texts == new.texts == export("claude_memories.json").texts
    assert old.skipped["other file"] == 3
    assert new.places[0] == "d.zip/memories-000.zip/memories/0198.json:1"


def test_two_accounts_of_claude_are_not_mixed() -> None:
    files = {
        f"memories/{n}.json": json.dumps({"conversations_memory": "Hi.", "account_uuid": str(n)})
        for n in (1, 2)
    }
    found = read(packed(files), "d.zip")
    assert found.items == []
    assert "account_uuid" in str(found.error)


def test_chatgpt_in_several_files() -> None:
    first = json.dumps([talk(listed("1. [2025-01-01]. Old."), at=1)])
    second = json.dumps([talk(listed("1. [2025-01-01]. New."), at=2)])
    found = read(
        packed({"conversations-000.json": first, "conversations-001.json": second, "user.json": PRIVATE}),
        "g.zip",
    )
    assert found.texts == ["New."]
    assert found.skipped == {"other file": 1}


def test_a_table_of_notion_is_read_once_and_out_of_two_archives() -> None:
    inner = packed({"Facts 0123.csv": "Name\na\n", "Facts 0123_all.csv": "Name\na\nb\n"})
    found = read(packed({"id_ExportBlock-id.zip": inner}), "n.zip", mapping={"content": "Name"})
    assert found.texts == ["a", "b"]


def test_archives_nest_no_deeper() -> None:
    data: bytes = packed({"a.jsonl": FACT})
    for _ in range(2):
        data = packed({"inner.zip": data})
    found = read(data, "x.zip")
    assert found.items == []
    assert found.skipped == {"archive nested too deeply": 1}


def test_keep_in_takeout() -> None:
    note = (EXPORTS / "keep_note.json").read_bytes()
    trash = note.replace(b'"isTrashed": false', b'"isTrashed": true')
    files = {
        "Takeout/Keep/a.json": note,
        "Takeout/Keep/b.json": trash,
        "Takeout/Keep/a.html": "<p>",
        "Takeout/x.json": FACT,
    }
    found = read(packed(files), "takeout.zip")
    assert found.texts == ["Sizes: Shoes 42", "Sizes: Jacket M"]
    assert found.skipped == {"trashed": 1, "other file": 2}


def test_openmemory_takes_the_lines_and_not_the_dump() -> None:
    lines = gzip.compress((EXPORTS / "openmemory.jsonl").read_bytes())
    found = read(packed({"memories.json": PRIVATE, "memories.jsonl.gz": lines}), "m.zip")
    assert found.texts == ["Works as a nurse"]


def test_a_vault_leaves_out_templates_and_journals(tmp_path) -> None:
    for name in (
        ".obsidian/app.json",
        "a.md",
        "Templates/t.md",
        "journals/2026.md",
        ".trash/old.md",
        "b/c.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"Prose.\n- {name}\n")

    async def texts(**options: Any) -> list[str]:
        async with open_facts(tmp_path, **options) as facts:
            return [fact.content async for fact in facts if isinstance(fact, Fact)]

    assert asyncio.run(texts()) == ["a.md", "b/c.md"]
    assert asyncio.run(texts(include=["journals"])) == ["a.md", "b/c.md", "journals/2026.md"]


def test_a_broken_member_spoils_no_other() -> None:
    found = read(packed({"a.json": "[{", "b.jsonl": FACT, "c.csv": "x,y\n1,2\n"}), "x.zip")
    assert found.texts == ["tea"]
    assert "x.zip/a.json:1: the document is cut short" in str(found.error)
    assert "1 more files" in str(found.error)


@pytest.mark.parametrize(
    "name", ["user.json", "users.json", "light_metadata-000.json", "README.md", ".hidden.json"]
)
def test_some_files_are_never_read(name) -> None:
    found = read(packed({name: PRIVATE}), "x.zip")
    assert found.items == []
    assert "holds no file that could be a list of facts" in str(found.error)


def test_an_archive_made_to_fill_the_memory_is_refused() -> None:
    found = read(packed({"a.txt": b"tea\n" * 10_000_000}), "x.zip")
    assert found.items == []
    assert "unpacks to more than 200 times its size" in str(found.error)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04 and so on", "a ZIP archive that cannot be read"),
        (packed({"[Content_Types].xml": "<x/>", "a.json": FACT}), "a document of an office program"),
        (packed({}), "holds no file"),
    ],
)
def test_archives_that_cannot_be_read(data, words) -> None:
    found = read(data, "x.zip")
    assert found.items == []
    assert words in str(found.error)


def test_a_damaged_member_is_told() -> None:
    data = bytearray(packed({"a.txt": b"".join(b"number %d\n" % n for n in range(50_000))}))
    data[len(data) // 2] ^= 0xFF
    found = read(bytes(data), "x.zip")
    assert "the ZIP archive is damaged here" in str(found.error)


async def test_an_archive_from_a_pipe(tmp_path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    async with open_facts(Pipe(packed({"a.jsonl": FACT}))) as facts:
        assert [fact.origin async for fact in facts] == ["input/a.jsonl:1"]


async def test_a_folder_without_facts(tmp_path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(SourceError, match="holds no file that could be a list"):
        async for _ in open_facts(tmp_path):
            pass
