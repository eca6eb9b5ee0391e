"""A pytest plugin: the stand-in server as a fixture.

In your `conftest.py`:

```python
pytest_plugins = ["omi_async.testing"]
```

The server runs in a thread of its own, so that the fixture serves plain and async tests alike, under any
async plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omi_async.local import LocalServer, ThreadedServer

__all__ = ["omi_environment", "omi_server"]


@pytest.fixture
def omi_server() -> Iterator[ThreadedServer]:
    """Yield a running, empty stand-in server: `url`, `api_key`, `memories()`, `faults`, ..."""
    with LocalServer.in_thread() as server:
        yield server


@pytest.fixture
def omi_environment(omi_server: ThreadedServer, monkeypatch: pytest.MonkeyPatch) -> ThreadedServer:
    """Point OMI_API_BASE and OMI_API_KEY at the stand-in, for code that makes its `Session()` itself."""
    monkeypatch.setenv("OMI_API_BASE", omi_server.url)
    monkeypatch.setenv("OMI_API_KEY", omi_server.api_key)
    return omi_server
