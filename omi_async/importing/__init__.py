"""The bulk importer: any number of facts to memories, with every single one accounted for.

## The law

Every import obeys it in every ending (success, error, stop, cancellation, crash and resume):

    pulled = created + existing + duplicate + invalid + rejected + unknown + not_sent

It holds by construction. A fact that is pulled is *open* (`tracker`) until it is settled, once; what is
still open when the import is closed becomes `unknown` if a call may have stored it, and `not_sent` if none
can have. No other part has to remember to do so.

## The way of a fact

```text
source ─> intake ──────────> worker ─────────> delivery ─────────> calls ─────────> the server
          pull, check,       one batch         read the answer     breaker, quota,
          fold, recall       at a time         by identity         one attempt, again if that is safe
          what is settled    │  ▲                   │
          here costs no call │  └── in doubt ───────┘ what has a state: tracker, journal, callbacks
                             ▼
                         reconcile: look for it; what is certainly absent goes again, in a task of its own
```

Parts return what they found out. `delivery.deliver(items)` returns the items in doubt; what happens to them
is decided in one place, `Importer._doubtful`, called by the one loop that sends, `Importer._send`.

## What is unknown, and what we do therefore

*An answer may be lost, and a 500 may follow a stored part.* Writes cannot be repeated blindly: not every
server knows a memory by its text. So the facts of such a call are *in doubt* until a *look* at the list says
more. The list is the only evidence, and a weak one: it may lag behind the writes, hide locked texts, be cut
short, and it shows 5,000 memories. Found is found. Absent is believed only if the list was read as far back
as the fact could stand, and a second look some seconds later agrees:

```text
       sent                500           look 1        look 2                  sent again
batch ──┬───────────────────┬──────────────┬──────────────┬────────────────────────┬───────>
        │ 13 of 25 stored   │ 1 s: others  │ 5 s: the     │ 13 found by look 1,    │ 12 in
        │                   │ may fail too │ list may lag │ 12 absent in both      │ one call
        │                   │              │ (10 s after a lost answer: the server may still be writing)
        │
        └── the newest come first, so a look reads back only to here: once the pages, in falling order of
            time so far, are older than the first sending, what comes later cannot be ours. One call, not
            the whole account; and it works in accounts of any size, beside an import that goes on writing.
```

The first look reads one page: what is stored mostly stands there. If the order does not hold, times are
missing, or a memory shows a `scoring` (older servers sort by it), the later ones read the whole list. What
cannot be found out within a few looks stays `unknown`.

"Older" is measured by the server's clock, of which each answer says something: a memory that a call of ours
made has a `created_at` between the call's departure and its answer (`answers.ServerClock`). Machines of the
service may differ by two seconds, so while little is known all of these count as young, and many memories
that were stored seconds before an import may hide what is looked for. Once enough answers agree, the margin
is as narrow as they were quick.

*A fact may make the server fail.* After two sendings in company it goes alone, with nothing else of the
import on the wire. It counts as `rejected` only if others were stored meanwhile, and if it is next to
impossible that the server's own troubles, as frequent as they are, hit it each time. Otherwise it is
`not_sent`, and the next run tries it again: `rejected` is remembered by the journal, so it must be the
server's verdict.

*Parallel writes of one account may fail.* `concurrency` is a bound, not a promise; `concurrency` (the module)
tells how many are on the wire.

*A quota window may shut for an hour.* Waiting callers send nothing; `waiting` counts what they wait, once for
all of them, and `max_wait` bounds it. Nothing is written down as `sending` before the wait is over.

## The endings

Whatever ends an import (its last fact, `stop`, a cancellation, a source or callback that raises, a refused
key, a full disk under the journal), the same happens in the same order:

```text
the last fact is settled ─┐
stop(), an error ─────────┼─> 1  no new call; what only waits is halted at once (`stopping`)
cancellation ─────────────┘   2  calls on the wire land within `drain_timeout`, and are recorded; then they
                                 are cancelled, and their facts are in doubt. The task group is empty.
                              3  the source is closed, by the task that has read it (`pump`)
                              4  open facts get their state: journal, report, callbacks
                              5  the journal is closed
                                 └─> the report is returned, or raised with ImportStoppedError;
                                     a CancelledError goes on its way
```

The workers live in a task group, in a task that the caller's cancellation does not reach: it only stops the
import, and the caller waits for the end. A second cancellation, some time after the first, means that the
caller has lost patience: calls on the wire are given up at once. One that is repeated at every turn of the
loop, as anyio's scopes do it, is still the first.
"""
