"""What an import remembers, so that it can go on after it was stopped or killed.

## The problem

A call to the server has two moments that the client knows, its leaving and its answer, and one that it does
not: the server stores somewhere in between. A process that dies in between leaves facts of which it can only
be said that they may be stored. Sent again blindly, they are stored twice by a server that does not know a
memory by its text; not sent again, they are lost. So before a call leaves, its facts are written down, and
after its answer, what became of them:

```text
                 sending            the server            settled
                 is durable          stores               is durable
  pulled ───────────┼────── call ──────┼────── answer ───────┼──────── told to the caller ────>
         nothing    │                in doubt                │              settled
         is known   │                                        │
                    └── a crash leaves: may be stored        └── a crash leaves: its state, its id
```

Whatever the instant of a crash, each fact is left in one of three conditions, and the next run does three
things:

| the crash came | the file says | the server | the next run |
|---|---|---|---|
| before `sending` was durable | nothing | does not hold it | sends it |
| after that, before the call left | in doubt | does not hold it | looks for it, then sends it |
| while the call was on its way | in doubt | may hold it | looks for it, then sends it if it is absent |
| after the answer, before `settled` was | in doubt | holds it (or refused it) | looks for it, finds it |
| after `settled` was durable | its state | holds it (or refused it) | tells the state, without a call |

No outcome is told before it is durable: what a caller was told is never taken back by a crash. The
price of certainty is that the journal errs on the careful side: a fact may be looked for in vain, but none is
ever sent unlooked-for while an earlier call may have stored it.

## What a fact is known by

By its key, 16 bytes of a hash over the server's name and the stripped text; not by its position. So the input
may be reordered, grow or shrink between runs, and a rehearsal against one server does not count for another.
Neither the API key nor, with `Journal(path, texts=False)`, any text is in the file.

The index in memory (`KeyIndex`) maps six bytes of each key to its place in the file, some 20 bytes a fact;
it may name a place too many, so the key on the disk is compared.

## The file

One SQLite database, `application_id` "OMIJ", in WAL mode, for its user's eyes only (0600). In its table
`batches`, one row for the facts of a call:

| column | holds |
|---|---|
| `id` | the row's number; the fact at `at` has the place `id * 32 + at` |
| `server` | the server's name |
| `sent_at` | when the call was first about to leave, epoch seconds of the machine's clock |
| `keys` | 16 bytes a fact |
| `states` | a letter a fact, see below |
| `ids` | JSON: the memories' ids |
| `facts` | JSON: the facts that are not safely stored, by their `at`; dropped when they are |
| `errors` | JSON: why, by their `at` |
| `clock_offset` | seconds that the server's clock was ahead, once an answer of that run had told |
| `settled_at` | when facts of it were settled the last time |
| `checksum` | CRC-32 over all of the above |

The letters: `s`ending, `c`reated, `e`xisting, `r`ejected, `u`nknown, `i`nvalid, `n`ot sent, and `a`, unknown
and perhaps stored in other words. In doubt are `s`, `u` and `a`.

A row for a call, because its facts change together: a row a fact with an index of SQLite's own takes four
times the CPU and half as many bytes again. A checksum in each row, because SQLite keeps none for its pages,
and one bit that flips in `states` would turn "in doubt" into "created".

The moment of sending tells later whether a memory that is found was stored by that call (`created`) or before
it (`existing`). The memory has its time from the server's clock, so the difference of the two clocks is kept
too: either may be set until the next run.

## What is durable when

With `durability="normal"` a commit is a write into the `-wal`, which the operating system keeps when the
process dies, by `kill -9` too. When the machine dies, the last commits may be missing: facts may be stored of
which the file knows nothing. `durability="full"` waits for the disk at each commit, twice a call.

The file is locked for as long as it is open, so that SQLite itself keeps a second import out
(`JournalInUseError`): two that send from one journal would each see the other's facts too late.

## What is refused

A file that is not sound is refused and never overwritten: only its user can say whether to begin a new one.
So is what would make SQLite forget in silence what was durable:

- a `-wal` with a damaged frame (`wal.py` tells it from one that a crash cut off);
- a `-wal` whose file is gone or empty: SQLite would begin a new one, and delete the `-wal`;
- a file whose `-wal` is gone. SQLite would take it for what it was some time ago. The table `marks` says
  whether there has to be one: it is marked when a journal is opened, once its `-wal` exists, and the mark is
  taken away at the end, before SQLite deletes the `-wal`.

One kind of damage cannot be told from a crash of the machine: a `-wal` that lost whole frames at its end.

## What is forgotten

A journal that belongs to an input remembers forever. One that belongs to a stream would swallow a fact whose
memory was deleted and that is said again a week later; with `Journal(path, remember=seconds)` what was
settled longer ago counts as new, and leaves file and index. What is in doubt is never forgotten.
"""
