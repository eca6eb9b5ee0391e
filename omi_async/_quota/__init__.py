"""When a call may go: the fixed windows of the server, what is known of them, and who waits for them.

What the server does
====================

The service counts the calls of a key in fixed windows, a window for each policy (15 batches an hour, 120
writes an hour, 30 creates a minute). The first call opens one. It ends so many seconds later, whatever
happens meanwhile: a window does not slide, and there is no rate. So the whole of it may be spent at once, and
then there is nothing until it ends:

```text
  15 batches an hour
  calls   |||||||||||||||x                                |||||||||||||||
          |<-------------------- 3600 s -------------->|  |<------------
          opens          429: Retry-After 3598         ends
                              X-RateLimit-Limit 15     none is open: the next call opens one
```

A refused call is answered by a 429 that says how many calls a window takes, and how many whole seconds of it
are left, rounded down. It opens no window and makes none longer. Hence the rule that everything here follows:
*a refused call costs nothing but itself*, while a wait that was not needed costs up to an hour.

What is unknown
===============

- Limits. They are documented (100 a minute, 10,000 a day), but the service's source has others, an operator
  may multiply them at any time, and a server of one's own has none, or its own.
- Which policy refused: the answer does not name it. Two may have the same number.
- When a window began: the server opened it somewhere between the call and its answer, by a clock of its own,
  and perhaps for a call of another program with the same key.
- Whether a 429 is the service's at all: its load balancer has one too, which says nothing.
- Whether the server of yesterday is the server of today.

Which kinds of calls share a window is known, from the service's source (`policy.BACKEND`).

What is done therefore
======================

- *Burst, then wait.* Calls go as fast as they come until a window is used up. A server that never refuses is
  never slowed down; documented limits are assumed of the official service alone.
- *Learn from what is said.* A refusal tells the limit and the end. The opener was our limit-th last call that
  went through, so its moment tells the length, and the next windows need no refusal. If other programs call
  with the same key, that comes out as no usual length, and the server's word for the end is taken instead.
  Answers that announce limit, rest and end spare even the first refusal.
- *Waiting callers send nothing.* All callers of a Session wait in one place, in the order in which they came.
  When the window opens, the first one goes alone, as a probe: if our account is early, one call is refused,
  and not as many as wait.
- *A limit is doubted now and then.* After a day of windows, or if it comes from an earlier process, one call
  more than the limit goes. If it passes, the limit is gone; if not, that was one refused call.
- *A kept window binds for its own length at most.* A ledger's file may tell of a server that is gone. What it
  says is shut is probed by one call when its own length has passed, whatever the clocks say.

```text
  who waits   A B C D  (in order)
              |
  shut -------|--------- ends | A goes: the probe
                              |---- its answer ----| B C D go
                              |--------- a second at most ---------|
```

Many machines
=============

Processes that share a key share its windows, whether they know it or not. With a ledger's file they find out
from refusals. With a store that all of them reach (`Session(ledger=RedisStore(...))`) they have one ledger:
each call is counted in it before it leaves, by the store's clock.

```text
  store       | version 6: 13 of 15 spent                 | 7: 14 spent   | 8: 15 spent
  worker 1    | A goes, says 6 ---- "counted, 7" ---------| A's call leaves
  worker 2    | B, C go, says 6 --- "it is 7 by now" -----| B goes, says 7 - "counted, 8" -| B's call leaves
              |                     takes over 7          | C waits, and is the next one of its process
```

The store only keeps a text and compares versions: all arithmetic is the same, in each process, on a ledger
that has become what the store holds. What follows from that:

- *A window is spent exactly*, and a limit is learned once between all processes: by those calls that are on
  the wire when the first one is refused. `reserve` is left to the live calls of all. The probe of one process
  is the probe of all; the others wait for it for a second at most.
- *Order holds inside a process*: who was overtaken by another process is the next one again. Between
  processes there is none.
- *A process that dies with calls out* leaves them in the ledger. They count for as long as a call can take,
  or for a window's length if that is shorter, and then as calls that went through.
- *A store that is away* stops no live call: it is spent by what is known here, at the risk of a refusal.
  Imports wait for it for a minute. What was spent is told when it is back (`storekeeper` says why). Only
  meanwhile can two processes spend the same call of a window.
- A policy that was given to one process alone binds the others until its window ends.

The parts
=========

`policy` is what is believed of a policy; `window` one window of it: closed, open or shut; `balancer` what
stands before all of them; `ledger` all windows of a key: which call may go, and what an answer teaches;
`known` all that it knows. These are arithmetic: `now` goes in, seconds come out.
`pacer` has the connections and the queues (`queue`) of those who wait for a permit (`permit`); `clock` tells
its time. `keeper` exchanges what is known with other processes through a file (`store`, which holds windows
as `kept` writes them), `storekeeper` through a store that they share, as the text that `sharing` makes of a
ledger.
"""
