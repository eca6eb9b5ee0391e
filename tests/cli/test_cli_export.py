"""export, and the way back through import."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from omi_async.cli import export
from omi_async.local import Fault, LocalServer, ThreadedServer
from tests.cli.driving import PATIENCE, Omi, Start, ended

TEXTS = ("plain", "Größe 漢字 🦉", 'with "quotes", commas; and\ttabs', "two\nlines")


def test_export_writes_json_lines_to_stdout_and_the_count_to_stderr(omi: Omi, served: ThreadedServer) -> None:
    served.add("one", "two", tags=["x"])
    done = omi("export")
    assert [record["content"] for record in done.events] == ["two", "one"]
    assert done.events[0]["tags"] == ["x"]
    assert done.err == "2 memories exported\n"


def test_export_as_json_gives_every_field(omi: Omi, served: ThreadedServer) -> None:
    served.add("one", scoring="01_999_1733482500")  # as older servers show it
    done = omi("export", "--json")
    assert done.event["scoring"] == "01_999_1733482500"
    assert done.err == "1 memory exported\n"


def test_export_takes_categories(omi: Omi, served: ThreadedServer) -> None:
    served.add("one", category="system")
    served.add("two", category="manual")
    assert [record["content"] for record in omi("export", "--category", "system").events] == ["one"]


@pytest.mark.parametrize("wanted", ["jsonl", "csv", "markdown"])
def test_what_export_writes_import_reads(
    omi: Omi, served: ThreadedServer, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.add(*TEXTS, category="system", visibility="public", tags=["a", "b"])
    assert omi("export", "--format", wanted, "--output", "out.txt").code == 0
    with LocalServer.in_thread() as other:
        monkeypatch.setenv("OMI_API_KEY", other.api_key)
        monkeypatch.setenv("OMI_API_BASE", other.url)
        done = omi("import", "out.txt", "--format", wanted)
        assert done.code == 0, done
        memories = other.memories()
    kept = ("content",) if wanted == "markdown" else ("content", "category", "visibility", "tags")
    before = [[memory[name] for name in kept] for memory in served.memories()]
    after = [[memory[name] for name in kept] for memory in memories]
    if wanted == "markdown":
        assert len(after) == len(before)
    else:
        assert sorted(map(str, after)) == sorted(map(str, before))


def test_a_file_appears_when_it_is_complete(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("before")
    served.add("one")
    served.faults.add(Fault.answer(403, "no"), on="list")
    done = omi("export", "--output", "out.jsonl")
    assert done.code == 2
    assert "out.jsonl was not written" in done.err
    assert (tmp_path / "out.jsonl").read_text() == "before"
    assert omi("export", "--output", "out.jsonl").code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["content"] == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_an_export_that_breaks_says_how_much_was_written(
    omi: Omi, served: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 1)
    served.add("one", "two")
    served.faults.add(Fault.slow(0), Fault.answer(403, "no"), on="list")
    done = omi("export")
    assert done.code == 2
    assert "The export is not complete; lines written: 1." in done.err


def test_an_output_that_cannot_be_written_exits_1(omi: Omi, served: ThreadedServer) -> None:
    done = omi("export", "--output", "no/such/directory.jsonl")
    assert done.code == 1
    assert "No such file or directory" in done.err


def test_a_pipe_is_written_directly(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    served.add("one")
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    assert omi("export", "--output", "pipe").code == 0
    reader.join(PATIENCE)
    assert json.loads(read[0])["content"] == "one"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_an_export_quietly(start: Start, served: ThreadedServer) -> None:
    served.add(*[f"number {index}" for index in range(5000)])
    process = start("export")
    assert process.stdout is not None
    assert "number 4999" in process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    done = ended(process)
    assert (done.code, done.err) == (0, "")


def test_a_link_stays_one_and_a_file_keeps_its_mode(omi: Omi, served: ThreadedServer, tmp_path: Path) -> None:
    served.add("one")
    (tmp_path / "real").mkdir()
    kept = tmp_path / "real" / "backup.jsonl"
    kept.write_text("old\n")
    kept.chmod(0o640)
    (tmp_path / "link.jsonl").symlink_to(kept)
    (tmp_path / "dangling.jsonl").symlink_to("real/new.jsonl")
    for name in ("link.jsonl", "dangling.jsonl"):
        assert omi("export", "-o", name).code == 0
        assert (tmp_path / name).is_symlink()
    assert json.loads(kept.read_text())["content"] == "one"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "real" / "new.jsonl").stat().st_mode) == 0o600
    assert sorted(path.name for path in kept.parent.iterdir()) == ["backup.jsonl", "new.jsonl"]


@pytest.mark.slow
def test_what_a_server_shows_of_a_long_list_is_exported_and_the_rest_is_told(
    omi: Omi, served: ThreadedServer, tmp_path: Path
) -> None:
    served.add(*[f"number {index}" for index in range(5200)])
    done = omi("export", "-o", "out.jsonl")
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert done.code == 3
    assert 4900 < len(written) < 5200
    assert f"{len(written):,} memories exported to out.jsonl" in done.err
    assert "The export is not complete." in done.err
    listed = omi("list", "--limit", 6000)
    assert listed.code == 3
    assert len(listed.out.splitlines()) == len(written)


def test_a_database_of_ones_own_is_exported_whole(omi: Omi, tmp_path: Path) -> None:
    with LocalServer.in_thread(tmp_path / "omi-local.db") as server:
        server.add(*(f"fact {number}" for number in range(5100)), category="work")
    assert len(omi("export", "--local").events) == 5100
