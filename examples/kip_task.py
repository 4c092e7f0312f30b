"""Progress, ids and files of a Kipwake task or job. Copy this file beside your program; it needs Python 3.8 and nothing else.

In a job (`kip run`, `jobs:`):            task = kip_task.current()
In a function that takes tasks:           task = kip_task.of(request.headers)
Outside of Kipwake both give a task without an id, whose reports go nowhere, so the same program runs by hand.

    for n, page in enumerate(pages):
        work(page)
        task.report(f"page {n + 1} of {len(pages)}")     # raises kip_task.Replaced if another run has taken over
"""

import os
import pathlib
import time
import urllib.error
import urllib.request


class Replaced(Exception):
    """Another run of the task has taken over: end this one."""


class Task:
    """One run of a task."""

    def __init__(self, id=None, attempt=1, epoch=0, progress=None, out=None, due=None):
        #: The id of the task; None outside of Kipwake.
        self.id = id
        #: 1, and one more for each error and crash before.
        self.attempt = attempt
        #: Counts claims; a higher one has replaced all lower ones.
        self.epoch = epoch
        #: Of a scheduled job: for which time it runs, such as 2026-11-29T03:00:00Z.
        self.due = due
        self._progress = progress
        self._out = out
        self._quiet_until = 0.0

    def report(self, text, timeout=5.0):
        """Reports progress. A server that is away is no error: the next report tries again, after a pause."""
        if not self._progress or time.monotonic() < self._quiet_until:
            return
        request = urllib.request.Request(self._progress, str(text).encode(), method="POST")
        try:
            # The address is on this machine: no proxy.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(request, timeout=timeout).close()
        except urllib.error.HTTPError as error:
            if error.code == 409:
                raise Replaced("another run of task %s has taken over" % self.id) from None
        except (OSError, ValueError):
            self._quiet_until = time.monotonic() + 2.0

    def out(self, name):
        """The path of a result file: in the folder of the run for a job, else in the present folder."""
        folder = pathlib.Path(self._out or ".")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def current():
    """The run of the job that this program is."""
    get = os.environ.get
    return Task(
        id=get("KIPWAKE_TASK_ID"),
        attempt=int(get("KIPWAKE_TASK_ATTEMPT") or 1),
        epoch=int(get("KIPWAKE_TASK_EPOCH") or 0),
        progress=get("KIPWAKE_PROGRESS"),
        out=get("KIPWAKE_OUT"),
        due=get("KIPWAKE_TASK_DUE"),
    )


def of(headers):
    """The run that a request to a function belongs to; `headers` is a mapping, of whatever framework."""
    known = {str(name).lower(): value for name, value in dict(headers).items()}
    return Task(
        id=known.get("x-kip-task-id"),
        attempt=int(known.get("x-kip-task-attempt") or 1),
        epoch=int(known.get("x-kip-task-epoch") or 0),
        progress=known.get("x-kip-task-progress"),
    )
