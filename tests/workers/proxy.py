"""A TCP proxy that kills whoever speaks through it, at a message that the test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from types import TracebackType
from typing import Self


class KillingProxy:
    """Passes on what processes say to a server, and counts their messages.

    Attributes:
        pid: of the process that speaks; its messages wait until it is known.
        count: messages since the proxy was armed.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._tasks: set[asyncio.Task[None]] = set()
        self.arm(None)

    def arm(self, at: int | None, *, heard: bool = False) -> None:
        """Kill the next process at its message number `at`: before the server gets it, or once it is `heard`.

        That is, when the server's answer has come, and before the process gets that.
        """
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.count = 0
        self._at = at
        self._heard = heard

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._speak, "127.0.0.1")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        back = asyncio.create_task(self._answer(from_server, writer))
        try:
            with contextlib.suppress(OSError):
                await self._ask(reader, to_server)
        finally:
            back.cancel()
            for end in (writer, to_server):
                end.close()

    async def _ask(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        pid = await self.pid
        while message := await reader.read(2**20):
            self.count += 1
            if self.count == self._at and not self._heard:
                os.kill(pid, signal.SIGKILL)
                return
            to_server.write(message)
            await to_server.drain()

    async def _answer(self, reader: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        pid = await self.pid
        with contextlib.suppress(OSError):
            while answer := await reader.read(2**20):
                if self._at is not None and self.count >= self._at:
                    os.kill(pid, signal.SIGKILL)
                    return
                to_client.write(answer)
                await to_client.drain()
