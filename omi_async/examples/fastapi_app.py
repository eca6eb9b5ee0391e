"""A FastAPI app that imports for many users, and shows how far each import is by server-sent events.

```sh
export OMI_KEYS=dana=omi_dev_...,lee=omi_dev_...
uvicorn omi_async.examples.fastapi_app:app --timeout-graceful-shutdown 3
curl --data-binary @facts.jsonl localhost:8000/dana/imports
curl --no-buffer localhost:8000/dana/imports/ID/events
```

An import belongs to the app and not to the request that began it: the browser may leave, and what a restart
interrupts goes on by itself. (Without the time-out uvicorn waits for open streams before it ends the app.)
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from omi_async import ImportJobs, InputTooLargeError, InvalidFactError, OmiError, RateLimitError, SessionPool

KEYS = dict(pair.split("=", 1) for pair in os.environ.get("OMI_KEYS", "").split(",") if pair)  # your database
FOLDER = os.environ.get("OMI_IMPORTS", "imports")
MOST = int(os.environ.get("OMI_MAX_BYTES", str(2**30)))  # of one upload
STATUSES = {InvalidFactError: 422, InputTooLargeError: 413, RateLimitError: 429}  # README has all errors


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with (
        SessionPool(max_wait=5) as pool,  # a request does not wait for an hour's window
        ImportJobs(FOLDER, lambda user: pool.session(KEYS[user]), max_bytes=MOST) as jobs,
    ):
        await jobs.resume()
        app.state.pool, app.state.jobs = pool, jobs
        yield


async def known(user: str) -> None:
    if user not in KEYS:  # your authentication
        raise HTTPException(404, "no such user")


app = FastAPI(lifespan=lifespan, dependencies=[Depends(known)])


@app.exception_handler(OmiError)
@app.exception_handler(InputTooLargeError)
async def explain(_request: Request, error: Exception) -> JSONResponse:
    body = {"error": str(error), "maybe_applied": isinstance(error, OmiError) and error.maybe_applied}
    wait = int(error.retry_after or 60) + 1 if isinstance(error, RateLimitError) else None
    headers = None if wait is None else {"Retry-After": str(wait)}
    return JSONResponse(body, STATUSES.get(type(error), 502), headers)


@app.post("/{user}/memories")
async def create(user: str, text: str) -> Any:
    session = app.state.pool.session(KEYS[user])
    return (await session.memories.create(text, category="other")).to_dict()


@app.post("/{user}/imports", status_code=202)
async def start(user: str, request: Request) -> Any:
    return (await app.state.jobs.start(user, request.stream())).snapshot.to_dict()


@app.get("/{user}/imports/{number}/events")
async def events(user: str, number: str) -> StreamingResponse:
    job = next((job for job in app.state.jobs.of(user) if job.id == number), None)
    if job is None:
        raise HTTPException(404)
    lines = (f"data: {json.dumps(snapshot.to_dict())}\n\n" async for snapshot in job.watch())
    return StreamingResponse(lines, media_type="text/event-stream")
