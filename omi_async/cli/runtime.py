"""An event loop for a command, a session for its server, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from omi_async.cli import exit_codes
from omi_async.cli.format import shortened
from omi_async.cli.ledger import usable_ledger
from omi_async.cli.logs import logs_to_stderr
from omi_async.cli.options import IN_MEMORY, LOCAL_DB, Common
from omi_async.cli.output import abandon_stdout, print_message

if TYPE_CHECKING:
    from omi_async.resources.memories import Memories
    from omi_async.session import Session

__all__ = ["connected", "graceful_signals", "memories_at_prompt", "run_async"]

FEWEST_FILES: Final = 64
"""Files and connections that may be open at least: an import with --local has some 40, at both ends."""

ENDING: Final = (signal.SIGINT, signal.SIGTERM)

HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
"""What is sent when the terminal dies; Windows has none."""

TIMEOUT: Final = 30.0
BATCH_TIMEOUT: Final = 120.0
"""Seconds for one call, as a Session has them: facts without a category make a batch slow."""


def run_async(common: Common, main: Coroutine[Any, Any, int]) -> int:
    """Run a command's coroutine, on uvloop if that is installed. SIGTERM ends it as Ctrl-C does."""
    level = logging.DEBUG if common.verbose else logging.WARNING
    try:
        _require_room_for_files()
    except exit_codes.CommandError:
        main.close()  # else the interpreter warns of a coroutine that was never awaited
        raise
    try:
        with logs_to_stderr(level), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_ended_by_sigterm(main))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        # Its reader has enough, as in `omi-async export | head`. Caught here, for click would make a 1 of it.
        abandon_stdout()
        return exit_codes.OK


def _require_room_for_files() -> None:
    """Raise `CommandError` if this process may open too few files to do anything at all.

    Without, the event loop itself fails to be made, or halfway through the import a call or the journal does,
    each in words that say nothing of the reason.
    """
    if sys.platform == "win32":  # it has no such limit
        return
    import resource  # noqa: PLC0415  # not there on Windows

    most, most_at_all = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most >= FEWEST_FILES or most == resource.RLIM_INFINITY:
        return
    if most_at_all >= FEWEST_FILES or most_at_all == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEWEST_FILES, most_at_all))
        return
    raise exit_codes.CommandError(
        f"this process may have no more than {most} files and connections open (ulimit -n), and needs "
        f"{FEWEST_FILES}; nothing was done"
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _ended_by_sigterm(main: Coroutine[Any, Any, int]) -> int:
    """Cancel a command at the first SIGTERM, break it off at the second.

    Not by way of SIGINT: that is ignored in what a shell's script runs in the background (POSIX).
    """
    if threading.current_thread() is not threading.main_thread():
        return await main
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    steps = [task.cancel] if task is not None else []

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not steps:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(steps.pop())

    before = signal.signal(signal.SIGTERM, handle)
    try:
        return await main
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def graceful_signals(stop: Callable[[], object], let_go: Callable[[], object]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM call `stop` in the loop, the second `let_go`, the third kill.

    SIGHUP, with which a terminal dies, stops too, but does no more however often it comes: the shell and the
    system send one each. What is ignored stays ignored (`nohup`, or ``&`` in a script).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    steps = [let_go, stop]

    # No loop.add_signal_handler: a handler of Python's own is also called while a write to a pipe is stuck.
    def handle(number: int, _frame: FrameType | None) -> None:
        if number == HANGUP and stop not in steps:
            return
        loop.call_soon_threadsafe(steps.pop())
        if not steps:
            for each in ENDING:
                signal.signal(each, signal.SIG_DFL)

    numbers = (*ENDING, HANGUP) if HANGUP else ENDING
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


@contextlib.asynccontextmanager
async def connected(
    common: Common, *, connections: int = 8, new_database: bool = False
) -> AsyncIterator[Session]:
    """Open a session with the server that was named, or with a stand-in server of its own.

    Args:
        common: names the server.
        connections: calls on the wire at the same time, at most.
        new_database: whether the stand-in server may make its database.

    Raises `CommandError` if there is no key, or no database.
    """
    from omi_async.session import Session  # noqa: PLC0415  # aiohttp takes its time

    async with contextlib.AsyncExitStack() as stack:
        server = await _server_for(common, stack, new_database=new_database)
        session = Session(
            server.api_key,
            base_url=server.base_url,
            allow_http=common.allow_http or None,
            timeout=common.timeout or TIMEOUT,
            batch_timeout=common.timeout or BATCH_TIMEOUT,
            connections=connections,
            ledger=server.ledger,
            trust_env=True,
        )
        await stack.enter_async_context(session)
        gc.freeze()  # full collections, which stop the loop, need not look at all that was imported
        stack.callback(gc.unfreeze)
        yield session


@contextlib.asynccontextmanager
async def memories_at_prompt(
    common: Common, max_wait: float, *, new_database: bool = False
) -> AsyncIterator[Memories]:
    """Open a session whose calls wait so many seconds, in all, for quotas and for a server in trouble."""
    from omi_async.cli.prompt_sender import PromptSender  # noqa: PLC0415  # the library takes its time
    from omi_async.resources.memories import Memories  # noqa: PLC0415

    async with connected(common, new_database=new_database) as session:
        yield Memories(PromptSender(session, max_wait))


class _Server(NamedTuple):
    api_key: str | None
    base_url: str | None
    ledger: Path | None = None


async def _server_for(common: Common, stack: contextlib.AsyncExitStack, *, new_database: bool) -> _Server:
    """Return where the server is; a local one is started first."""
    if common.local is None:
        _require_key()
        return _Server(None, common.base_url, usable_ledger())
    from omi_async.local import LocalServer  # noqa: PLC0415  # only if it is asked for

    database = common.local if new_database else _database_that_is_there(common.local)
    # The database is the user's own: nothing in it is kept back, as the service keeps back what lies beyond
    # its wall of 5,000, or what its hourly job has not indexed yet.
    local = LocalServer(database, list_window=None, list_budget=None, search_lag=0)
    server = await stack.enter_async_context(local)
    return _Server(server.api_key, server.url)


def _database_that_is_there(database: str) -> str:
    """Return a database to read; the default one may be missing, and holds nothing then.

    It is not made: who looks for what an import has stored would believe an empty file.
    """
    if database in IN_MEMORY or Path(database).exists():
        return database
    if database != LOCAL_DB:
        raise exit_codes.CommandError(
            f"there is no {shortened(database)}; `import` and `create` make it, with the same --local"
        )
    print_message(f"There is no {LOCAL_DB} in this directory; `import` and `create` make it, with --local.")
    return ":memory:"


def _require_key() -> None:
    if not os.environ.get("OMI_API_KEY", "").strip():
        raise exit_codes.CommandError(
            "no API key: set OMI_API_KEY to a Developer API key (omi_dev_..., made at app.omi.me under "
            "Developer > API Keys), or try it without an account: --local",
            exit_codes.AUTHENTICATION,
        )
