"""An aiohttp.web app for many users: one pool of connections, and imports in the background.

```sh
export OMI_KEYS=dana=omi_dev_...,lee=omi_dev_...
python -m omi_async.examples.aiohttp_app 8080
curl -d 'User is vegetarian' localhost:8080/dana/memories
curl --data-binary @facts.jsonl localhost:8080/dana/imports
curl localhost:8080/dana/imports
```
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from omi_async import ImportJobs, InputTooLargeError, InvalidFactError, OmiError, RateLimitError, SessionPool

KEYS = dict(pair.split("=", 1) for pair in os.environ.get("OMI_KEYS", "").split(",") if pair)  # your database
FOLDER = os.environ.get("OMI_IMPORTS", "imports")
MOST = int(os.environ.get("OMI_MAX_BYTES", str(2**30)))  # of one upload
STATUSES = {InvalidFactError: 422, InputTooLargeError: 413, RateLimitError: 429}  # README has all errors

POOL, JOBS = web.AppKey("POOL", SessionPool), web.AppKey("JOBS", ImportJobs)


async def omi(app: web.Application) -> AsyncIterator[None]:
    """Around the life of the app; aiohttp ends it after the last request."""
    async with (
        SessionPool(max_wait=5) as pool,  # a request does not wait for an hour's window
        ImportJobs(FOLDER, lambda user: pool.session(KEYS[user]), max_bytes=MOST) as jobs,
    ):
        await jobs.resume()  # what the last process left unfinished
        app[POOL], app[JOBS] = pool, jobs
        yield


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.match_info.get("user") not in KEYS:  # your authentication
        return web.json_response({"error": "no such user"}, status=404)
    try:
        return await handler(request)
    except (OmiError, InputTooLargeError) as error:
        body = {"error": str(error), "maybe_applied": isinstance(error, OmiError) and error.maybe_applied}
        return web.json_response(body, status=STATUSES.get(type(error), 502))


async def create(request: web.Request) -> web.Response:
    session = request.app[POOL].session(KEYS[request.match_info["user"]])
    memory = await session.memories.create(await request.text(), category="other")
    return web.json_response(memory.to_dict())


async def start(request: web.Request) -> web.Response:
    job = await request.app[JOBS].start(request.match_info["user"], request.content.iter_any())
    return web.json_response(job.snapshot.to_dict(), status=202)


async def imports(request: web.Request) -> web.Response:
    jobs = request.app[JOBS].of(request.match_info["user"])
    return web.json_response([job.snapshot.to_dict() for job in jobs])


def app() -> web.Application:
    made = web.Application(middlewares=[explain], client_max_size=2**30)
    made.cleanup_ctx.append(omi)
    made.router.add_post("/{user}/memories", create)
    made.router.add_post("/{user}/imports", start)
    made.router.add_get("/{user}/imports", imports)
    return made


if __name__ == "__main__":
    web.run_app(app(), port=int(sys.argv[1]))
