"""What a journal keeps and tells, without a server."""

from __future__ import annotations

import gc
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_async import Fact, Journal, JournalError, JournalInUseError, OmiError
from omi_async.fact import fact_payload
from omi_async.importing.item import Item
from omi_async.importing.journal import journal as journal_module
from omi_async.importing.journal.index import PLACES, KeyIndex
from omi_async.importing.journal.row import ROW, Recalled
from omi_async.importing.journal.rows import ROWS_CACHED
from tests.journal.helpers import (
    SERVER,
    begin,
    begun,
    database,
    end,
    items,
    known,
    letters,
    recall,
    sending,
    settle,
    settled,
    texts,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.journal"


STATES: Any = ["created", "existing", "rejected", "unknown", "invalid", "not_sent"]


def one_of_each(path: Path, **options: Any) -> None:
    """Write a journal with a fact in each state, and one whose call was cut off."""
    journal = begun(path, **options)
    batch = items(*STATES, "cut off")
    sending(journal, batch)
    for item, state in zip(batch, STATES, strict=False):
        error = OmiError(f"why {state}") if state not in {"created", "existing"} else None
        memory_id = f"id of {state}" if error is None else None
        settled(journal, [item.become(state, memory_id, error)])
    end(journal)


def test_what_was_settled_is_recalled_in_another_life(path: Path) -> None:
    one_of_each(path)
    assert known(path, [*STATES, "cut off", "new"]) == {
        "created": "created",
        "existing": "existing",
        "rejected": "rejected",
        "unknown": "doubt",
        "invalid": "unsent",
        "not_sent": "unsent",
        "cut off": "doubt",
        "new": "nothing",
    }
    journal = begun(path)
    created, rejected = (recall(journal, [content])[0] for content in ("created", "rejected"))
    assert not isinstance(created, str | None)
    assert not isinstance(rejected, str | None)
    assert (created.memory_id, created.words) == ("id of created", None)
    assert (rejected.memory_id, rejected.words) == (None, "why rejected")
    end(journal)


def test_a_text_is_seen_once_in_each_import(path: Path) -> None:
    journal = begun(path)
    for _ in range(2):
        for number, content in enumerate(texts(range(60))):
            found = recall(journal, [content])[0]
            assert found != "seen"
            assert recall(journal, [content])[0] == "seen"  # while it is on its way
            if found is None:
                sending(journal, items(content))
            assert recall(journal, [content])[0] == "seen", number  # and once it is written down
            assert not journal._entering  # what is written down is not kept in memory
        end(journal)
        begin(journal, SERVER)
    end(journal)


@given(st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=8), st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_many_texts_are_recalled_at_once_as_they_are_one_by_one(chunks) -> None:
    with tempfile.TemporaryDirectory() as folder:
        together, apart = (begun(Path(folder, name)) for name in ("together", "apart"))
        for numbers, sends in [*chunks, ([], False), *chunks]:
            contents = texts(numbers)
            found = recall(together, contents)
            assert [told(known) for known in found] == [
                told(recall(apart, [content])[0]) for content in contents
            ]
            new = [content for content, known in zip(contents, found, strict=True) if known is None]
            for journal in (together, apart):
                if sends and new:
                    batch = items(*new)
                    sending(journal, batch)
                    settle(journal, batch[::2])
                if not contents:  # and all of it again, in another life
                    end(journal)
                    begin(journal, SERVER)
        end(together)
        end(apart)


def told(known: Any) -> Any:
    return known if isinstance(known, str | None) else attrs.evolve(known, sent_at=0.0)


def write(journal: Journal, chunk: int) -> None:
    batch = items(*texts(range(chunk * 25, chunk * 25 + 25)))
    assert recall(journal, [item.content for item in batch]) == [None] * 25
    sending(journal, batch)
    settle(journal, batch)


def steps(function: Callable[..., None], *arguments: Any) -> int:
    """Count the steps of Python that a call takes."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    gc.disable()  # what it calls back would count
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_a_chunk_costs_as_much_in_a_large_journal_as_in_a_small_one(path: Path) -> None:
    journal = begun(path)
    costs = {}
    for chunk in range(803):
        # From the first of these on, one row comes into the cache and one goes.
        if chunk in {ROWS_CACHED + 1, ROWS_CACHED + 2, ROWS_CACHED + 3, 800, 801, 802}:
            costs[chunk] = steps(write, journal, chunk)
        else:
            write(journal, chunk)
    few, many = [*costs.values()][:3], [*costs.values()][3:]
    assert min(few) == min(many) > 0
    end(journal)


def test_a_row_reads_the_same_however_it_was_settled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.25)
    journal = begun(path)
    whole, in_parts, reordered = (items(*texts(range(25))) for _ in range(3))
    for batch in (whole, in_parts, reordered):
        sending(journal, batch)
    settle(journal, whole)
    settle(journal, in_parts[:7])
    settle(journal, in_parts[7:])
    settle(journal, reordered[::-1])
    rows = database(journal).execute("SELECT server, sent_at, keys, states, ids, facts, errors FROM batches")
    (row,) = set(rows)
    assert row[3:] == ("c" * 25, b"[" + b",".join([b'"memory"'] * 25) + b"]", None, None)
    end(journal)
    end(begun(path))  # every checksum holds


def test_each_server_is_remembered_apart(path: Path) -> None:
    for server in ("one", "other"):
        journal = begun(path, server)
        batch = items("a fact")
        assert recall(journal, ["a fact"])[0] is None
        sending(journal, batch)
        settle(journal, batch, "created" if server == "one" else "unknown")
        end(journal)
    assert known(path, ["a fact"], "one") == {"a fact": "created"}
    assert known(path, ["a fact"], "other") == {"a fact": "doubt"}
    with Journal(path) as journal:
        assert journal.counts() == {"one": {"created": 1}, "other": {"unknown": 1}}
        assert [entry.server for entry in journal.unfinished()] == ["other"]


def test_a_name_of_the_servers_own_overrides_its_address(path: Path) -> None:
    journal = begun(path, "http://127.0.0.1:1", server="rehearsal")
    sending(journal, items("a fact"))
    end(journal)
    journal = begun(path, "http://127.0.0.1:2", server="rehearsal")
    assert letters(journal, ["a fact"]) == {"a fact": "doubt"}
    end(journal)
    assert known(path, ["a fact"], "http://127.0.0.1:2") == {"a fact": "nothing"}


def test_counts_and_unfinished_tell_every_state(path: Path) -> None:
    one_of_each(path)
    with Journal(path) as journal:
        assert journal.counts() == {
            SERVER: {"created": 1, "existing": 1, "rejected": 1, "unknown": 2, "invalid": 1, "not_sent": 1}
        }
        entries = list(journal.unfinished())
    assert [(entry.state, entry.error) for entry in entries] == [
        ("rejected", "why rejected"),
        ("unknown", "why unknown"),
        ("invalid", "why invalid"),
        ("not_sent", "why not_sent"),
        ("unknown", None),
    ]
    assert entries[0].fact == {
        "content": "rejected",
        "visibility": "private",
        "tags": [],
        "category": "system",
    }
    assert {entry.server for entry in entries} == {SERVER}


def test_without_texts_unfinished_tells_states_only(path: Path) -> None:
    one_of_each(path, texts=False)
    with Journal(path) as journal:
        entries = list(journal.unfinished())
    assert [entry.state for entry in entries] == ["rejected", "unknown", "invalid", "not_sent", "unknown"]
    assert {(entry.fact, entry.error) for entry in entries} == {(None, None)}


def test_an_empty_journal_has_nothing_to_tell(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.counts() == {}
        assert list(journal.unfinished()) == []
        assert journal.forget("unknown", "created") == 0


@pytest.mark.parametrize(
    ("states", "forgotten"),
    [
        (["unknown"], ["unknown", "cut off"]),
        (["rejected"], ["rejected"]),
        (["created", "existing"], ["created", "existing"]),
        (["invalid"], ["invalid"]),
        (["not_sent"], []),
        (["duplicate"], []),
        ([], []),
        (STATES, ["created", "existing", "rejected", "unknown", "invalid", "cut off"]),
    ],
)
def test_what_is_forgotten_is_sent_without_looking(path: Path, states: Any, forgotten: list[str]) -> None:
    one_of_each(path)
    before = known(path, [*STATES, "cut off"])
    with Journal(path) as journal:
        assert journal.forget(*states) == len(forgotten)
        assert journal.forget(*states) == 0
        errors = {entry.fact["content"]: entry.error for entry in journal.unfinished() if entry.fact}
        assert all(errors.get(content) is None for content in forgotten)
    assert known(path, before) == before | dict.fromkeys(forgotten, "unsent")


def test_forgetting_goes_through_a_journal_of_many_rows(path: Path) -> None:
    journal = begun(path)
    for number in range(3 * ROWS_CACHED + 1):
        batch = items(*texts(range(2 * number, 2 * number + 2)))
        sending(journal, batch)
        settle(journal, batch[:1])
    end(journal)
    with Journal(path) as journal:
        assert len(list(journal.unfinished())) == 3 * ROWS_CACHED + 1
        assert journal.forget("unknown") == 3 * ROWS_CACHED + 1
        assert journal.counts() == {SERVER: {"created": 193, "not_sent": 193}}


def test_a_misspelled_state_is_not_forgotten_in_silence(path: Path) -> None:
    wrong: Any = "creatd"
    with Journal(path) as journal, pytest.raises(ValueError, match="no state of a fact: 'creatd'"):
        journal.forget(wrong)


def test_nothing_is_forgotten_in_the_middle_of_an_import(path: Path) -> None:
    journal = begun(path)
    sending(journal, items("on the wire"))
    with pytest.raises(JournalInUseError, match="in use by an import"):
        journal.forget("unknown")
    assert journal.counts() == {SERVER: {"unknown": 1}}
    end(journal)


def test_a_forgotten_fact_is_created_again_with_its_new_id(path: Path) -> None:
    one_of_each(path)
    with Journal(path) as journal:
        journal.forget("created")
    journal = begun(path)
    recalled = recall(journal, ["created"])[0]
    assert not isinstance(recalled, str | None)
    assert recalled.memory_id is None
    (item,) = items("created")
    item.place = recalled.place
    sending(journal, [item])
    settle(journal, [item], memory_id="another")
    end(journal)
    journal = begun(path)
    recalled = recall(journal, ["created"])[0]
    assert not isinstance(recalled, str | None)
    assert (recalled.state, recalled.memory_id) == ("created", "another")
    end(journal)


def test_a_batch_may_mix_new_facts_with_those_of_many_rows_beyond_what_is_cached(path: Path) -> None:
    contents = texts(range(25 * (ROWS_CACHED + 30)))
    journal = begun(path)
    for start in range(0, len(contents), 25):
        sending(journal, items(*contents[start : start + 25]))
    end(journal)

    journal = begun(path)
    # The first and the last change are of one row, and more rows lie between than stay cached.
    some = [contents[0], *contents[25::25], contents[1]]
    batch = [*items(*some), *items("new")]
    for item in batch[:-1]:
        recalled = recall(journal, [item.fact.content])[0]
        assert not isinstance(recalled, str | None)
        item.place = recalled.place
    sending(journal, batch)
    settle(journal, batch)
    end(journal)
    found = known(path, [*contents, "new"])
    assert {content for content, state in found.items() if state == "created"} == {*some, "new"}


def test_what_could_not_be_written_leaves_no_trace(path: Path) -> None:
    journal = begun(path)
    kept, neighbour = batch = items("kept", "neighbour")
    sending(journal, batch)
    lost = items("lost one", "lost two")
    for content in ("kept", "lost one", "lost two", "late"):
        recall(journal, [content])
    database(journal).execute("PRAGMA query_only = 1")
    with pytest.raises(JournalError, match="cannot be written: attempt to write a readonly database"):
        sending(journal, [*lost, kept])
    with pytest.raises(JournalError, match="cannot be written"):
        sending(journal, lost)
    for some in ([kept], batch):
        with pytest.raises(JournalError, match="cannot be written"):
            settle(journal, some)
    assert [item.place for item in lost] == [None, None]
    database(journal).execute("PRAGMA query_only = 0")

    late = items("late")
    sending(journal, late)  # must not be taken for what was lost
    settle(journal, [*late, neighbour])
    settled(journal, [item.become("not_sent") for item in lost])
    assert journal.counts() == {SERVER: {"created": 2, "unknown": 1}}
    end(journal)
    begin(journal, SERVER)
    assert letters(journal, ["kept", "lost one", "lost two", "late"]) == {
        "kept": "doubt",
        "lost one": "nothing",
        "lost two": "nothing",
        "late": "created",
    }
    end(journal)


def test_equal_tags_are_told_apart_by_the_keys_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneTag(KeyIndex):
        def add(self, keys: bytes, first: int) -> None:
            super().add(bytes(len(keys)), first)

        def places(self, keys: bytes) -> Any:
            return super().places(bytes(len(keys)))

    monkeypatch.setattr(journal_module, "KeyIndex", OneTag)
    journal = begun(path)
    contents = texts(range(100))
    for start in range(0, 100, 20):
        batch = items(*contents[start : start + 20])
        sending(journal, batch)
        for item in batch:
            settle(journal, [item], memory_id=item.fact.content)
    end(journal)
    begin(journal, SERVER)
    for content in contents:
        recalled = recall(journal, [content])[0]
        assert not isinstance(recalled, str | None)
        assert recalled.memory_id == content
    assert recall(journal, ["a stranger"])[0] is None
    end(journal)


def test_a_journal_that_is_full_says_so(path: Path) -> None:
    journal = begun(path)
    journal._rows.last = PLACES // ROW  # as if so many rows were there
    with pytest.raises(JournalError, match="is full: it holds 134,217,728 calls"):
        sending(journal, items("one too many"))
    end(journal)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("cannot read \udcff.csv", "cannot read \udcff.csv"),  # a name that is no UTF-8
        ("refused: \x1b[2J\x07\r\nÄ", "refused:  [2J   Ä"),
        ("x" * 500, "x" * 500),
        ("x" * 20_000_000, "x" * 500 + "..."),
    ],
    ids=["no UTF-8", "escapes", "long", "too long"],
)
def test_words_are_kept_in_one_line_of_some_hundred_characters(path: Path, words: str, kept: str) -> None:
    journal = begun(path)
    batch = items("a fact")
    sending(journal, batch)
    settle(journal, batch, "rejected", error=OmiError(words))
    end(journal)
    with Journal(path) as journal:
        assert [entry.error for entry in journal.unfinished()] == [kept]
    assert path.stat().st_size < 20_000


def test_a_servers_name_may_be_any_text(path: Path) -> None:
    name = "local:/home/\udcff.db"  # of a file whose name is no UTF-8
    journal = begun(path, "http://127.0.0.1:1", server=name)
    sending(journal, items("a fact"))
    end(journal)
    with Journal(path) as journal:
        assert journal.counts() == {name: {"unknown": 1}}
        assert [entry.server for entry in journal.unfinished()] == [name]
    assert known(path, ["a fact"], name) == {"a fact": "doubt"}


# The clocks


def recalled(journal: Journal, content: str) -> Recalled:
    (found,) = recall(journal, [content])
    assert isinstance(found, Recalled)
    return found


def test_a_fact_is_remembered_with_what_the_servers_clock_was_ahead_in_its_run(path: Path) -> None:
    journal = begun(path)
    before, later, after = items("before any answer"), items("later settled"), items("after an answer")
    sending(journal, before)
    sending(journal, later)
    journal.clock_offset = 3600.0
    settle(journal, later, "unknown")
    sending(journal, after)
    end(journal)

    journal = begun(path)
    assert journal.clock_offset is None  # this run has no answer yet
    journal.clock_offset = -5.0
    offsets = [recalled(journal, item.content).clock_offset for item in (*before, *later, *after)]
    assert offsets == [None, 3600.0, 3600.0]
    (again,) = items("after an answer")
    again.place = 3 * 32
    sending(journal, [again])  # for the second time: the first is what counts
    end(journal)
    journal = begun(path)
    assert recalled(journal, "after an answer").clock_offset == 3600.0
    end(journal)


# What is forgotten in time


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time on the wall, to be set."""
    moment = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: moment[0])
    return moment


