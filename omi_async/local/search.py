"""Search by shared words: a simple stand-in for the service's search by meaning."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["search"]


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def search(query: str, memories: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Give the answer of `vector/search`: best matches first, scored 0 to 1 by the share of common words."""
    wanted = _words(query)
    scored = ((_overlap(wanted, _words(memory["content"])), memory) for memory in memories)
    hits = (hit for hit in scored if hit[0] > 0)
    best = heapq.nlargest(limit, hits, key=lambda hit: hit[0])
    items = [
        {
            "id": memory["id"],
            "content": memory["content"],
            "category": memory["category"],
            "relevance_score": score,
        }
        for score, memory in best
    ]
    policy = {
        "consumer": "developer_api",
        "app_has_default_memory_grant": True,
        "archive_capability": False,
        "raw_provenance_capability": False,
    }
    return {"items": items, "returned_count": len(items), "archive_default_visible": False, "policy": policy}


def _overlap(wanted: frozenset[str], words: frozenset[str]) -> float:
    """Give the Jaccard similarity: common words over all words."""
    common = len(wanted & words)
    return common / len(wanted | words) if common else 0.0
