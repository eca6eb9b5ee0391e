"""The file: what is refused stays as it is, and no other process gets in while it is open."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_async import Journal, JournalError, JournalInUseError, OmiError
from tests.journal.helpers import (
    OPEN,
    begun,
    copy,
    end,
    items,
    known,
    python,
    ran,
    raw,
    sending,
    settle,
    texts,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.journal"


def small_journal(path: Path) -> list[str]:
    """Make a journal of some pages in which the states differ; return its texts."""
    journal = begun(path)
    contents = texts(range(300))
    for start in range(0, 300, 25):
        batch = items(*contents[start : start + 25])
        sending(journal, batch)
        settle(journal, batch[:10], memory_id="0123456789abcdef" * 2)
        settle(journal, batch[10:15], "rejected", error=OmiError("refused by the server: too dull"))
        settle(journal, batch[15:20], "unknown", error=OmiError("the answer was lost"))
    end(journal)
    return contents


def refusal(path: Path) -> str:
    """What a journal says that will not open; its file must stay as it is."""
    before = path.read_bytes()
    beside = sorted(path.parent.iterdir())
    with pytest.raises(JournalError) as refused:
        Journal(path).open()
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == beside
    return str(refused.value)


# Foreign files


@pytest.mark.parametrize(
    "content",
    [
        b"content,category\nUser is vegetarian,lifestyle\n",
        b"x",
        b"SQLite format 3\0",
        b"SQLite format 3\0" + bytes(84),
        b"SQLite format 3\0" + bytes(5000),
        b"\x1f\x8b" + os.urandom(3000),
        bytes(4096),
    ],
)
def test_a_foreign_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "no journal of omi_async" in refusal(path) or "another program" in refusal(path)


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE batches (id INTEGER PRIMARY KEY)")
    assert "a database of another program; it was not touched" in refusal(path)


def test_the_stand_in_servers_database_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA application_id = 0x4F6D694C")
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY)")
    assert "another program" in refusal(path)


def test_an_empty_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("VACUUM")
    assert path.stat().st_size > 0
    assert "another program" in refusal(path)


@pytest.mark.parametrize("version", [0, 3, 7])
def test_a_journal_of_another_version_is_refused(path: Path, version: int) -> None:
    small_journal(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {version}")
    assert f"another version of omi_async (schema {version}, this one reads 2)" in refusal(path)


def test_a_database_with_our_number_but_other_tables_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY)")
        other.execute(f"PRAGMA application_id = {0x4F4D494A}")
        other.execute("PRAGMA user_version = 1")
    assert "no such table: batches" in refusal(path)
    with closing(sqlite3.connect(path)) as other:  # the refusal has let go of it
        other.execute("SELECT * FROM facts")


def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(JournalError, match="it is no file"):
        Journal(path).open()


def test_a_pipe_is_refused_instead_of_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(JournalError, match="it is no file"):
        Journal(path).open()


def test_a_missing_folder_is_named(path: Path) -> None:
    with pytest.raises(JournalError, match=r"there is no folder .*/missing"):
        Journal(path.parent / "missing" / "facts.journal").open()
    assert list(path.parent.iterdir()) == []


def test_a_name_that_is_too_long_is_an_error_of_ours(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened: File name too long"):
        Journal(path.parent / ("x" * 300)).open()


UNPRIVILEGED = """
import os, sys
from omi_async import Journal, JournalError
if os.getuid() == 0:
    os.seteuid(65534)
try:
    Journal(sys.argv[1]).open()