def test_what_was_settled_longer_ago_than_is_remembered_counts_as_new(path: Path, now: list[float]) -> None:
    contents = ["created", "existing", "rejected", "not sent", "unknown", "cut off"]
    journal = begun(path, remember=100)
    batch = items(*contents)
    sending(journal, batch)
    states: Any = ["created", "existing", "rejected", "not_sent", "unknown"]
    for item, state in zip(batch, states, strict=False):
        settle(journal, [item], state)
    end(journal)
    now[0] += 100
    journal = begun(path, remember=100)
    assert letters(journal, contents)["created"] == "created"
    end(journal)
    now[0] += 1
    journal = begun(path, remember=100)
    assert letters(journal, contents) == {
        **dict.fromkeys(contents[:4], "unsent"),
        **dict.fromkeys(contents[4:], "doubt"),  # they may be stored: forgotten, they would be doubled
    }
    end(journal)


def test_it_is_forgotten_to_the_second_also_while_an_import_goes_on(path: Path, now: list[float]) -> None:
    journal = begun(path, remember=100)
    for content in ("first", "second"):
        batch = items(content)
        sending(journal, batch)
        settle(journal, batch)
        now[0] += 60
    end(journal)
    now[0] -= 60
    begin(journal)
    now[0] += 41
    assert recall(journal, ["first"]) == [None]
    assert recalled(journal, "second").state == "created"
    batch = items("first")
    sending(journal, batch)
    settle(journal, batch, memory_id="another")
    assert recall(journal, ["first"]) == ["seen"]
    end(journal)
    begin(journal)
    assert recalled(journal, "first").memory_id == "another"
    end(journal)


