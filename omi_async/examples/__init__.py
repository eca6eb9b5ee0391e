"""Small whole programs: copy one, and change it. The library's own tests run each as its users would.

- `aiohttp_app`: an aiohttp.web app for many users, with imports in the background.
- `docket_worker`: imports by workers on many machines, and what an app tells them.
- `fastapi_app`: the same with FastAPI; server-sent events show how far each import is.
- `move_account`: a script that copies every memory of one account into another.
- `stream_worker`: a worker that stores facts from a Redis stream; several run together, and any may die.
"""
