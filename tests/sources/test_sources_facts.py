"""The thread between a file and an event loop."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Never

import pytest

from omi_async import Fact, OmiError
from omi_async.sources import Facts, SourceError, _facts, _streams, open_facts
from omi_async.sources._streams import Stop

MANY = 20_000


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"content": "fact {number}"}}\n' for number in range(MANY)))
    return path


@pytest.fixture(autouse=True)
def _no_thread_and_no_descriptor_stays_behind() -> Iterator[None]:
    before = _descriptors()
    yield
    for thread in threading.enumerate():
        if thread.name == "omi_async.sources":
            thread.join(5)
            assert not thread.is_alive()
    assert _descriptors() == before


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir holds it open for longer


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110 - see below
            await asyncio.sleep(0)  # the thread tells the loop of its batches, and of nothing else


async def collect(place: Any, **options: Any) -> list[str]:
    return [item.content async for item in open_facts(place, **options) if isinstance(item, Fact)]


async def test_a_file_to_its_end_by_path_and_text_path(many) -> None:
    expected = [f"fact {number}" for number in range(MANY)]
    assert await collect(many) == expected
    assert await collect(str(many)) == expected
    assert threading.active_count() == 1 or not _reading()


def _reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "omi_async.sources"]


async def test_the_origin_names_the_file_as_it_was_given(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x\n")
    for given in ("a.txt", "./a.txt", str(tmp_path / "a.txt")):
        async for fact in open_facts(given):
            assert fact.origin == f"{given}:1"


async def test_the_end_stays_the_end(many) -> None:
    facts = open_facts(many)
    async for _ in facts:
        pass
    with pytest.raises(StopAsyncIteration):
        await anext(facts)
    await facts.aclose()


async def test_leaving_early_stops_the_thread(many) -> None:
    async with open_facts(many) as facts:
        assert isinstance(await anext(facts), Fact)
        assert _reading()
    assert not _reading()
    with pytest.raises(StopAsyncIteration):
        await anext(facts)
    await facts.aclose()


async def test_a_dropped_iteration_stops_the_thread(many) -> None:
    async for _ in open_facts(many):
        break
    gc.collect()
    for thread in _reading():
        await asyncio.to_thread(thread.join, 5)
    assert not _reading()


async def test_closing_what_was_never_opened_opens_nothing() -> None:
    facts = open_facts("/no/such/file")
    await facts.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(facts)


async def test_the_reader_does_not_run_ahead(many, monkeypatch) -> None:
    batches = 0
    read = _streams.chunks_of

    def counting(stream: Any, stop: Any) -> Iterator[bytes]:
        nonlocal batches
        for chunk in read(stream, stop):
            batches += 1
            yield chunk

    monkeypatch.setattr("omi_async.sources._source.chunks_of", counting)
    async with open_facts(many) as facts:
        await anext(facts)
        await until(lambda: facts._bridge is not None and len(facts._bridge._ready) == _facts.AHEAD)
        assert batches <= _facts.AHEAD + 2


async def test_others_get_their_turn(many) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await collect(many)
    task.cancel()
    assert turns >= MANY // 500


async def test_the_loop_gets_its_turns_while_the_reader_finds_nothing(tmp_path) -> None:
    """Else the reader would take the interpreter back before the loop wakes up, chunk after chunk."""
    path = tmp_path / "blank.jsonl"
    path.write_bytes(b"\n" * 50 * _streams.CHUNK + b'{"content": "a"}\n')
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async with open_facts(path) as facts:
        assert [fact async for fact in facts] == [Fact("a")]
    counting.cancel()

    assert turns >= 50


async def test_a_reader_that_finds_nothing_ends_with_its_loop(tmp_path) -> None:
    path = tmp_path / "blank.jsonl"
    path.write_bytes(b"\n" * 50 * _streams.CHUNK)
    facts = open_facts(path)
    waiting = asyncio.create_task(anext(facts))
    await asyncio.sleep(0)
    await facts.aclose()

    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_two_consumers_share_the_facts(many) -> None:
    async with open_facts(many) as facts:

        async def consume() -> list[str | None]:
            return [item.origin async for item in facts]

        one, two = await asyncio.gather(consume(), consume())
    assert sorted([*one, *two], key=str) == sorted((f"{many}:{n}" for n in range(1, MANY + 1)), key=str)


@pytest.mark.parametrize("zipped", [False, True])
async def test_a_borrowed_file_stays_open(zipped) -> None:
    data = b'"a"\n"b"\n'
    stream = io.BytesIO(gzip.compress(data) if zipped else data)
    async with open_facts(stream) as facts:
        assert [fact.origin async for fact in facts] == ["input:1", "input:2"]
    assert not stream.closed


async def test_an_open_file_has_its_name(many) -> None:
    with many.open("rb") as stream:
        async with open_facts(stream) as facts:
            assert (await anext(facts)).origin == f"{many}:1"
        assert not stream.closed


async def test_an_unbuffered_file_is_read_too(many) -> None:
    with many.open("rb", buffering=0) as stream:
        assert len(await collect(stream)) == MANY


@pytest.mark.parametrize("place", [io.StringIO("a"), 3, None])
def test_what_can_be_no_source(place) -> None:
    with pytest.raises(TypeError, match="a path, '-' or a file opened in binary mode"):
        open_facts(place)


async def failing(place: Any) -> str:
    with pytest.raises(SourceError) as caught:
        await collect(place)
    assert isinstance(caught.value, OmiError)
    return str(caught.value)


async def test_files_that_cannot_be_opened(tmp_path) -> None:
    assert (
        await failing(tmp_path / "no")
        == f"{tmp_path}/no: cannot be opened: there is no such file; check the path"
    )
    assert "holds no file that could be a list of facts" in await failing(tmp_path)
    assert "cannot be opened" in await failing("a\0b")
    assert "Not a directory" in await failing(f"{sys.executable}/x")


async def test_a_file_without_permission(tmp_path, monkeypatch) -> None:
    def refuse(path) -> Never:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    facts = open_facts(tmp_path / "x")
    with pytest.raises(SourceError, match="no permission to read it"):
        await anext(facts)
    monkeypatch.undo()


class Damaged(io.RawIOBase):
    """Gives a line and a half, and then whatever it was made with."""

    def __init__(self, then: object) -> None:
        self.given = [b'"a"\n"b', then]

    def read(self, _size: int = -1) -> Any:
        then = self.given.pop(0)
        if isinstance(then, Exception):
            raise then
        return then


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (OSError(5, "Input/output error"), "cannot be read any further: Input/output error"),
        (ValueError("read of closed file"), "cannot be read any further: read of closed file"),
        (None, "blocking binary mode"),
        ("text", "blocking binary mode"),
    ],
)
async def test_a_file_that_breaks_while_it_is_read(then, words) -> None:
    facts = open_facts(Damaged(then), format="jsonl")  # type: ignore[arg-type]  # half a file on purpose
    assert [(await anext(facts)).origin] == ["input:1"]
    with pytest.raises(SourceError, match=r"^input:2: ") as caught:
        await anext(facts)
    assert words in str(caught.value)
    with pytest.raises(StopAsyncIteration):
        await anext(facts)


async def test_a_file_that_breaks_at_once() -> None:
    broken = Damaged(OSError(5, "Input/output error"))
    broken.given.pop(0)
    assert await failing(broken) == "input:1: cannot be read any further: Input/output error"


@contextmanager
def pipe() -> Iterator[tuple[Any, Any]]:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb", buffering=0) as sink:
        yield source, sink


async def test_lines_of_a_live_pipe_come_as_they_are_written() -> None:
    with pipe() as (source, sink):
        async with open_facts(source) as facts:
            for text in ("a", "b", "c"):
                sink.write(f'{{"content": "{text}"}}\n'.encode())
                fact = await anext(facts)
                assert isinstance(fact, Fact)
                assert fact.content == text
            sink.close()
            with pytest.raises(StopAsyncIteration):
                await anext(facts)


@pytest.mark.parametrize("wanted", ["csv", "text"])
async def test_other_formats_are_live_when_they_are_named(wanted) -> None:
    with pipe() as (source, sink):
        async with open_facts(source, format=wanted) as facts:
            sink.write(b"content,category\n" if wanted == "csv" else b"")
            sink.write(b"a\n")
            fact = await anext(facts)
            assert isinstance(fact, Fact)
            assert fact.content == "a"


async def test_a_silent_pipe_holds_no_caller_up() -> None:
    with pipe() as (source, _sink):
        facts = open_facts(source)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(facts)
        start = time.monotonic()
        await facts.aclose()
        assert time.monotonic() - start < _facts.PATIENCE / 2
        assert not _reading()


async def test_a_waiting_consumer_learns_of_the_close() -> None:
    with pipe() as (source, sink):
        sink.write(b'[{"content": "a"},')  # to be closed in the middle of a document is no damage of it
        facts = open_facts(source)
        waiting = asyncio.create_task(anext(facts))
        await asyncio.sleep(0)
        await facts.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_cancelling_the_consumer_ends_the_thread() -> None:
    with pipe() as (source, _sink):

        async def consume() -> None:
            async with open_facts(source) as facts:
                async for _ in facts:
                    pass

        task = asyncio.create_task(consume())
        await until(_reading)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert not _reading()


async def test_a_named_pipe_without_a_writer_holds_no_caller_up(tmp_path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    facts = open_facts(path)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(facts)
    await facts.aclose()
    assert not _reading()


async def test_a_named_pipe_with_a_writer(tmp_path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as sink:
            sink.write(b'"a"\n' * 3)

    texts, _ = await asyncio.gather(collect(path), asyncio.to_thread(write))
    assert texts == ["a", "a", "a"]


async def test_a_read_that_nothing_can_interrupt_is_left_behind(monkeypatch) -> None:
    release = threading.Event()

    class Stuck(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            release.wait()
            return b""

    monkeypatch.setattr(_facts, "PATIENCE", 0.01)
    facts = open_facts(Stuck())  # type: ignore[arg-type]  # half a file on purpose
    waiting = asyncio.create_task(anext(facts))
    await asyncio.sleep(0)
    await facts.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting
    release.set()


def test_a_loop_that_is_gone_stops_the_thread() -> None:
    facts: list[Facts] = []

    async def begin(path: Any) -> None:
        facts.append(open_facts(path))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(facts[0])

    with pipe() as (source, sink):
        asyncio.run(begin(source))
        sink.write(b'{"content": "a"}\n')
        for thread in _reading():
            thread.join(5)
        assert not _reading()


def test_stop_is_seen_before_and_after_its_end() -> None:
    stop = Stop()
    stop.request()
    stop.request()
    with pipe() as (source, _sink):
        assert not stop.wait_readable(source.fileno())
    stop.close()
    stop.close()


async def test_standard_input_of_another_kind(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"a"\n')))
    async for fact in open_facts("-"):
        assert fact.origin == "stdin:1"
    assert not sys.stdin.buffer.closed
    monkeypatch.setattr(sys, "stdin", None)
    assert "there is no standard input" in await failing("-")


CHILD = """
import asyncio, signal, sys
from omi_async.sources import open_facts

# As at a terminal: what runs in the background of a script is started with an ignored Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    async for fact in open_facts("-"):
        print(fact.content, flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""

DROPPED = """
import asyncio
from omi_async.sources import open_facts

async def main():
    facts = open_facts("-")
    await anext(facts)
    globals()["kept"] = facts

asyncio.run(main())
"""


def child(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_ends_a_program_that_waits_for_its_input() -> None:
    with child(CHILD) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b'{"content": "a"}\n')
        process.stdin.flush()
        assert process.stdout.readline() == b"a\n"
        process.send_signal(2)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""


def test_a_program_ends_though_it_closed_nothing() -> None:
    with child(DROPPED) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b'{"content": "a"}\n')
        process.stdin.flush()
        assert process.wait(10) == 0
        assert process.stderr.read() == b""