def test_neither_file_nor_index_grows_with_what_is_forgotten(path: Path, now: list[float]) -> None:
    journal = Journal(path, remember=100)
    sizes, rows = [], []
    with journal:
        for minute in range(60):
            begin(journal)
            for batch_number in range(10):
                first = 25 * (10 * minute + batch_number)
                batch = items(*texts(range(first, first + 25)))
                sending(journal, batch)
                settle(journal, batch)
            end(journal)
            now[0] += 60
            sizes.append(path.stat().st_size)
            rows.append((len(journal._index), sum(journal.counts()[SERVER].values())))
    assert max(rows) == (500, 500)  # of two minutes: this one's, and the one that is remembered
    assert max(sizes) < 200_000


def test_without_remember_nothing_is_forgotten(path: Path, now: list[float]) -> None:
    one_of_each(path)
    before = known(path, STATES)
    now[0] += 1e9
    assert known(path, STATES) == before


def test_a_time_that_is_none_is_refused(path: Path) -> None:
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="remember must be a number of seconds, at least 0"):
            Journal(path, remember=wrong)


# Journals of earlier versions


SCHEMA_1_ROW = (
    1,
    SERVER,
    1796016602.0347543,
    bytes.fromhex(
        "7cb7f47a7df62debe9193e9843aa4ba8 7d0b0d95625150c1bd0a11242023b775 3c406566c3dc284f3ee0547af2900296"
    ),
    "crs",
    b'["mem_1",null,null]',
    (
        b'{"1":{"content":"refused","visibility":"private","tags":[],"category":"system"},'
        b'"2":{"content":"on the wire","visibility":"private","tags":[],"category":"system"}}'
    ),
    '{"1":"refused by the server: zu öde"}'.encode(),
    1660729339,
)
"""As the version before wrote it."""


