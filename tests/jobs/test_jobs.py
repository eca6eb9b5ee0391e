"""Background imports in one process, over real HTTP; hours pass on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import io
import json
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from omi_async import (
    Fact,
    ImportJob,
    ImportJobs,
    ImportStoppedError,
    InputTooLargeError,
    JobSnapshot,
    Session,
)
from omi_async.jobs.options import JobOptions
from omi_async.local import FOREVER, Fault, LocalServer, Quota
from omi_async.resources.memories import Memories
from omi_async.sources import open_facts
from tests.clock import elapsed

pytestmark = pytest.mark.virtual_clock

HOURLY = Quota("batches", 4, 3600, ("batch",))


def texts(count: int) -> list[str]:
    return [f"fact {number}" for number in range(count)]


def facts(count: int) -> list[dict[str, str]]:
    return [{"content": text, "category": "work"} for text in texts(count)]


@attrs.define
class App:
    """A server, a Session, and the jobs of a folder, which can be left and opened again."""

    server: LocalServer
    session: Session
    folder: Path

    def jobs(self, **options: Any) -> ImportJobs:
        return ImportJobs(self.folder, lambda _owner: self.session, **options)


@asynccontextmanager
async def app(folder: Path, **options: Any) -> AsyncIterator[App]:
    async with (
        LocalServer(**{"text_identity": False} | options) as server,
        Session(server.api_key, base_url=server.url) as session,
    ):
        yield App(server, session, folder / "jobs")


async def until(condition: Callable[[], object], job: ImportJob) -> None:
    async for _ in job.watch():
        if condition():
            return


def state_is(job: ImportJob, state: str) -> Callable[[], bool]:
    return lambda: job.snapshot.state == state


def kept(folder: Path) -> set[str]:
    """The jobs of a folder, half ones too; and not where processes sit."""
    return {path.name for path in folder.iterdir() if path.name != ".seats"}


# Inputs


class Part:
    """A part of a form in aiohttp: its `read` takes no size, and gives the whole."""

    filename = "facts.csv"

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, *, decode: bool = False) -> bytes:
        raise AssertionError(f"a whole upload in memory, {decode=}")

    async def read_chunk(self, size: int = 8192) -> bytes:
        return self._file.read(size)


class Upload:
    """What web frameworks hand over: an awaited `read`."""

    filename = "../../etc/facts.csv"

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int = -1) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(size)


CSV = b"content,category\n" + b"".join(f"fact {number},work\n".encode() for number in range(30))


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for place in range(0, len(data), 7):
        yield data[place : place + 7]


async def stream() -> AsyncIterator[dict[str, str]]:
    for fact in facts(30):
        yield fact


def written(folder: Path) -> Path:
    path = folder / "facts.csv"
    path.write_bytes(CSV)
    return path


def _row(text: str) -> sqlite3.Row:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        row: sqlite3.Row = connection.execute("SELECT ? AS content, 'work' AS category", (text,)).fetchone()
        return row


SOURCES: dict[str, Callable[[Path], Any]] = {
    "a path": written,
    "the name of a path": lambda folder: str(written(folder)),
    "bytes": lambda _: CSV,
    "a binary file": lambda _: io.BytesIO(CSV),
    "an upload": lambda _: Upload(CSV),
    "a part of a form": lambda _: Part(CSV),
    "a stream of bytes": lambda _: pieces(CSV),
    "mappings": lambda _: facts(30),
    "a generator of Facts": lambda _: (Fact(text, category="work") for text in texts(30)),
    "a stream of facts": lambda _: stream(),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_an_input_may_be_anything(tmp_path: Path, kind: str) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        job = await jobs.start("dana", SOURCES[kind](tmp_path))
        report = await job.result()
        assert (report.created, report.ok, report.complete) == (30, True, True)
        assert (job.snapshot.state, job.snapshot.expected, job.snapshot.percent) == ("done", 30, 100.0)
        it.server.assert_each_stored_once(texts(30))
    assert {path.name for path in (it.folder / job.id / "input").iterdir()} <= {
        "facts.csv",
        "facts.jsonl",
        "input",
    }


async def test_what_is_no_fact_is_invalid_and_says_where_it_stood(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        job = await jobs.start("dana", ["good", " ", "\ud800", {"content": 3}, {"text": "also good"}])
        report = await job.result()
        assert (report.created, report.invalid) == (2, 3)
        assert [outcome.origin for outcome in report.failures] == [f"facts.jsonl:{n}" for n in (2, 3, 4)]
        named = await jobs.start("dana", b"content,category\n,work\n", name="mine.csv")
        assert {failure.place for failure in (await named.result()).failures} == {"mine.csv:2"}


RECORDS: dict[str, Any] = {
    "an empty cell of a frame": {"content": "a", "category": float("nan"), "score": float("inf")},
    "columns that JSON knows not": {"content": "a", "at": datetime.now(UTC), "id": uuid4(), "n": Decimal(1)},
    "a set of tags": {"content": "a", "tags": {"x"}},
    "a tuple of tags": {"content": "a", "tags": ("x", "y")},
    "a row of a database": _row("a"),
    "a date for a text": {"content": datetime.now(UTC)},
    "bytes for a text": {"content": b"a"},
    "an object for a category": {"content": "a", "category": object()},
    "a number": 3,
}


@pytest.mark.parametrize("kind", RECORDS)
async def test_a_fact_of_a_job_is_what_an_import_would_make_of_it(tmp_path: Path, kind: str) -> None:
    # Catches: rows of a database, which an import takes, refused or changed on their way through the file.
    async with app(tmp_path) as it, it.jobs() as jobs:
        other = it.server.add_account()
        async with Session(other, base_url=it.server.url) as session:
            imported = await session.memories.import_facts([RECORDS[kind]])
        report = await (await jobs.start("dana", [RECORDS[kind]])).result()
        assert (report.created, report.invalid) == (imported.created, imported.invalid)
        fields = ("content", "category", "visibility", "tags")
        mine, theirs = (
            [[memory[field] for field in fields] for memory in it.server.memories(key)]
            for key in (it.server.api_key, other)
        )
        assert mine == theirs


async def test_an_empty_input_is_done_at_once(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        job = await jobs.start("dana", [])
        assert (await job.result()).pulled == 0
        assert job.snapshot.percent == 100.0
        assert len(it.server.requests) == 0


@pytest.mark.parametrize("source", [b"x" * 101, ["x" * 101], Upload(b"x" * 101), pieces(b"x" * 101)])
async def test_an_input_is_bounded(tmp_path: Path, source: Any) -> None:
    async with app(tmp_path) as it, it.jobs(max_bytes=100) as jobs:
        with pytest.raises(InputTooLargeError, match="more than 100 bytes"):
            await jobs.start("dana", source, "large")
        assert kept(it.folder) == set()
        with pytest.raises(KeyError):
            jobs["large"]


class Frame:
    """A table, which iterates over the names of its columns."""

    columns = ("content",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class TextUpload:
    async def read(self, _size: int) -> str:
        return "a"


@pytest.mark.parametrize(
    "source",
    [
        3,
        None,
        {"content": "a mapping is one fact"},
        [object()],
        Frame(),
        # Read as if they were facts, they would fill the disk: a text has no end that is b"".
        io.StringIO('{"content": "a"}'),
        TextUpload(),
        [b"bytes", {"content": "and a fact"}],
        [{"content": "a fact"}, b"and bytes"],
    ],
)
async def test_what_can_be_no_input_is_refused(tmp_path: Path, source: Any) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(TypeError):
            await jobs.start("dana", source)
        assert kept(it.folder) == set()


async def test_a_source_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise OSError("the disk is gone")

    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(OSError, match="the disk is gone"):
            await jobs.start("dana", broken())
        assert kept(it.folder) == set()


async def test_the_loop_is_not_blocked_by_the_input(tmp_path: Path) -> None:
    threads = set()

    def slow() -> Iterator[str]:
        threads.add(threading.get_ident())
        yield "a"

    async with app(tmp_path) as it, it.jobs() as jobs:
        await (await jobs.start("dana", slow())).result()
    assert threading.get_ident() not in threads


async def test_leaving_lets_go_of_an_input_that_is_still_coming(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"half a fa"
        await asyncio.Event().wait()

    async with app(tmp_path) as it:
        async with it.jobs() as jobs:
            starting = asyncio.create_task(jobs.start("dana", endless(), "mine"))
            await asyncio.sleep(1)
            assert list(it.folder.rglob("input/*"))
        with pytest.raises(RuntimeError, match="the app ends"):
            await starting
        assert kept(it.folder) == set()
        async with it.jobs() as jobs:
            assert (await (await jobs.start("dana", facts(1), "mine")).result()).created == 1


async def test_a_request_that_has_gone_leaves_no_input_and_no_noise(tmp_path: Path) -> None:
    gone, told = asyncio.Event(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    async def cut() -> AsyncIterator[bytes]:
        yield b"half a fa"
        await gone.wait()
        raise OSError("the client has gone")

    async with app(tmp_path) as it, it.jobs() as jobs:
        request = asyncio.create_task(jobs.start("dana", cut()))
        await asyncio.sleep(1)
        request.cancel()
        await asyncio.wait({request})
        gone.set()
        await asyncio.sleep(1)
        assert kept(it.folder) == set()
    gc.collect()
    assert told == []


# Ids and options


async def test_an_id_makes_a_request_repeatable(tmp_path: Path) -> None:
    def untouched() -> Iterator[str]:
        yield pytest.fail("a repeated request is not read")

    async with app(tmp_path) as it, it.jobs() as jobs:
        job, same = await asyncio.gather(*(jobs.start("dana", facts(3), "order-1") for _ in range(2)))
        assert job is same is jobs["order-1"] is await jobs.start("dana", untouched(), "order-1")
        with pytest.raises(ValueError, match="another owner"):
            await jobs.start("eve", facts(3), "order-1")
        await job.result()
        assert await jobs.start("dana", untouched(), "order-1") is job
        it.server.assert_each_stored_once(texts(3))


@pytest.mark.parametrize("id", ["", "../up", "a/b", "a" * 65, "a b", "."])
async def test_an_id_names_a_folder_and_no_other(tmp_path: Path, id: str) -> None:  # noqa: A002
    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(ValueError, match="id"):
            await jobs.start("dana", facts(1), id)
        with pytest.raises(KeyError):
            jobs[id]


async def test_an_unknown_option_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(TypeError, match="no option speed"):
            await jobs.start("dana", facts(1), speed=3)  # type: ignore[call-arg]
        assert kept(it.folder) == set()


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"lanes": "fast"},
        {"format": "xml"},
        {"defaults": {"visibility": "secret"}},
        {"max_wait": float("inf")},
        {"encoding": "\ud800"},
    ],
)
async def test_what_an_import_would_refuse_is_refused_at_the_start(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(ValueError):  # noqa: PT011  # each has words of its own
            await jobs.start("dana", facts(1), **options)
        assert kept(it.folder) == set()


def test_a_job_takes_what_an_import_takes() -> None:
    # Catches: an option of imports that nobody thought of when it was added.
    importing = inspect.signature(Memories.import_facts).parameters.keys() - {"self", "facts"}
    of_the_job = {"journal", "dedupe", "flush_after", "on_outcome", "on_progress"}
    reading = inspect.signature(open_facts).parameters.keys() - {"path_or_stdin", "name"}
    assert JobOptions.__annotations__.keys() == (importing - of_the_job) | reading


@pytest.mark.parametrize(("owner", "error"), [("\ud800", ValueError), (None, TypeError), (7, TypeError)])
async def test_an_owner_is_a_string_that_can_be_written_down(
    tmp_path: Path, owner: Any, error: type[Exception]
) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        with pytest.raises(error, match="the owner of a job"):
            await jobs.start(owner, facts(1))
        assert kept(it.folder) == set()


async def test_options_reach_the_reading_and_the_import(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.add("a")
        job = await jobs.start(
            "dana",
            b"note;kind\na;x\nb;x\nb;x\n",
            format="csv",
            mapping={"content": "note"},
            defaults={"category": "hobbies"},
            skip_existing=True,
            concurrency=1,
        )
        report = await job.result()
        assert (report.existing, report.created, report.duplicate) == (1, 1, 1)
        assert {memory["category"] for memory in it.server.memories() if memory["content"] == "b"} == {
            "hobbies"
        }


async def test_jobs_are_opened_first(tmp_path: Path) -> None:
    jobs = ImportJobs(tmp_path / "jobs", lambda _: pytest.fail("no session is asked for"))
    with pytest.raises(RuntimeError, match="async with"):
        await jobs.start("dana", facts(1))
    with pytest.raises(ValueError, match="running"):
        ImportJobs(tmp_path, lambda _: pytest.fail("none"), running=0)


async def test_a_session_may_be_awaited(tmp_path: Path) -> None:
    async with app(tmp_path) as it:

        async def session_for(owner: str) -> Session:
            assert owner == "dana"
            return it.session

        async with ImportJobs(it.folder, session_for) as jobs:
            assert (await (await jobs.start("dana", facts(1))).result()).created == 1


# Watching


async def test_watching_shows_the_way_to_the_end(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.slow(5), on="batch", times=FOREVER)
        job = await jobs.start("dana", facts(250), concurrency=1)
        seen = [snapshot async for snapshot in job.watch()]
    assert seen[0].state == "waiting"
    assert [snapshot.state for snapshot in seen[1:-1]] == ["running"] * len(seen[1:-1])
    assert (seen[-1].state, seen[-1].report.created) == ("done", 250)
    percents = [snapshot.percent for snapshot in seen if snapshot.percent is not None]
    assert percents == sorted(percents)
    assert any(0 < percent < 100 for percent in percents)
    assert any(snapshot.eta is not None for snapshot in seen)
    assert seen[-1] == job.snapshot


async def test_a_slow_watcher_gets_the_latest_only(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.slow(1), on="batch", times=FOREVER)
        job = await jobs.start("dana", facts(500), concurrency=1)
        seen: list[JobSnapshot] = []
        async for snapshot in job.watch():
            seen.append(snapshot)
            await job.result()  # busy with something else for as long as the whole import takes
    assert len(seen) <= 2
    assert seen[-1].state == "done"


async def test_a_snapshot_is_ready_for_json_and_stays_as_it_was(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        job = await jobs.start("dana", ["a", ""])
        before = job.snapshot
        await job.result()
        assert before.report.pulled == 0
        event = json.loads(json.dumps(job.snapshot.to_dict()))
    assert (event["owner"], event["state"], event["percent"]) == ("dana", "done", 100.0)
    assert event["report"] == job.snapshot.report.to_dict()
    assert event["report"]["created"] == 1
    assert event["report"]["failures"][0]["state"] == "invalid"


async def test_a_failed_fact_is_kept_whole_for_the_next_process(tmp_path: Path) -> None:
    fact = Fact("a", category="work", visibility="public", tags=("x",), origin="here")
    async with app(tmp_path) as it:
        it.server.faults.add(Fault.poison("a"))
        async with it.jobs() as jobs:
            report = await (await jobs.start("dana", [fact], "mine")).result()
        async with it.jobs() as jobs:
            assert jobs["mine"].snapshot.report.to_dict() == report.to_dict()
    assert [attrs.evolve(outcome.fact, origin="here") for outcome in report.failures if outcome.fact] == [
        fact
    ]


# Waiting


async def test_a_job_waits_for_hours_and_holds_nothing_meanwhile(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    async with app(tmp_path, quotas=[HOURLY]) as it, it.jobs() as jobs:
        job = await jobs.start("dana", facts(250))
        await until(state_is(job, "waiting"), job)
        await until(state_is(job, "running"), job)
        await until(state_is(job, "waiting"), job)
        await asyncio.sleep(600)
        assert [name for name in open_files() if name.endswith(("journal", ".jsonl"))] == []
        assert job.snapshot.error == "waits for a quota window"
        assert job.snapshot.eta is not None
        report = await job.result()
        assert (report.created, report.ok) == (250, True)
        assert report.requests >= 10
        assert elapsed(began) > 2 * 3600
        it.server.assert_each_stored_once(texts(250))


def open_files() -> set[str]:
    """The files that this process has open, as far as the system says."""
    names = set()
    for entry in Path("/proc/self/fd").iterdir() if Path("/proc").exists() else ():
        with contextlib.suppress(OSError):
            names.add(str(entry.readlink()))
    return names


async def test_a_hundred_jobs_of_fifty_owners_take_turns(tmp_path: Path) -> None:
    async with LocalServer(quotas=[Quota("batches", 2, 3600, ("batch",))], text_identity=False) as server:
        keys = {f"owner {number}": server.add_account() for number in range(50)}
        sessions = {owner: Session(key, base_url=server.url) for owner, key in keys.items()}
        async with ImportJobs(tmp_path / "jobs", sessions.__getitem__) as jobs:
            for number in range(2):
                for owner in keys:
                    await jobs.start(owner, [f"{owner}, {number}, {n}" for n in range(30)])
            await asyncio.sleep(60)
            states = [job.snapshot.state for owner in keys for job in jobs.of(owner)]
            assert len(states) == 100
            assert states.count("running") == 0
            assert states.count("waiting") > 30
            assert threading.active_count() < 50
            reports = [await job.result() for owner in keys for job in jobs.of(owner)]
            assert all(report.ok for report in reports)
        for owner, key in keys.items():
            wanted = [f"{owner}, {number}, {n}" for number in range(2) for n in range(30)]
            server.assert_each_stored_once(wanted, account=key)
        for session in sessions.values():
            await session.close()


async def test_no_more_jobs_run_at_once_than_are_allowed_and_one_of_each_owner(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs(running=2) as jobs:
        it.server.faults.add(Fault.slow(10), on="batch", times=FOREVER)
        started = [await jobs.start(owner, facts(50)) for owner in "aaabbbccc"]
        running: list[list[str]] = []
        while not all(job.snapshot.finished for job in started):
            running.append([job.owner for job in started if job.snapshot.state == "running"])
            await asyncio.sleep(1)
    assert max(map(len, running)) == 2
    assert all(len(set(owners)) == len(owners) for owners in running)


async def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.answer(503, "Canonical memory unavailable"), times=FOREVER)
        job = await jobs.start("dana", facts(30))
        await until(lambda: job.snapshot.state == "waiting" and job.snapshot.error, job)
        it.server.faults.clear()
        assert (await job.result()).created == 30
        it.server.assert_each_stored_once(texts(30))


async def test_an_outage_without_an_end_fails_the_job_and_it_can_be_resumed(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.answer(503, "Canonical memory unavailable"), times=FOREVER)
        job = await jobs.start("dana", facts(30))
        with pytest.raises(ImportStoppedError):
            await job.result()
        assert job.snapshot.state == "failed"
        it.server.faults.clear()
        assert await jobs.resume() == []  # it is finished, if badly
        assert await jobs.resume(job.id) == [job]
        assert (await job.result()).created == 30
        it.server.assert_each_stored_once(texts(30))


async def test_max_wait_bounds_all_waits_of_a_job(tmp_path: Path) -> None:
    async with app(tmp_path, quotas=[HOURLY]) as it, it.jobs() as jobs:
        job = await jobs.start("dana", facts(500), max_wait=4000)
        report = await job.result()
        assert job.snapshot.state == "stopped"
        assert "max_wait" in str(job.snapshot.error)
        assert report.resume_at is not None
        assert 100 < report.created < 500


# Failing


async def test_a_refused_key_fails_the_job_at_once(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.answer(401, "Invalid API Key"), times=FOREVER)
        job = await jobs.start("dana", facts(30))
        with pytest.raises(ImportStoppedError, match="Invalid API Key") as error:
            await job.result()
        assert error.value.report.not_sent == 30
        assert job.snapshot.state == "failed"


async def test_an_app_without_a_session_for_the_owner_fails_the_job(tmp_path: Path) -> None:
    async with app(tmp_path) as it:
        sessions: dict[str, Session] = {}
        async with ImportJobs(it.folder, sessions.__getitem__) as jobs:
            job = await jobs.start("dana", facts(3))
            with pytest.raises(ImportStoppedError, match="dana"):
                await job.result()
            sessions["dana"] = it.session
            await jobs.resume(job.id)
            assert (await job.result()).created == 3


async def test_an_input_that_cannot_be_read_fails_the_job(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        job = await jobs.start("dana", b'[{"content": "a"}, {"content": ', format="json")
        with pytest.raises(ImportStoppedError):
            await job.result()
        assert job.snapshot.state == "failed"
        assert "input" in str(job.snapshot.error)


async def test_facts_in_doubt_are_looked_for_again_before_a_job_is_done(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        # The answer is lost, and the list cannot be read for longer than one import looks.
        it.server.faults.add(Fault.after_all(), on="batch")
        it.server.faults.add(Fault.html(502), on="list", times=FOREVER)
        job = await jobs.start("dana", facts(10))
        await until(lambda: job.snapshot.state == "waiting" and job.snapshot.report.unknown, job)
        assert "in doubt" in str(job.snapshot.error)
        it.server.faults.clear()
        report = await job.result()
        assert (report.unknown, report.created + report.existing, job.snapshot.state) == (0, 10, "done")
        it.server.assert_each_stored_once(texts(10))


async def test_a_job_with_facts_in_doubt_is_not_done(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.after_all(), on="batch")
        job = await jobs.start("dana", facts(10), on_unknown="report")
        with pytest.raises(ImportStoppedError, match="10 facts are in doubt"):
            await job.result()
        assert job.snapshot.state == "failed"


# Stopping, leaving, resuming


async def test_a_job_is_stopped_and_resumed(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        it.server.faults.add(Fault.slow(10), on="batch", times=3)
        job = await jobs.start("dana", facts(250), concurrency=1)
        await until(lambda: job.snapshot.report.created, job)
        snapshot = await job.stop()
        assert (snapshot.state, job.snapshot.state) == ("stopped", "stopped")
        assert 0 < (await job.result()).created < 250
        assert (await job.stop()).state == "stopped"
        assert await jobs.resume() == []
        assert await jobs.resume(job.id) == [job]
        assert (await job.result()).created == 250
        it.server.assert_each_stored_once(texts(250))


async def test_a_job_that_waits_is_stopped_at_once(tmp_path: Path) -> None:
    async with app(tmp_path, quotas=[HOURLY]) as it, it.jobs() as jobs:
        job = await jobs.start("dana", facts(250))
        await until(lambda: job.snapshot.error == "waits for a quota window", job)
        before = asyncio.get_running_loop().time()
        assert (await job.stop()).state == "stopped"
        assert elapsed(before) < 1


async def test_the_next_process_goes_on(tmp_path: Path) -> None:
    async with app(tmp_path) as it:
        it.server.faults.add(Fault.slow(10), on="batch", times=FOREVER)
        async with it.jobs() as jobs:
            job = await jobs.start("dana", facts(250), concurrency=1)
            queued = await jobs.start("dana", ["queued"])
            await until(lambda: job.snapshot.report.created, job)
            waiting = asyncio.create_task(job.result())
            watching = asyncio.create_task(_all_of(job))
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="resumed"):
            await waiting
        assert (await watching)[-1].state == "waiting"
        assert 0 < len(it.server.memories()) < 250
        async with it.jobs() as jobs:
            assert [jobs[job.id].snapshot.state, jobs[queued.id].snapshot.state] == ["waiting", "waiting"]
            resumed = await jobs.resume()
            assert {job.id for job in resumed} == {job.id, queued.id}
            assert [(await job.result()).ok for job in resumed] == [True, True]
            assert await jobs.resume() == []
        async with it.jobs() as jobs:
            kept = jobs[job.id].snapshot
            assert (kept.state, kept.report.created, kept.percent) == ("done", 250, 100.0)
            assert await jobs.resume() == []
        it.server.assert_each_stored_once([*texts(250), "queued"])


async def _all_of(job: ImportJob) -> list[JobSnapshot]:
    return [snapshot async for snapshot in job.watch()]


async def test_two_apps_on_one_folder_never_share_a_job(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as first, it.jobs() as second:
        it.server.faults.add(Fault.slow(10), on="batch", times=FOREVER)
        job = await first.start("dana", facts(100), concurrency=1)
        other = await second.start("dana", ["of the second"])
        assert await second.resume() == await first.resume() == []
        seen = second[job.id]
        assert await second.start("dana", ["not read"], job.id) is seen
        with pytest.raises(RuntimeError, match="another process"):
            await seen.stop()
        with pytest.raises(RuntimeError, match="another process"):
            await second.forget(job.id)
        snapshots = await _all_of(seen)
        assert snapshots[-1].state == "done"
        assert (await seen.result()).created == 100
        await other.result()
        assert {job.id for job in first.of("dana")} == {job.id, other.id}
        it.server.assert_each_stored_once([*texts(100), "of the second"])


async def test_a_job_is_forgotten_with_all_that_it_holds(tmp_path: Path) -> None:
    async with app(tmp_path, quotas=[HOURLY]) as it, it.jobs() as jobs:
        job = await jobs.start("dana", facts(250), "mine")
        await until(state_is(job, "waiting"), job)
        await jobs.forget("mine")
        assert kept(it.folder) == set()
        assert jobs.of("dana") == []
        with pytest.raises(KeyError):
            await jobs.forget("mine")
        assert (await jobs.start("dana", facts(1), "mine")) is not job


async def test_what_a_killed_process_left_half_done_is_no_job(tmp_path: Path) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs:
        (it.folder / "spooling").mkdir()
        (it.folder / "broken").mkdir()
        (it.folder / "broken" / "job.json").write_text('{"id": "broken"')
        assert await jobs.resume() == []
        with pytest.raises(KeyError):
            jobs["spooling"]
        job = await jobs.start("dana", facts(1), "spooling")
        assert (await job.result()).created == 1


async def test_what_a_killed_process_copied_is_deleted_and_what_is_being_copied_is_not(
    tmp_path: Path,
) -> None:
    async with app(tmp_path) as it, it.jobs() as jobs, it.jobs() as others:
        job = await jobs.start("dana", facts(1), "job")
        await job.result()
        coming = asyncio.Event()

        async def slow() -> AsyncIterator[str]:
            yield "a"
            await coming.wait()

        starting = asyncio.create_task(jobs.start("dana", slow(), "coming"))
        await asyncio.sleep(1)
        (it.folder / "killed" / "input").mkdir(parents=True)
        (it.folder / "killed" / "input" / "facts.jsonl").write_text("half")
        (it.folder / "killed" / "seat.7").touch()
        (it.folder / ".job-half-deleted").mkdir()
        (it.folder / "fresh").mkdir()
        (it.folder / "fresh" / "seat.7").touch()
        for name in ("job", "coming", "killed", ".job-half-deleted"):
            os.utime(it.folder / name, (0, 0))
        await others.resume()
        assert kept(it.folder) == {"job", "coming", "fresh"}
        with pytest.raises(RuntimeError, match="another process is copying"):
            await others.start("dana", facts(1), "coming")
        coming.set()
        assert (await (await starting).result()).created == 1


def test_what_is_no_job_is_left_alone(tmp_path: Path) -> None:
    # Catches: an app that was given its project's folder for the jobs, and deletes the project.
    for name in (".git", "src", "src/input"):
        (tmp_path / name).mkdir()
    (tmp_path / "src" / "input" / "a.txt").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (0, 0))

    async def resume() -> None:
        async with ImportJobs(tmp_path, lambda _: pytest.fail("no job")) as jobs:
            await jobs.resume()
            with pytest.raises(RuntimeError, match="another process"):
                await jobs.start("dana", facts(1), "src")

    asyncio.run(resume())
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        *(".git", "src", "src/input", "src/input/a.txt", "README.md", ".seats", ".seats/0")
    }


async def test_the_files_are_the_owners_and_hold_no_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with app(tmp_path) as it, it.jobs() as jobs:
            job = await jobs.start("dana", facts(30))
            await job.result()
            paths = [it.folder, *it.folder.rglob("*")]
            assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
            assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
            key = it.server.api_key
            assert all(key.encode() not in path.read_bytes() for path in paths if path.is_file())
            assert all(key not in repr(thing) for thing in (jobs, job, job.snapshot))
    finally:
        os.umask(before)


# Facts that the account holds with other tags


@pytest.mark.parametrize(("on_existing", "kept", "added"), [("keep", 150, 0), ("add-tags", 0, 150)])
async def test_tags_are_counted_over_all_windows(
    tmp_path: Path, on_existing: Any, kept: int, added: int
) -> None:
    updates = Quota("memories", 60, 3600, ("update",))
    async with app(tmp_path, quotas=[HOURLY, updates], text_identity=True) as it, it.jobs() as jobs:
        it.server.add(*texts(150), tags=["mine"], created_at="2026-01-02T03:04:05Z")
        given = [fact | {"tags": ["new"]} for fact in facts(160)]
        job = await jobs.start("dana", given, on_existing=on_existing)
        report = await job.result()
        assert (report.created, report.existing) == (10, 150)
        assert (report.other_tags, report.tags_added, report.tags_error) == (kept, added, None)
        tags = {tuple(memory["tags"]) for memory in it.server.memories()}
        assert tags == {("new",), ("mine", "new") if added else ("mine",)}
        assert jobs[job.id].snapshot.to_dict()["report"]["tags_added"] == added
