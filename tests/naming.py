"""Names of parametrized tests that are the same in each process, as pytest-xdist needs them."""

from __future__ import annotations


def stable_id(value: object) -> str:
    """Name a value by its repr, or by its type if the repr holds an address."""
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text