except JournalError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o222])
def test_a_file_without_permission_is_refused(mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own keep others out
        Path(folder).chmod(0o755)
        path = Path(folder) / "facts.journal"
        small_journal(path)
        before = path.read_bytes()
        path.chmod(mode)
        _, output = ran(UNPRIVILEGED, path)
        path.chmod(0o600)
        assert path.read_bytes() == before
    assert "cannot be opened: no permission to read and write it" in output


def test_names_that_mean_something_to_sqlite_are_files_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory", "a%20b#c?d", "räumlich ☃", os.fsdecode(b"\xff")):
        journal = begun(Path(name))
        sending(journal, items("a fact"))
        end(journal)
        assert Path(name).stat().st_size > 0
        assert known(Path(name), ["a fact"]) == {"a fact": "doubt"}


# Damaged files


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, str], object]:
    path = tmp_path_factory.mktemp("sound") / "facts.journal"
    contents = small_journal(path)
    with Journal(path) as journal:
        told = (journal.counts(), list(journal.unfinished()))
    return path, contents, known(path, contents), told


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
def test_a_flipped_bit_is_refused_or_changes_nothing(sound, tmp_path: Path, half: int) -> None:
    source, contents, states, told = sound
    content = source.read_bytes()
    path = tmp_path / "flipped.journal"

    @given(st.integers(half * len(content) // 2, (half + 1) * len(content) // 2 - 1), st.integers(0, 7))
    @settings(max_examples=120, deadline=None)
    def flip(place: int, bit: int) -> None:
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        check_damaged(path, bytes(flipped), contents, states, told)

    flip()


def test_a_journal_whose_tables_have_vanished_is_not_taken_for_a_new_one(sound, path: Path) -> None:
    content = bytearray(sound[0].read_bytes())
    tables = int.from_bytes(content[103:105])
    for left in range(tables):
        content[104] = left
        path.write_bytes(content)
        assert refusal(path)


def test_no_flipped_bit_in_the_header_or_in_the_states_goes_unnoticed(sound, tmp_path: Path) -> None:
    source, contents, states, told = sound
    content = source.read_bytes()
    path = tmp_path / "flipped.journal"
    letters = content.index(b"ccccccccccrrrrruuuuusssss")
    for place in [*range(100), *range(letters, letters + 25)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        refused = check_damaged(path, bytes(flipped), contents, states, told)
        assert refused or place < letters


def check_damaged(path: Path, content: bytes, contents, states, told) -> bool:
    """Return whether a journal is refused; one that is not must tell what it told before."""
    for left in path.parent.iterdir():  # by the example before, if it damaged what closes a journal
        left.unlink()
    path.write_bytes(content)
    try:
        with Journal(path) as journal:
            assert (journal.counts(), list(journal.unfinished())) == told
    except JournalError:
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]
        return True
    assert known(path, contents) == states
    return False


def test_a_damaged_schema_is_an_error_of_ours_although_sqlite_cannot_name_it(sound, tmp_path: Path) -> None:
    source, contents, states, told = sound
    content = bytearray(source.read_bytes())
    place = content.index(b"batches")
    content[place] ^= 1 << 7
    assert check_damaged(tmp_path / "damaged.journal", bytes(content), contents, states, told)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_journal_is_refused(sound, path: Path, share: float) -> None:
    content = sound[0].read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path)


def test_a_journal_with_a_zeroed_page_is_refused(sound, path: Path) -> None:
    content = sound[0].read_bytes()
    for start in range(0, len(content), 4096):
        path.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        assert refusal(path)


def test_the_refusal_says_what_to_do(sound, path: Path) -> None:
    content = bytearray(sound[0].read_bytes())
    content[content.index(b"ccccccccccrrrrruuuuusssss")] = ord("e")
    path.write_bytes(content)
    words = refusal(path)
    assert "is damaged. It was not overwritten. To go on: move it away, with what lies beside it" in words


# New files, and what a crash leaves


def test_an_empty_file_is_used(path: Path) -> None:
    path.touch()
    journal = begun(path)
    sending(journal, items("a fact"))
    end(journal)
    assert known(path, ["a fact"]) == {"a fact": "doubt"}


def test_what_stands_in_the_wal_only_is_not_lost(path: Path, tmp_path: Path) -> None:
    journal = begun(path)
    sending(journal, items("a fact"))
    left = copy(path, tmp_path / "left.journal")
    end(journal)
    assert Path(f"{left}-wal").stat().st_size > 0
    assert known(left, ["a fact"]) == {"a fact": "doubt"}


CREATE_AND_DIE = """
import os, signal, sqlite3, sys
from omi_async import Journal

statements = 0
connect = sqlite3.connect

def dying(*arguments, factory=sqlite3.Connection, **options):
    class Dying(factory):
        def execute(self, sql, *parameters):
            global statements
            if statements == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            statements += 1
            return super().execute(sql, *parameters)
    return connect(*arguments, factory=Dying, **options)

sqlite3.connect = dying
with Journal(sys.argv[1]):
    pass
print(statements)
"""


@pytest.mark.slow
def test_a_kill_at_any_statement_of_the_creation_leaves_a_journal_to_be(path: Path) -> None:
    _, output = ran(CREATE_AND_DIE, path, -1)
    statements = int(output)
    assert statements > 8
    for statement in range(statements):
        for file in path.parent.iterdir():
            file.unlink()
        assert ran(CREATE_AND_DIE, path, statement)[0] == -9
        assert known(path, ["a fact"]) == {"a fact": "nothing"}


def test_a_hot_rollback_journal_of_the_creation_is_rolled_back(path: Path, tmp_path: Path) -> None:
    """As if the process had died in the middle of the commit that creates the tables, after page 1."""
    end(begun(path))
    first_page = path.read_bytes()[:4096]
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as creating:
        creating.execute("PRAGMA cache_size = 1")
        creating.execute("BEGIN EXCLUSIVE")
        creating.execute("CREATE TABLE batches (half INTEGER)")
        creating.execute("CREATE TABLE ballast (x)")
        creating.executemany("INSERT INTO ballast VALUES (?)", [("x" * 3000,)] * 50)  # spills to the file
        left = copy(path, tmp_path / "left.journal")
    assert Path(f"{left}-journal").stat().st_size > 0
    left.write_bytes(first_page)
    assert known(left, ["a fact"]) == {"a fact": "nothing"}


# One process


@pytest.mark.slow
def test_another_process_is_refused_also_after_another_try_of_this_one(path: Path) -> None:
    journal = begun(path)
    sending(journal, items("a fact"))
    for _ in range(2):
        _, output = ran(OPEN, path)
        assert "is in use by another import; wait for its end, or stop it" in output
        # POSIX drops a process's locks on a file when it closes any handle of it.
        with pytest.raises(JournalInUseError, match="is in use by another import"):
            Journal(path).open()
        with pytest.raises(JournalInUseError, match="is in use by another import"):
            Journal(path.parent / "." / path.name, texts=False).open()
    end(journal)
    assert ran(OPEN, path) == (0, "opened")


HOLD = """
import sys, time
from omi_async import Journal
from tests.journal.helpers import begun, items, sending
from pathlib import Path
sending(begun(Path(sys.argv[1])), items("a fact"))
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with python(HOLD, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_after_a_kill_the_journal_opens_again_with_all_that_was_durable(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(JournalInUseError, match="is in use by another import"):
        Journal(path).open()
    holder.kill()
    holder.wait()
    assert known(path, ["a fact"]) == {"a fact": "doubt"}


@pytest.mark.skipif(sys.platform == "win32", reason="no symbolic links")
def test_a_link_is_followed_and_the_lock_with_it(path: Path) -> None:
    link = path.parent / "link.journal"
    link.symlink_to(path)
    journal = begun(link)
    with pytest.raises(JournalInUseError, match="is in use"):
        Journal(path).open()
    end(journal)
    assert path.stat().st_size > 0
    assert raw(path).startswith(b"SQLite format 3\0")
