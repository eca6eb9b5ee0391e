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
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from omi_async import ImportJob, ImportJobs, InvalidFactError, Memory, OmiError, RateLimitError, SessionPool

KEYS = dict(pair.split("=", 1) for pair in os.environ.get("OMI_KEYS", "").split(",") if pair)  # your database
FOLDER = os.environ.get("OMI_IMPORTS", "imports")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with (
        SessionPool(max_wait=5) as pool,  # a request does not wait for an hour's window
        ImportJobs(FOLDER, lambda user: pool.session(KEYS[user])) as jobs,
    ):
        await jobs.resume()
        app.state.pool, app.state.jobs = pool, jobs
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(OmiError)
async def explain(_request: Request, error: OmiError) -> JSONResponse:
    body = {"error": str(error), "maybe_applied": error.maybe_applied}
    if isinstance(error, RateLimitError):
        return JSONResponse(body, 429, {"Retry-After": str(int(error.retry_after or 60) + 1)})
    return JSONResponse(body, 422 if isinstance(error, InvalidFactError) else 502)  # README has all errors


@app.post("/{user}/memories")
async def create(user: str, text: str) -> dict[str, Any]:
    memory: Memory = await app.state.pool.session(KEYS[user]).memories.create(text, category="other")
    return memory.to_dict()


@app.post("/{user}/imports", status_code=202)
async def start(user: str, request: Request) -> dict[str, Any]:
    job: ImportJob = await app.state.jobs.start(user, request.stream())
    return job.snapshot.to_dict()


@app.get("/{user}/imports/{number}/events")
async def events(user: str, number: str) -> StreamingResponse:
    job: ImportJob | None = next((job for job in app.state.jobs.of(user) if job.id == number), None)
    if job is None:
        raise HTTPException(404)

    async def lines() -> AsyncIterator[str]:
        async for snapshot in job.watch():
            yield f"data: {json.dumps(snapshot.to_dict())}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
