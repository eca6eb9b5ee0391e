"""An event loop for a command, a session for its server, and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from omi_async.cli import exit_codes
from omi_async.cli.logs import logs_to_stderr
from omi_async.cli.options import Common
from omi_async.cli.output import abandon_stdout
from omi_async.errors import ConnectError

if TYPE_CHECKING:
    from omi_async.resources.memories import Memories
from pathlib import Path

from omi_async.cli.output import print_message

__all__ = ["VARIABLE", "connected", "graceful_signals", "ledger_path", "run_async", "usable_ledger"]

KNOCK_TIMEOUT: Final = 10.0

KNOCKS: Final = (0.5, 1.0, 2.0, None)
"""Seconds after each of them; as patient as one call of a Session."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_async(common: Common, main: Coroutine[Any, Any, int]) -> int:
    """Run a command's coroutine, on uvloop where that is installed. SIGTERM ends it as Ctrl-C does."""
    level = logging.DEBUG if common.verbose else logging.WARNING
    try:
        with logs_to_stderr(level), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_ended_by_sigterm(main))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BrokenPipeError:  # whoever read has enough, as in `omi-async export | head`
        abandon_stdout()
        return exit_codes.OK


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
    """Let the first SIGINT or SIGTERM call `stop` in the loop, the second `let_go`, the third kill."""
    loop = asyncio.get_running_loop()
    steps = [stop, let_go]

    # No loop.add_signal_handler: a handler of Python's own is also called while a write to a pipe is stuck.
    def handle(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(steps.pop(0))
        if not steps:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, handle)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextlib.asynccontextmanager
async def connected(
    common: Common, *, connections: int = 8, max_wait: float | None = None, knock: bool = False
) -> AsyncIterator[Memories]:
    """Open a session with the server that was named, or with a stand-in server of its own; give its memories.

    With `max_wait`, calls wait so many seconds for quotas and for a server in trouble, in all. With `knock`,
    a server that nobody reaches is an error at once, not after the minutes that an import gives a server to
    come back. Raises `CommandError` where there is no key.
    """
    from omi_async.cli import prompt_sender  # noqa: PLC0415  # aiohttp takes its time
    from omi_async.resources.memories import Memories  # noqa: PLC0415
    from omi_async.session import Session  # noqa: PLC0415

    options: dict[str, Any] = {"connections": connections, "allow_http": common.allow_http or None}
    if common.timeout is not None:
        options |= {"timeout": common.timeout, "batch_timeout": common.timeout}
    async with contextlib.AsyncExitStack() as stack:
        options |= await _server_for(common, stack)
        session = await stack.enter_async_context(Session(**options, retry=prompt_sender.RETRY))
        if knock and common.local is None:
            await check_reachable(session.base_url)
        gc.freeze()  # full collections, which stop the loop, need not look at all that was imported
        stack.callback(gc.unfreeze)
        yield (
            session.memories if max_wait is None else Memories(prompt_sender.PromptSender(session, max_wait))
        )


async def _server_for(common: Common, stack: contextlib.AsyncExitStack) -> dict[str, Any]:
    """Return the options of a Session for the server; a local one is started first."""
    if common.local is None:
        _require_key()
        return {"base_url": common.base_url, "ledger": usable_ledger()}
    from omi_async.local import LocalServer  # noqa: PLC0415  # only where it is asked for

    server = await stack.enter_async_context(LocalServer(common.local))
    return {"api_key": server.api_key, "base_url": server.url}


async def check_reachable(base_url: str) -> None:
    """Raise `ConnectError` where nobody listens at the server's address; no call is made."""
    from yarl import URL  # noqa: PLC0415  # aiohttp's

    url = URL(base_url)
    for wait in KNOCKS:
        try:
            async with asyncio.timeout(KNOCK_TIMEOUT):
                _, writer = await asyncio.open_connection(url.host, url.port)
        except OSError as error:
            if wait is None:
                reason = error.strerror or str(error) or "it does not answer"
                raise ConnectError(f"the server at {url} was not reached: {reason}") from error
            await asyncio.sleep(wait)
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return


def _require_key() -> None:
    if not os.environ.get("OMI_API_KEY", "").strip():
        raise exit_codes.CommandError(
            "no API key: set OMI_API_KEY to a Developer API key (omi_dev_..., made at app.omi.me under "
            "Developer > API Keys), or try it without an account: --local",
            exit_codes.AUTHENTICATION,
        )


VARIABLE: Final = "OMI_LEDGER"


def ledger_path() -> Path | None:
    """Return the ledger's file, whether it is there or not; None where none is to be kept."""
    given = os.environ.get(VARIABLE)
    if given is not None and not given.strip():
        return None
    try:
        return Path(given.strip()).expanduser() if given is not None else _default()
    except RuntimeError:  # nobody's home
        return None


def _default() -> Path | None:
    from platformdirs import user_state_path  # noqa: PLC0415  # only where it is asked for

    path = user_state_path("omi_async", appauthor=False) / "quotas.db"
    return path if path.is_absolute() else None


def usable_ledger() -> Path | None:
    """Return the ledger's file, with its directory made; None, and a warning, where it cannot be written."""
    path = ledger_path()
    if path is None or path == Path(os.devnull):
        return None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no file")
        path.open("ab").close()
    except OSError as error:
        print_message(
            f"warning: {path} cannot be written ({error.strerror}): other commands are not told what this "
            f"one spends of the quotas. {VARIABLE}=PATH keeps that elsewhere, an empty {VARIABLE} nowhere."
        )
        return None
    return path
