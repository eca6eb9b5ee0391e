"""Imports on many machines (extra ``workers``): a part for each task, one store for all of them.

```text
from omi_async.workers import LeaseLost, QuotaShut, RedisStore, import_part

async with RedisStore("redis://localhost:6379/0") as store:        # one for a process
    try:
        report = await import_part(session, facts, store=store, part="dana/3", parts=4)
    except (QuotaShut, LeaseLost) as later:
        ...                                                         # run this task again at later.resume_at
```

An engine that delivers tasks at least once (docket, a queue, cron) decides when and where `import_part`
runs. It may run twice at the same time, again after a crash, again when it is done. This package makes
that safe: each fact is stored once, also by a server that does not know memories by their text.

## When not to

One process with `omi_async.jobs` serves thousands of users: an import that waits for a window costs it
nothing. Its limits are one machine, and that machine's disk. More machines do not make the import of one
account faster, since its quota is the key's. They are for more accounts than one process can be at, and for
a service that must go on when a machine does not.

## Parts

An import called ``dana`` has parts ``dana/0``, ``dana/1``, ... A fact belongs to the part that the hash
of its text says (`part_of`), so that equal facts meet in one part, where they are told to be duplicates.
A part is the work of one worker at a time, and remembers for itself:

- a *row* for each fact that was sent, as in the file of a journal: in doubt, or what became of it;
- the *lease*: who works on it, and until when nobody else may;
- the report, for whoever watches.

The API key is nowhere in the store, nor are texts: a fact is known by a hash of its text.

## The life of a part

```text
worker A   take    sending   call       settled   sending   call
           fence 7 durable   ▼   ▲      durable   durable   ▼     kill -9
 ─────────────┼────────┼─────┴───┴─────────┼─────────┼──────┴──────x
 A's lease    ├────────┴───────────────────┴─────────┴───── ─ ─ ─ ─ ─ ─ ─ ─ ─ ┤ runs out
              each write renews it, a task of its own each second             ├─ the longest call ─┤
                                                                                                   ▼
worker B                              take: LeaseLost(resume_at) ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ take
(delivered again)                                            what is `sending` by now is in doubt: fence 8
                                                             it is looked for, as after any crash
```

*Before a call leaves, its facts are written down; after its answer, what became of them.* So whatever the
moment of a crash, the next worker knows which facts may be stored without anybody knowing, and looks for
these alone (`omi_async.importing` tells how, and what a look can prove).

*A look is of use only if nothing of the lost call is under way any more.* Therefore a part whose worker
was lost in the middle of a call rests until its lease has run out, and for the longest time after that
which a call may take (the Session's `batch_timeout`): 30 + 120 seconds. If no call was on the wire, the
lease is enough; and a worker that ends in any way of its own (done, a shut window, an error, a
cancellation) gives the part back at once. One script decides this, by the one clock of the store.

*An old owner may come back.* A process that was stopped, a virtual machine that was paused, a network
that was cut: its worker does not know that time went by. Each taking has a higher *fence*, which every
write carries, and the script that writes compares it first. So a late worker records nothing; it learns
that the part is another's, and raises `LeaseLost`. Nor does it store anything. Right before the bytes of
a call are given to the operating system, after every wait, it looks whether its lease still holds, by a
clock that goes on while the machine sleeps; and that lease counts from before the request that renewed it
was sent, so that it ends sooner here than in the store.

```text
worker A   sending is durable ── wait for a connection ── lease? ─── bytes ───────>
                   ^ stopped here: when it goes on,              ^ stopped here:
                     its lease is over, and no call leaves         see the next section
```

*A command may be heard late.* One without an answer is repeated on another connection; what the first had
left to say may still be on its way, and come when much has been written since. So the writes of a worker
follow one another and are numbered, and the script that writes passes over a number that it has had.

## What is not promised

- *A worker that is stopped between that last look and the system call, for longer than its lease and the
  longest call together.* Few instructions lie in between, and no wait; but a server cannot be told of
  fences. The same is true of the rest of a body that did not fit into the buffers of the operating
  system.
- *A store that loses writes which it had confirmed.* Redis and Valkey write each command to their
  append-only file before they answer (``appendonly yes``). Then the death of the server's process loses
  nothing; the death of its machine loses up to a second with ``appendfsync everysec``, and nothing with
  ``always``. A failover to a replica loses what had not reached it. Facts whose `sending` is lost are
  unknown to the next worker.
- *A store that throws rows out because it is full.* It needs ``maxmemory-policy noeviction``. If rows of a
  part are gone, that is noticed when it is written or taken, and all of its facts are looked for.
- *A store whose clock is set forward*, by more than a lease and the longest call together, while a call is on
  the wire: the part is given to another worker too early. Clocks that are slewed (chrony, ntpd) do no harm;
  nor does one that is set back, but for parts that rest longer.
- *A part that was heard of for the last time 40 days ago.* It is forgotten, and imported again if it is
  run.
- *New facts under an old name.* A part that is done stays done. What comes later has a name of its own.

## When the store is away, or new

A command that fails is repeated, for ten minutes. The import stalls meanwhile, since nothing leaves that
is not written down; when the store is back, and nobody else has taken the part, it goes on. If it stays
away, the import ends with `ImportStoppedError` and a complete report, whose `__cause__` is the
`StoreError`.

A store that was restarted without its file knows nothing. The data of a store has a random name; a
`RedisStore` that finds another one than before notes for all that data was lost. (It takes one that was
open before: if all processes were down, or until the first of them has asked, nobody can know. Those that
import ask each second.) A worker whose part is unknown to the store raises `LeaseLost`. For a day, parts
that the store does not know are begun as if they had been begun before: not until the last lease and call
of before have ended, and each fact is looked for before it is sent. An engine that knows that a task was
delivered before says so (`redelivered=True`), which has the same effect for a part that the store does
not know, and none for others.

## Quotas

Workers that share a key share its windows: each call is counted in the store before it leaves
(`omi_async._quota` tells how). A task does not sleep through a window: if it would have to wait for more
than half a minute, it ends with `QuotaShut(resume_at)`, gives the part back, and is to be run again then.

Several parts of one account at the same time are writes in parallel, which the service takes badly (each
import finds out for itself how many writes a server takes, but knows only of its own). Against the
service, run one part of an account after the other: its quota is what takes the time.

## What to set

- *The lease*: the same for all workers. A part whose worker was killed rests for so long. With a few
  seconds, a machine that is busy for as long loses its parts, which costs looks and no more.
- *The Session's `timeout` and `batch_timeout`*: a part whose worker was killed in a call rests for the longer
  of the two as well. Less than the server takes for a call would put facts in doubt that are stored.
- *When the engine delivers again* what a killed worker had (docket's ``--redelivery-timeout``): a minute. Too
  early does no harm, as `LeaseLost` says when it is worth another try; docket's own five minutes are added to
  each kill.
- *`drain_timeout`*: fewer seconds than the machine gives a process that is to end (Kubernetes: 30). It is
  what calls on the wire have; those that are cut off are in doubt, and cost a look.
- *How many parts a worker is at* (docket's ``--concurrency``, 10): each has up to `concurrency` calls on
  the wire. The store takes 32 commands at once from a process; others wait for a moment.
- *The store's server*: ``appendonly yes``, ``maxmemory-policy noeviction``, and an ``appendfsync`` as above.
  Docket may have another one, or the same.

## Watching and stopping

`RedisStore.snapshot`, `RedisStore.watch` and `RedisStore.stop` work from any process. A worker tells each
second how far it is, and hears of a stop as often. A part that was stopped stays so, also when it is
delivered again, until `RedisStore.resume`.
"""

from __future__ import annotations

try:
    import redis as _redis  # noqa: F401  # asked for here, so that its absence is told in words
except ImportError:
    raise ImportError("omi_async.workers needs redis: pip install 'omi-async[workers]'") from None

from omi_async.workers.errors import LeaseLost, QuotaShut, StoreError
from omi_async.workers.part import import_part
from omi_async.workers.progress import ImportSnapshot, PartSnapshot, PartState
from omi_async.workers.split import part_of
from omi_async.workers.store import RedisStore

__all__ = [
    "ImportSnapshot",
    "LeaseLost",
    "PartSnapshot",
    "PartState",
    "QuotaShut",
    "RedisStore",
    "StoreError",
    "import_part",
    "part_of",
]
