"""The library as its users write it, for mypy to read; nothing here runs.

Where a line ends in ``type: ignore``, the mistake in it is one that mypy must find: were it not found, the
comment would be unused, and that is an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import aiohttp
from yarl import URL

import omi_async
from omi_async import (
    APIError,
    Fact,
    FactOutcome,
    ImportFailedError,
    ImportReport,
    ImportStoppedError,
    InvalidFactError,
    Memory,
    NotFoundError,
    OmiError,
    RateLimitError,
    ResponseFormatError,
    Retry,
    ServerError,
    Session,
)


async def a_web_handler(session: Session, text: str) -> str:
    memory = await session.memories.create(text, category="work", tags=["web"])
    assert_type(memory, Memory)
    assert_type(memory.id, str)
    assert_type(memory.tags, tuple[str, ...])
    assert_type(memory.created_at, datetime | None)
    assert_type(memory.user_review, bool | None)
    return memory.content


async def the_calls(client: aiohttp.ClientSession) -> None:
    async with Session() as session:
        assert_type(session, Session)
        assert_type(session.closed, bool)
    session = Session(
        "omi_dev_1",
        base_url=URL("https://self.example"),
        timeout=5,
        batch_timeout=60.0,
        connections=2,
        retry=Retry(attempts=1),
        client=client,
        allow_http=True,
    )
    Session(None, base_url="https://self.example", trace_configs=[aiohttp.TraceConfig()])
    memories = session.memories
    assert_type(memories, omi_async.Memories)
    assert_type(await memories.list(), list[Memory])
    assert_type(await memories.list(limit=10, offset=5, categories=("work", "core")), list[Memory])
    assert_type(memories.iterate(page_size=10, categories=["work"]), AsyncIterator[Memory])
    async for memory in memories.iterate():
        assert_type(memory, Memory)
    assert_type(await memories.create(Fact("a")), Memory)
    assert_type(await memories.create_batch(["a", Fact("b"), {"content": "c"}]), list[Memory])
    assert_type(await memories.update("id", content="a", visibility="public", category="x", tags=[]), Memory)
    await memories.delete("id")
    await session.close()


def texts() -> Iterator[str]:
    yield "a"


async def records() -> AsyncIterator[Mapping[str, Any]]:
    yield {"content": "a"}


async def the_imports(session: Session, facts: Sequence[Fact]) -> None:
    def on_outcome(outcome: FactOutcome) -> None:
        assert_type(outcome.index, int)
        assert_type(outcome.fact, Fact | None)
        assert_type(outcome.memory_id, str | None)

    async def on_progress(report: ImportReport) -> None:
        assert_type(report.created, int)

    report = await session.memories.import_facts(
        facts, concurrency=2, on_outcome=on_outcome, on_progress=on_progress, on_unknown="report"
    )
    assert_type(report, ImportReport)
    assert_type(report.ok, bool)
    report.raise_for_failures()
    await session.memories.import_facts(texts(), journal=Path("facts.journal"))
    await session.memories.import_facts(records(), journal="facts.journal")
    async with session.memories.importer(["a"]) as importer:
        async for outcome in importer:
            assert_type(outcome, FactOutcome)
    assert_type(importer.report, ImportReport)
    async with session.memories.inbox(journal="inbox.journal", flush_after=0.5) as inbox:
        assert_type(await inbox.put("a"), FactOutcome)
        settled = await inbox.submit({"content": "b"}, redelivered=True)
        assert_type(await settled, FactOutcome)


async def the_errors(session: Session) -> None:
    try:
        await session.memories.create("a")
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.status, int)
        assert_type(error.headers, Mapping[str, str])
    except NotFoundError as error:
        assert_type(error.status, int)
    except ServerError as error:
        assert_type(error.maybe_applied, bool)
    except APIError as error:
        assert_type(error.detail, Any)
    except ResponseFormatError as error:
        assert_type(error.problems, tuple[str, ...])
        assert_type(error.memories, tuple[Memory, ...])
    except InvalidFactError as error:
        assert_type(error.field, str)
        assert_type(error.record, object)
    except ImportStoppedError as error:
        assert_type(error.report, ImportReport)
    except ImportFailedError as error:
        assert_type(error.message, str)
    except OmiError as error:
        assert_type(error.maybe_applied, bool)


async def the_mistakes(session: Session, memory: Memory, fact: Fact) -> None:
    Session(retry=3)  # type: ignore[arg-type]
    Session("key", "https://self.example")  # type: ignore[call-arg]
    Session(timeout="5")  # type: ignore[arg-type]
    Session(proxy="http://proxy.example")  # type: ignore[call-arg]
    session.closed = True  # type: ignore[misc]
    Fact()  # type: ignore[call-arg]
    Fact("a", "work")  # type: ignore[call-arg]
    Fact("a", tags=[1])  # type: ignore[list-item]
    Fact(7)  # type: ignore[arg-type]
    fact.content = "b"  # type: ignore[misc]
    memory.tags = ()  # type: ignore[misc]
    memory.locked  # type: ignore[attr-defined]  # noqa: B018
    Memory("id")  # type: ignore[call-arg]
    Retry(attempts="4")  # type: ignore[arg-type]
    await session.memories.list(25)  # type: ignore[call-arg]
    await session.memories.list(page_size=10)  # type: ignore[call-arg]
    await session.memories.create({"content": "a"})  # type: ignore[arg-type]
    await session.memories.create(fact="a")  # type: ignore[call-arg]
    await session.memories.create_batch("a", "b")  # type: ignore[call-arg]
    await session.memories.create_batch([7])  # type: ignore[list-item]
    await session.memories.update("id", "content")  # type: ignore[call-arg]
    await session.memories.delete(memory)  # type: ignore[arg-type]
    await session.memories.import_facts([7])  # type: ignore[list-item]
    await session.memories.import_facts(["a"], on_unknown="ignore")  # type: ignore[arg-type]
    _nothing: Memory = await session.memories.delete("id")  # type: ignore[func-returns-value, assignment]
    for _ in session.memories.iterate():  # type: ignore[attr-defined]
        pass
