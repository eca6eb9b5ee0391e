"""Imports as docket tasks: one task for each part, which docket runs again while there is more to do.

```text
enqueue ──> the task of a part ──> import_part ─┬─ its report ────────────────────> done
                   ^                            ├─ QuotaShut, LeaseLost ──┐
                   │                            ├─ an outage ─────────────┤──────> failed, after hours of it
                   │                            ├─ the worker ends ───────┤
                   │                            │                         │
                   └── at that moment, under the same key <───────────────┘
                                                └─ a refused key, a bug ──────────> failed
```

A task is named after its part, so that there is one for each part, however often it is enqueued. Its message
holds names only: whose import it is, what is imported, and which part. The worker asks the app for the
session of the owner, and for the facts. No task waits for a quota window: it ends, and is started again.

What was sent is known to the store alone. Docket only promises to start a task again whose worker was silent
for docket's `redelivery_timeout`; that it may do so too early, or twice, is what `import_part` is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

import attrs

try:
    from docket import CurrentExecution, Docket, Execution, Perpetual, Shared, Worker
    from docket.dependencies import Dependency, current_worker
except ImportError:
    raise ImportError("omi_async.workers.docket needs docket: pip install 'omi-async[workers]'") from None

from omi_async.importing.report import ImportReport, ImportStoppedError, settled_for_good
from omi_async.jobs.verdict import AGAIN_AFTER
from omi_async.session import Session
from omi_async.workers.errors import LeaseLost, QuotaShut, may_pass
from omi_async.workers.part import import_part
from omi_async.workers.store import RedisStore
from omi_async.workers.words import why

__all__ = ["DocketImports", "ImportTools"]

T = TypeVar("T")

Facts = Iterable[Any] | AsyncIterable[Any]

log: Final = logging.getLogger("omi_async")

_THE_TASKS_OWN: Final = {"store", "part", "parts", "redelivered", "last_try"}
_OPTIONS: Final = {
    name
    for name, parameter in inspect.signature(import_part).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in _THE_TASKS_OWN
}


@attrs.frozen
class ImportTools:
    """What a worker imports with.

    Attributes:
        store: open, for as long as the worker runs.
        session_for: returns the `Session` of an owner, or awaits it. It stays the app's, which closes it.
        facts_of: returns the facts that a name stands for, or awaits them: the same ones each time. An async
            context manager, as `open_facts` returns it, is entered and left.
    """

    store: RedisStore
    session_for: Callable[[str], Session | Awaitable[Session]]
    facts_of: Callable[[str], Facts | Awaitable[Facts]]


class DocketImports:
    """Imports that the workers of a docket carry out, part by part.

    ```text
    @asynccontextmanager
    async def tools():  # around the life of a worker
        async with RedisStore(url) as store, SessionPool(ledger=store) as pool:
            yield ImportTools(store, lambda owner: pool.session(keys[owner]), open_facts)


    imports = DocketImports(tools)
    tasks = [imports.task]  # python -m docket worker --tasks this_module:tasks
    ```

    and in the app ``await imports.enqueue(docket, "dana", "dana/facts.jsonl")``. The whole of it stands in
    `omi_async.examples.docket_worker`.

    Args:
        tools: an async context manager function, entered by each worker when it gets its first part.
        options: of each import, as `import_part` takes them. A worker that is asked to end gives calls on the
            wire `drain_timeout` seconds, which must be fewer than its machine gives the worker.

    Attributes:
        task: for the workers' collection of tasks.

    Raises:
        TypeError: an option that there is not.
    """

    def __init__(
        self, tools: Callable[[], contextlib.AbstractAsyncContextManager[ImportTools]], **options: Any
    ) -> None:
        if unknown := options.keys() - _OPTIONS:  # else each worker would meet it in each part
            raise TypeError(f"no options of an import: {', '.join(sorted(unknown))}")
        self.task = _task(tools, options)

    @staticmethod
    def name(owner: str, ref: str) -> str:
        """Return the name of an import, by which the store knows it: `RedisStore.snapshot`, `stop`."""
        return f"{quote(owner, safe='@ ')}/{ref}"  # a slash in it would make another owner's name of it

    async def enqueue(self, docket: Docket, owner: str, ref: str, *, parts: int = 1) -> str:
        """Let the workers import facts, and return the import's name. What is enqueued already stays so.

        Args:
            docket: open.
            owner: whose memories they become; `session_for` is asked with it.
            ref: what `facts_of` is asked with. Other facts need another one, as with a file.
            parts: how many tasks share the facts; always the same number for one import. Several write into
                the account in parallel, which the service fails at, and share its quotas.

        Raises:
            ValueError: fewer than one part.
        """
        if parts < 1:
            raise ValueError(f"an import has at least 1 part, not {parts!r}")
        name = self.name(owner, ref)
        for part in range(parts):  # not `add_many`, which tells no one that the store is away
            await docket.add(self.task, key=f"{name}/{part}")(owner, ref, parts)
        return name


# The task


class _AtWork(Dependency["_AtWork"]):
    """The imports that one worker is at, which end when it is asked to end.

    Docket lets a worker finish its tasks first. An import may take hours, and would be killed in the middle.
    """

    def __init__(self) -> None:
        self._imports: set[asyncio.Task[ImportReport]] = set()
        self._ended = False

    async def __aenter__(self) -> _AtWork:  # noqa: PYI034  # that of the worker, which is another one
        return _OF_WORKERS[current_worker.get()]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    @classmethod
    @contextlib.asynccontextmanager
    async def worker_lifecycle(cls, docket: Docket, worker: Worker) -> AsyncGenerator[None]:  # noqa: ARG003
        """End the imports with the worker's loop, around which docket enters this.

        The loop ends, and begins again, also when docket's server is away. Then docket waits for what it is
        at: a worker that let its imports go on would take no other part for hours.
        """
        at_work = _OF_WORKERS[worker] = cls()
        try:
            yield
        finally:
            at_work.end()

    def end(self) -> None:
        """Cancel the imports: their calls on the wire land, and their leases are given back."""
        self._ended = True
        for running in self._imports:
            running.cancel()

    async def do(self, importing: Coroutine[Any, Any, ImportReport]) -> ImportReport:
        """Import. Raises `_WorkerEndsError`."""
        running = asyncio.create_task(importing)
        self._imports.add(running)
        if self._ended:  # the task was handed out just before
            running.cancel()
        try:
            return await running
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # by `docket.cancel`: it is not to be run again
                raise
            raise _WorkerEndsError from None
        finally:
            self._imports.discard(running)


class _WorkerEndsError(Exception):
    """The worker was asked to end: another one goes on."""


_OF_WORKERS: Final[WeakKeyDictionary[Worker, _AtWork]] = WeakKeyDictionary()
_AT_WORK: Final = _AtWork()
_EXECUTION: Final[Execution] = CurrentExecution()

_AGAIN: Final = Perpetual(every=timedelta(minutes=1))
"""A task is run again unless it says that it is done: an error in what follows an import must not make docket
forget its part. Without the minute, it would do so in a busy loop."""


@attrs.frozen
class _Before:
    """What the message of a part says of the runs before.

    Attributes:
        settled: facts that the last one settled for good; None if none has begun the part.
        tries: runs in a row, up to the last one, that an outage ended or that left facts in doubt.
    """

    settled: int | None = None
    tries: int = 0


@attrs.frozen
class _Next:
    """When a part is to be run again."""

    at: datetime
    before: _Before


def _task(
    opened: Callable[[], contextlib.AbstractAsyncContextManager[ImportTools]], options: dict[str, Any]
) -> Callable[..., Awaitable[None]]:
    shared: ImportTools = Shared(opened)  # one for all tasks of a worker

    async def import_part_of_facts(
        owner: str,
        ref: str,
        parts: int,
        *,
        settled: int | None = None,
        tries: int = 0,
        tools: ImportTools = shared,
        execution: Execution = _EXECUTION,
        again: Perpetual = _AGAIN,
        at_work: _AtWork = _AT_WORK,
    ) -> None:
        before = _Before(settled, tries)
        about_this_run = {
            # A part that was begun, and that the store does not know, is one whose rows the store has lost.
            "redelivered": execution.redelivered or settled is not None,
            "last_try": tries >= len(AGAIN_AFTER),
        }
        importing = _import(tools, execution.key, owner, ref, parts=parts, **options, **about_this_run)
        try:
            following = await _run(at_work.do(importing), before, tools.store, execution.key)
        except Exception as error:  # noqa: BLE001  # the app's own, of its sessions and facts, among them
            again.cancel()
            raise await _for_good(error, tools.store, execution.key) from error.__cause__
        if following is None:
            again.cancel()
        else:
            again.perpetuate(owner, ref, parts, **attrs.asdict(following.before))
            again.at(following.at)

    return import_part_of_facts


async def _import(tools: ImportTools, part: str, owner: str, ref: str, **options: Any) -> ImportReport:
    session = await _awaited(tools.session_for(owner))
    facts: Any = await _awaited(tools.facts_of(ref))
    async with facts if hasattr(facts, "__aenter__") else contextlib.nullcontext(facts) as source:
        return await import_part(session, source, store=tools.store, part=part, **options)


async def _run(
    importing: Awaitable[ImportReport], before: _Before, store: RedisStore, part: str
) -> _Next | None:
    """Run a part, and return when it is to be run again; None if it is not. Raises what ends it for good."""
    settled = before.settled
    try:
        report = await importing
    except QuotaShut as shut:
        return _Next(shut.resume_at, _Before(settled_for_good(shut.report)))
    except LeaseLost as lost:
        return _Next(lost.resume_at, _Before(settled or 0))
    except _WorkerEndsError:
        return _Next(_in(0), before)
    except Exception as error:
        if before.tries >= len(AGAIN_AFTER) or not may_pass(error):
            raise
        words = f"{type(error).__name__}: {error}"
        if isinstance(error, ImportStoppedError):
            settled = settled_for_good(error.report)
    else:
        if not (report.unknown or report.not_sent):
            return None
        snapshot = await store.snapshot_part(part)
        if snapshot.state != "waiting":  # it was stopped, or this was the last try
            return None
        words, settled = snapshot.error or "", settled_for_good(report)
    # What settles more of the input is worth any number of runs; only those for nothing are counted.
    tries = 0 if (settled or 0) > (before.settled or 0) else before.tries
    seconds = AGAIN_AFTER[tries]
    about = {"omi_part": part, "omi_seconds": seconds}
    log.warning("part %s is run again in %.0f s: %s", part, seconds, words, extra=about)
    return _Next(_in(seconds), _Before(settled, tries + 1))


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def _awaited(given: T | Awaitable[T]) -> T:
    if inspect.isawaitable(given):
        return await given
    return given


async def _for_good(error: Exception, store: RedisStore, part: str) -> Exception:
    """Note that a part has failed; return the error as docket may keep it, which pickles and stores it."""
    if isinstance(error, ImportStoppedError):  # noted already
        # Its failures hold texts, and so may the words of a server.
        return ImportStoppedError(why(error), attrs.evolve(error.report, failures=[]))
    await store.note_failure(part, error)
    return error
