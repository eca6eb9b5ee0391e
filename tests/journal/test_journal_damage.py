"""What lies on the disk after a real kill, damaged: refused and left as it is, or read as if it were not."""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omi_async import Journal, JournalError, JournalInUseError
from omi_async.importing.journal import wal
from tests.journal.helpers import OPEN, begun, copy, end, items, known, python, ran, sending, settle, texts

FACTS = texts(range(200))

FRAME = 24 + 1024
"""Bytes of a frame of a journal's write-ahead log."""

KILLED = """
import sys
from pathlib import Path
from tests.journal.helpers import begun, items, sending, settle, texts
journal = begun(Path(sys.argv[1]))
for start in range(0, 200, 25):
    batch = items(*texts(range(start, start + 25)))
    sending(journal, batch)
    if start < 175:  # the last call is on its way
        settle(journal, batch, memory_id="0123456789abcdef" * 2)
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal whose process was killed; nearly all that it knows is in its `-wal`."""
    path = tmp_path_factory.mktemp("killed") / "facts.journal"
    with python(KILLED, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        process.kill()
        process.wait()
    assert log_of(path).stat().st_size > 10 * FRAME
    return path


@pytest.fixture(scope="module")
def states(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = known(copy(killed, tmp_path_factory.mktemp("read") / "facts.journal"), FACTS)
    assert list(found.values()) == ["created"] * 175 + ["doubt"] * 25
    return found


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    return copy(killed, tmp_path / "facts.journal")


def log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def refusal(path: Path) -> str:
    """What a journal says that will not open; whatever lies there must stay as it is."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(JournalError) as refused:
        Journal(path).open()
    assert not isinstance(refused.value, JournalInUseError)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    return str(refused.value)


def is_refused_or_unharmed(path: Path, states: dict[str, str]) -> bool:
    """Return whether it is refused, with all files left as they are; if not, it must know what it knew."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    try:
        found = known(path, FACTS)
    except JournalError:
        assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
        return True
    assert found == states
    return False


# The log


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.0, bit=0)  # the header
@example(place=0.5, bit=3)
@settings(max_examples=100, deadline=None)
def test_no_flipped_bit_of_a_log_goes_unnoticed(killed, states, tmp_path_factory, place, bit) -> None:
    path = copy(killed, tmp_path_factory.mktemp("flipped") / "facts.journal")
    content = bytearray(log_of(path).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    log_of(path).write_bytes(content)
    assert is_refused_or_unharmed(path, states)


def test_no_flipped_bit_of_a_logs_last_frame_goes_unnoticed_but_one(path: Path) -> None:
    """The last commit is the one before the call that was on its way: without it, that call is made again.

    Only a flipped bit that makes of the commit one that was not to be looks like a write that was taken back.
    """
    content = log_of(path).read_bytes()
    last = len(content) - FRAME
    unnoticed = []
    for place in range(last, len(content)):
        for bit in range(8) if place < last + 24 else (place % 8,):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            log_of(path).write_bytes(flipped)
            if wal.damage(log_of(path)) is None:
                unnoticed.append(place - last)
    assert len(unnoticed) <= 1
    assert set(unnoticed) <= {4, 5, 6, 7}  # where the commit's size stands, if it has one bit


OVER = st.sampled_from([b"\0", b"\xff", b"Z" * 24, bytes(5000)])


@given(place=st.floats(0, 1), over=OVER)
@settings(max_examples=40, deadline=None)
def test_no_part_of_a_log_that_was_written_over_goes_unnoticed(
    killed, states, tmp_path_factory, place, over
) -> None:
    path = copy(killed, tmp_path_factory.mktemp("over") / "facts.journal")
    content = log_of(path).read_bytes()
    start = int(place * (len(content) - len(over)))
    log_of(path).write_bytes(content[:start] + over + content[start + len(over) :])
    is_refused_or_unharmed(path, states)


def test_the_refusal_says_what_happened_what_is_known_and_what_to_do(path: Path) -> None:
    content = bytearray(log_of(path).read_bytes())
    content[32 + 4 * FRAME + 100] ^= 4
    log_of(path).write_bytes(content)
    words = refusal(path)
    assert "of facts.journal-wal, which holds its last writes, its frame 5 is damaged, and " in words
    assert " commits follow it. It was not touched. What stands before the damage is sound" in words
    assert "import with a new journal and skip_existing=True (--skip-existing)" in words


def test_a_damaged_log_of_an_import_that_runs_is_in_use(path: Path) -> None:
    """Another process may be in the middle of a write: what it has written so far says nothing."""
    with python(OPEN.replace('print("opened")', 'print("opened", flush=True); input()'), path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        content = bytearray(log_of(path).read_bytes())
        content[8] ^= 1
        log_of(path).write_bytes(content)
        with pytest.raises(JournalInUseError):
            Journal(path).open()
        process.kill()


@pytest.mark.parametrize("keep", [None, 0, 10, 31, 32, FRAME, 32 + FRAME - 1])
def test_a_journal_that_was_moved_without_its_log_is_refused(path: Path, keep: int | None) -> None:
    content = log_of(path).read_bytes()
    log_of(path).unlink()
    if keep is not None:
        log_of(path).write_bytes(content[:keep])
    words = refusal(path)
    assert "its last writes are in facts.journal-wal, which is missing or cut off. Put it back" in words
    log_of(path).write_bytes(content)
    assert "created" in known(path, FACTS).values()


def test_a_write_that_was_cut_off_is_no_damage(path: Path) -> None:
    """As far as the crash let it get, byte by byte; what was durable before it is known."""
    content = log_of(path).read_bytes()
    whole = content[:-FRAME]
    for cut in (1, 23, 24, 25, FRAME - 1):
        log_of(path).write_bytes(whole + content[len(whole) : len(whole) + cut])
        assert wal.damage(log_of(path)) is None
    found = known(path, FACTS)
    assert list(found.values())[:150] == ["created"] * 150


# The file beside its log


@pytest.mark.parametrize("what", ["gone", "empty"])
def test_no_journal_is_begun_beside_the_log_of_another(path: Path, what: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if what == "empty":
        path.touch()
    words = refusal(path)
    assert f"is {what}, and facts.journal-wal beside it holds the last writes of an import" in words
    path.write_bytes(content)
    assert "created" in known(path, FACTS).values()


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_of_the_file_is_refused_or_harmless(
    killed, states, tmp_path_factory, place, bit
) -> None:
    path = copy(killed, tmp_path_factory.mktemp("flipped") / "facts.journal")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    is_refused_or_unharmed(path, states)


@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
@settings(max_examples=30, deadline=None)
def test_a_file_that_was_cut_off_is_refused_or_whole_by_its_log(
    killed, states, tmp_path_factory, share
) -> None:
    path = copy(killed, tmp_path_factory.mktemp("cut") / "facts.journal")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    is_refused_or_unharmed(path, states)


def test_a_link_is_followed_to_the_log_too(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    content = bytearray(log_of(path).read_bytes())
    content[32 + 200] ^= 1
    log_of(path).write_bytes(content)
    assert "is damaged" in refusal(link)


# Logs that are sound


def test_a_log_that_has_begun_again_is_sound_at_every_commit(tmp_path: Path) -> None:
    journal = begun(tmp_path / "facts.journal")
    numbers = set[int]()
    for number in range(500):
        batch = items(*texts(range(2 * number, 2 * number + 2)))
        sending(journal, batch)
        settle(journal, batch)
        if number % 20 == 0:
            log = log_of(journal.path)
            assert wal.damage(log) is None
            numbers.add(struct.unpack(">I", log.read_bytes()[12:16])[0])
    assert len(numbers) > 1  # it did begin again
    left = copy(journal.path, tmp_path / "left.journal")
    end(journal)
    assert set(known(left, texts(range(1000))).values()) == {"created"}


@pytest.fixture
def stale(tmp_path: Path) -> Iterator[Path]:
    """The log of a database in which old frames lie behind the new ones, as earlier versions left it."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA page_size = 1024")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE facts (content TEXT)")
        for rounds in range(3):
            for _ in range(10 - 3 * rounds):
                database.execute("INSERT INTO facts VALUES (?)", ("x" * 300,))
            database.execute("PRAGMA wal_checkpoint")
        database.execute("INSERT INTO facts VALUES ('a')")
        yield log_of(path)


def test_stale_frames_are_no_damage_nor_is_a_write_over_them_that_was_cut_off(stale: Path) -> None:
    content = stale.read_bytes()
    assert wal.damage(stale) is None
    salts = content[16:24]
    new = sum(content[start + 8 : start + 16] == salts for start in range(32, len(content), FRAME))
    assert 0 < new < (len(content) - 32) // FRAME - 3
    last = 32 + (new - 1) * FRAME
    torn = content[: last + 600] + bytes(FRAME - 600) + content[last + FRAME :]
    stale.write_bytes(torn)
    assert wal.damage(stale) is None
    flipped = bytearray(content)
    flipped[32 + 50] ^= 1
    stale.write_bytes(flipped)
    assert (wal.damage(stale) is None) == (new == 1)


def test_a_full_disk_leaves_a_log_that_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "facts.journal"
    status, output = ran(FULL_DISK, path)
    assert status == -9, output
    assert output == "full"
    found = known(path, texts(range(1000)))
    assert 0 < list(found.values()).count("created") < 1000


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
from omi_async import JournalError
from tests.journal.helpers import begun, items, sending, settle, texts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = begun(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
try:
    for start in range(0, 1000, 25):
        batch = items(*texts(range(start, start + 25)))
        sending(journal, batch)
        settle(journal, batch)
except JournalError:
    print("full", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_program_that_ends_without_closing_its_journal_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "facts.journal"
    for _ in range(3):
        assert ran(OPEN, path) == (0, "opened")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# Modes


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_a_journal_and_its_log_are_their_users_own(tmp_path: Path) -> None:
    path = tmp_path / "facts.journal"
    before = os.umask(0)
    try:
        journal = begun(path)
        sending(journal, items("a fact"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        end(journal)
    finally:
        os.umask(before)
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "facts.journal"
    path.touch()
    path.chmod(0o640)
    begun(path)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}
