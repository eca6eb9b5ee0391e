"""Copy every memory of one account into another; run it again after whatever stopped it.

```sh
export OMI_FROM_KEY=omi_dev_... OMI_TO_KEY=omi_dev_...
python -m omi_async.examples.move_account moved.journal
```

The journal remembers what has been stored, so that a second run sends only what is new. With `--delete` the
memories go from the old account once all of them are safe in the new one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator

from omi_async import Fact, FactOutcome, ImportReport, Memory, Session

SAFE = {"created", "existing", "duplicate"}
FOR_ANY_WINDOW = 86_400.0  # of the old account's quotas: seconds that one call may wait


def fact_of(memory: Memory) -> Fact:
    visibility = "public" if memory.visibility == "public" else "private"
    return Fact(
        memory.content,
        category=memory.category,
        visibility=visibility,
        tags=memory.tags,
        origin=memory.id,  # is not sent; tells later which memory became of the fact
    )


async def move(old: Session, new: Session, journal: str, *, delete: bool) -> ImportReport:
    safe: list[str] = []

    async def facts() -> AsyncIterator[Fact]:
        async for memory in old.memories.iterate():
            if memory.content.endswith("..."):  # a locked one of a free plan, which the list shows cut
                print(f"left out, for it may be cut: {memory.id}", file=sys.stderr)
            elif memory.content:
                yield fact_of(memory)

    def note(outcome: FactOutcome) -> None:
        if outcome.state in SAFE and outcome.origin is not None:
            safe.append(outcome.origin)

    report = await new.memories.import_facts(facts(), journal=journal, on_outcome=note)
    if delete and report.ok:  # not while the list is read: it would shift under the reader
        for memory_id in safe:
            await old.memories.delete(memory_id)
    return report


async def main() -> int:
    parser = argparse.ArgumentParser(description="Copy every memory of one account into another.")
    parser.add_argument("journal", help="a file that remembers what has been stored")
    parser.add_argument("--delete", action="store_true", help="delete what is safe from the old account")
    options = parser.parse_args()
    async with (
        Session(os.environ["OMI_FROM_KEY"], max_wait=FOR_ANY_WINDOW) as old,
        Session(os.environ["OMI_TO_KEY"]) as new,
    ):
        report = await move(old, new, options.journal, delete=options.delete)
    print(report)
    return 0 if report.ok else 6


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
