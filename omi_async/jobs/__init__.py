"""Background imports of a web app: they outlive the request that began them, and the app itself.

```python
def session_for(owner):
    return session  # the app's Session with the key of this owner


async with ImportJobs("jobs", session_for) as jobs:  # in the app's lifespan
    await jobs.resume()  # what an earlier process left unfinished
    job = await jobs.start("dana", b"User swims")  # in a request, with its upload
    async for snapshot in job.watch():  # in another one
        print(snapshot.state, snapshot.percent)
```

What a job is
-------------
A folder of its own: the input (copied there first, because an upload ends with its request), the journal of
the import, and `job.json`, which says whose it is, how it is to be imported and how far it came. Nothing else
has to survive: a process that is killed leaves a job that is unfinished, and a journal that knows what was
sent. The next process asks the app for the owner's session again, because no key is ever written down.

The life of a job
-----------------
```text
 start --> waiting --> running --+--> done       all is stored, duplicate, invalid or rejected
             ^                   +--> stopped    job.stop(), or `max_wait` is used up
             |                   +--> failed     it could not go on, or facts stay in doubt
             +--- a quota -------+
                  window, an outage, the app ends
```

An import that has to wait for a quota window of an hour is not kept waiting: it ends, and the job sleeps
until the window opens. Then it is run again, from the beginning of its input; the journal makes the settled
facts cost no call. So a waiting job is one timer: no thread, no connection, no open journal, and its place
among the `running` ones is free for others. Jobs of one owner take turns, since their calls would spend the
same quota and the service fails when an account is written in parallel.

A job with facts in doubt is not done. It is run again after a while, which looks for them again; if they
cannot be found out in the end, it has failed and says so.

Several processes
-----------------
Each process takes a seat in the folder: a file that it keeps locked. The lock is the operating system's, so
it ends with the process, however that ends. A job names the seat of whoever works on it, from its start to
its end, also while it waits; so a waiting job needs no lock of its own, nor an open file. A second process on
the same folder sees all jobs, and takes those whose seat is empty; `resume` skips the others. Of several that
find it empty one renames the file that names it, and has the job.
"""

from __future__ import annotations

from omi_async.jobs.job import ImportJob
from omi_async.jobs.jobs import ImportJobs
from omi_async.jobs.record import JobSnapshot, JobState
from omi_async.jobs.spool import InputTooLargeError

__all__ = ["ImportJob", "ImportJobs", "InputTooLargeError", "JobSnapshot", "JobState"]
