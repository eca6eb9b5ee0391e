"""A server that does nothing but answer, in a process of its own.

Every POST gets the answer to a batch of 25: about 10 KB, made once, into which only the batch's serial number
(read from the body by a regular expression) and the time are put. It is as realistic as an answer of the
service for whoever reads it, matches it by text, or looks at its dates; but nothing is checked or stored.
Every GET gets a page of a list of `LISTED` such memories, by the limit and the offset of its query.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

from benchmarks.facts import BATCH, make_batch

__all__ = ["ANSWER_SIZE", "LISTED", "serving"]

LISTED = 100_000
"""Memories in the list."""

_SERIAL = "@@@@@@"
_NOW = "@created_at@"
_SERIAL_IN_BODY = re.compile(rb"\(note (\d{6})-")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PAGE = re.compile(rb"GET \S+\?limit=(\d+)&offset=(\d+) ")
_HEAD_END = b"\r\n\r\n"


def _memory(place: int, fact: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{place:08x}-6d2e-4f7a-9c1b-5f0e3d{_SERIAL}",
        "content": fact["content"],
        "category": fact["category"],
        "visibility": "private",
        "tags": fact["tags"],
        "created_at": _NOW,
        "updated_at": _NOW,
        "manually_added": False,
        "scoring": None,
        "reviewed": False,
        "user_review": None,
        "edited": False,
    }


_MEMORIES = [
    json.dumps(_memory(place, fact), ensure_ascii=False, separators=(",", ":")).encode()
    for place, fact in enumerate(make_batch(_SERIAL))
]
_TEMPLATE = b'{"memories":[%b],"created_count":%d}' % (b",".join(_MEMORIES), BATCH)


def answer_to(body: bytes, head: bytes = b"") -> bytes:
    """Return the answer to a call, with its head."""
    page = _PAGE.match(head)
    if page is not None:
        return _whole(_page(int(page[1]), int(page[2])))
    found = _SERIAL_IN_BODY.search(body)
    if found is None:
        raise ValueError("a body without the serial number of its batch")
    return _whole(_TEMPLATE.replace(_SERIAL.encode(), found[1]))


def _page(limit: int, offset: int) -> bytes:
    """Return a page of the list; the memories of a batch have its serial number in common."""
    places = (divmod(number, BATCH) for number in range(offset, min(offset + limit, LISTED)))
    memories = (_MEMORIES[place].replace(_SERIAL.encode(), b"%06d" % serial) for serial, place in places)
    return b"[%b]" % b",".join(memories)


def _whole(answer: bytes) -> bytes:
    """Put the time into an answer, and a head before it."""
    now = datetime.now(UTC)
    answer = answer.replace(_NOW.encode(), f"{now:%Y-%m-%dT%H:%M:%S.%fZ}".encode())
    head = (
        "HTTP/1.1 200 OK\r\n"
        f"date: {now:%a, %d %b %Y %H:%M:%S} GMT\r\n"
        "server: uvicorn\r\n"
        f"content-length: {len(answer)}\r\n"
        "content-type: application/json\r\n\r\n"
    )
    return head.encode() + answer


ANSWER_SIZE = len(answer_to(b"(note 000000-"))
"""Bytes of an answer with its head."""


class _Connection(asyncio.Protocol):
    """One kept-alive connection; `latency` in seconds stands before each answer."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._latency
        self._received += data
        while (call := self._take_call()) is not None:
            answer = answer_to(*call)
            if self._latency:
                loop.call_at(due, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _take_call(self) -> tuple[bytes, bytes] | None:
        """Take body and head of a whole request off what was received, or return None."""
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return None
        start = head_end + len(_HEAD_END)
        length = _LENGTH.search(self._received, 0, start)
        end = start + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return None
        head, body = self._received[:start], self._received[start:end]
        self._received = self._received[end:]
        return body, head


async def _serve(latency: float) -> None:
    """Print the port, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(latency), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()
    server.close()


def _make_loop() -> asyncio.AbstractEventLoop:
    """Make a loop that is in time to the microsecond: epoll counts in milliseconds, and rounds up."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@contextmanager
def serving(latency: float = 0.0) -> Iterator[str]:
    """Run the server in a process of its own and yield its URL; `latency` in seconds."""
    command = [sys.executable, "-m", "benchmarks.canned", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        port = process.stdout.readline().strip() if process.stdout else ""
        if not port:
            raise RuntimeError("the canned server did not start")
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_make_loop) as runner:
        runner.run(_serve(float(sys.argv[1])))