def test_a_journal_of_schema_1_is_gone_on_with(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        earlier.execute("PRAGMA page_size = 1024")
        earlier.execute(f"PRAGMA application_id = {0x4F4D494A}")
        earlier.execute("PRAGMA user_version = 1")
        earlier.execute(
            "CREATE TABLE batches (id INTEGER PRIMARY KEY, server TEXT NOT NULL, sent_at REAL NOT NULL, "
            "keys BLOB NOT NULL, states TEXT NOT NULL, ids BLOB, facts BLOB, errors BLOB, "
            "checksum INTEGER NOT NULL)"
        )
        earlier.execute("PRAGMA journal_mode = WAL")
        earlier.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", SCHEMA_1_ROW)
    for _ in range(2):
        assert known(path, ["stored", "refused", "on the wire"]) == {
            "stored": "created",
            "refused": "rejected",
            "on the wire": "doubt",
        }
    journal = begun(path, remember=1.0)  # when it was settled is not known, so it is kept
    assert recalled(journal, "stored").memory_id == "mem_1"
    assert recalled(journal, "refused").words == "refused by the server: zu öde"
    assert recalled(journal, "on the wire").clock_offset is None
    end(journal)


def test_tags_and_categories_are_kept_for_unfinished(path: Path) -> None:
    fact = Fact("Ünïcode ☃", tags=["a", "b"], visibility="public")
    journal = begun(path)
    sending(journal, [Item(0, fact_payload(fact), fact)])
    end(journal)
    with Journal(path) as journal:
        (entry,) = journal.unfinished()
    assert entry.fact == {"content": "Ünïcode ☃", "visibility": "public", "tags": ["a", "b"]}
    assert Fact(**entry.fact) == fact


def test_an_item_that_was_never_about_to_be_sent_needs_no_line(path: Path) -> None:
    journal = begun(path)
    settle(journal, items("never sent"), "not_sent")
    assert journal.counts() == {}
    end(journal)


def test_only_one_import_at_a_time_may_begin(path: Path) -> None:
    journal = begun(path)
    with pytest.raises(JournalInUseError, match="in use by another import of this process"):
        begin(journal, SERVER)
    recall(journal, ["still open"])
    end(journal)
    end(journal)  # twice is fine
    assert not journal.is_open
    with Journal(path):  # it was let go of
        pass
    begin(journal, SERVER)
    end(journal)


def test_a_journal_that_was_open_stays_open(path: Path) -> None:
    with Journal(path) as journal:
        begin(journal, SERVER)
        end(journal)
        assert journal.is_open
        journal.open()  # twice is fine
    journal.close()  # twice is fine
    assert not journal.is_open


def test_an_import_that_could_not_open_its_journal_does_not_block_the_next(path: Path) -> None:
    path.write_text("foreign")
    journal = Journal(path)
    for _ in range(2):
        with pytest.raises(JournalError, match="no journal of omi_async"):
            begin(journal, SERVER)
    path.unlink()
    begin(journal, SERVER)
    end(journal)


def test_a_closed_journal_says_that_it_is_closed(path: Path) -> None:
    journal = begun(path)
    batch = items("a fact")
    sending(journal, batch)
    journal.close()
    for use in (
        lambda: sending(journal, items("another")),
        lambda: settle(journal, batch),
        lambda: recall(journal, ["a fact"]),
        journal.counts,
        lambda: list(journal.unfinished()),
    ):
        with pytest.raises(JournalError, match="is not open"):
            use()
    end(journal)
    with pytest.raises(JournalError, match="is not open"):
        journal.forget("unknown")


def test_a_row_that_vanishes_is_told(path: Path) -> None:
    journal = begun(path)
    sending(journal, items("a fact"))
    journal._rows.forget_cached()
    database(journal).execute("DELETE FROM batches")
    with pytest.raises(JournalError, match="row 1 is missing"):
        recall(journal, ["a fact"])
    end(journal)


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_durability_is_what_sqlite_is_told(path: Path, durability: Any) -> None:
    for _ in range(2):  # made, and opened again
        with Journal(path, durability=durability) as journal:
            assert database(journal).execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert database(journal).execute("PRAGMA synchronous").fetchone() == (
                {"normal": 1, "full": 2}[durability],
            )


def test_another_durability_is_refused(path: Path) -> None:
    wrong: Any = "extra"
    with pytest.raises(ValueError, match="'normal' or 'full', not 'extra'"):
        Journal(path, durability=wrong)


def test_its_repr_names_the_file(path: Path) -> None:
    assert repr(Journal(path)) == f"<omi_async.Journal {str(path)!r}>"


def test_sqlite_keeps_no_transaction_open_after_an_error(path: Path) -> None:
    journal = begun(path)
    with pytest.raises(KeyError), journal._rows.transaction():
        raise KeyError
    assert not database(journal).in_transaction
    with pytest.raises(sqlite3.ProgrammingError, match="closed"), journal._rows.transaction():
        database(journal).close()
    assert isinstance(database(journal), sqlite3.Connection)
    end(journal)


def test_of_what_is_safely_stored_neither_text_nor_trouble_is_kept(path: Path) -> None:
    journal = begun(path)
    batch = items("one", "two")
    sending(journal, batch)
    settle(journal, batch, "unknown", error=OmiError("the answer was lost"))
    settle(journal, batch[:1])
    assert [(entry.fact or {})["content"] for entry in journal.unfinished()] == ["two"]
    settle(journal, batch[1:], "existing", memory_id="memory")
    assert database(journal).execute("SELECT facts, errors FROM batches").fetchall() == [(None, None)]
    end(journal)


@pytest.mark.parametrize(
    "damage",
    [
        "server = CAST(server AS BLOB)",
        "sent_at = CAST(sent_at AS TEXT)",
        "facts = NULL",
        "errors = x''",
        "states = states || 'c'",
        "id = 2",
        "checksum = 0",
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_refused(path: Path, damage: str) -> None:
    one_of_each(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"UPDATE batches SET {damage}")
    with pytest.raises(JournalError, match=r"row \d is damaged. It was not overwritten"):
        Journal(path).open()
