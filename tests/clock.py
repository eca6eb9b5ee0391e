"""The virtual clock of `omi_async.testing`, in the suite's own words."""

from __future__ import annotations

import asyncio

from omi_async.local.clock import VirtualClockLoop, run

__all__ = ["VirtualClockLoop", "elapsed", "run"]


def elapsed(since: float) -> float:
    """Seconds of the running loop's clock since a moment of it."""
    return asyncio.get_running_loop().time() - since
