"""What a machine of a cluster does: hand each job to contained processes, as `workers` does on one machine.

A dask worker runs `perform` on one of its threads. It never imports a candidate: it keeps processes that do,
one for each thread, from job to job of a run. They end with the run (`end`), with the dask worker (the guard of
`workers`), and when nobody wants their job any more: because it was done elsewhere, or because whoever
wanted it is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import distributed
import msgspec

from conformance.runs.identity import difference, identity
from conformance.runs.workers import Died, Jobs, Tell
from conformance.verdict import UsageError

TOPIC = "conformance"
"""Under which the scheduler passes on how far jobs are."""
STOPPED = Died("it was stopped")
"""Stands for what nobody waits for."""
IDLE = 5.0
"""Seconds that a process is kept without a job."""
LOOKING = 0.3
"""Seconds between two looks whether a job is still wanted."""


@dataclass(frozen=True, slots=True)
class Task:
    """A job as it travels."""

    run: str
    """Names the run that it belongs to."""
    number: int
    function: Callable[[Any, Tell], Any]
    job: Any
    specs: tuple[str, ...]
    """Candidates whose sources count."""
    telling: float
    """Seconds between two words on how far it is."""
    identity: dict[str, str]
    """Of whoever sends it: a machine that joined later is refused, too."""


def perform(task: Task) -> Any:
    """The result of a job, or `Died`, on a dask worker.

    Raises:
        UsageError, HarnessError  what the job raised, or the sources here are others
    """
    worker = distributed.get_worker()
    if wrong := difference(task.identity, _identity(task.specs), worker.address):
        raise UsageError(f"--cluster: {wrong}")
    station = _take(task.run)
    if station is None:
        return STOPPED
    try:
        return station.do(task, worker)
    finally:
        _give_back(station)


def stop(run: str) -> None:
    """Ask the jobs of a run to end with what they have."""
    for station in _ended(run):
        station.jobs.stop()


def end(run: str) -> None:
    """Kill all processes of a run."""
    for station in _ended(run):
        station.jobs.kill()
    with _lock:
        _stations[:] = [station for station in _stations if station.run != run]


class Station:
    """One contained process, kept from job to job."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.task: Task | None = None
        """What it does; None while it is idle."""
        self.waiting: list[Task] = []
        self.worker: Any = None
        self.key: Any = None
        """What dask calls its task."""
        self.is_taken = False
        """By a thread that does a job."""
        self.is_over = False
        """Whether its process is gone for good."""
        self.since = time.monotonic()
        """When it became idle, or last said how far it is."""
        self.jobs = Jobs(_perform, self._tasks(), 1, self._tell, apart=True)
        self.answers = self.jobs.run()

    def do(self, task: Task, worker: Any) -> Any:
        """One job's result; `STOPPED` where nobody will read it."""
        self.task, self.worker, self.key = task, worker, worker.get_current_task()
        self.waiting.append(task)
        try:
            return next(self.answers)[1]
        except StopIteration:
            self.is_over = True
            return STOPPED
        except BaseException:  # passed on; but nobody asks again whoever ended like this
            self.is_over = True
            raise
        finally:
            self.task, self.since = None, time.monotonic()

    def is_wanted(self) -> bool:
        """Whether anybody waits for what it does, or may soon have something to do for it."""
        if self.task is None:
            return time.monotonic() - self.since < IDLE
        known = self.worker.state.tasks.get(self.key)
        return known is not None and known.state != "cancelled"

    def _tasks(self) -> Iterator[Task]:
        while self.waiting:
            yield self.waiting.pop()

    def _tell(self, _number: int, steps: int, clauses: int, failures: int, *found: dict[str, Any]) -> None:
        now, task = time.monotonic(), self.task
        if task is not None and (found or now - self.since >= task.telling):
            self.since = now
            texts = [msgspec.json.encode(data).decode() for data in found]  # dask makes other values of lists
            self.worker.log_event(TOPIC, [self.run, task.number, steps, clauses, failures, *texts])


_lock = threading.Lock()
_stations: list[Station] = []
"""All that have a process, of all runs."""
_stopped: set[str] = set()
"""Runs that nothing more is begun for."""


def _perform(task: Task, tell: Tell) -> Any:
    """In the contained process."""
    return task.function(task.job, tell)


def _take(run: str) -> Station | None:
    """An idle station of the run, or a new one; None where the run is over."""
    with _lock:
        if run in _stopped:
            return None
        station = next((s for s in _stations if s.run == run and not s.is_taken), None)
        if station is None:
            station = Station(run)
            _stations.append(station)
        station.is_taken = True
        _watch()
        return station


def _give_back(station: Station) -> None:
    with _lock:
        station.is_taken = False
        if station.is_over and station in _stations:
            _stations.remove(station)


def _ended(run: str) -> list[Station]:
    """The stations of a run that is over."""
    with _lock:
        _stopped.add(run)
        return [station for station in _stations if station.run == run]


@cache
def _watch() -> None:
    """Start, once, the thread that looks after the stations."""
    threading.Thread(target=_look_after, daemon=True, name="conformance stations").start()


def _look_after() -> None:
    """Kill the processes of stations whose work nobody wants any more."""
    while True:
        time.sleep(LOOKING)
        with _lock:
            unwanted = [station for station in _stations if not station.is_wanted()]
            _stations[:] = [station for station in _stations if station not in unwanted]
        for station in unwanted:
            station.jobs.kill()


@cache
def _identity(specs: tuple[str, ...]) -> dict[str, str]:
    """Read once: what this process has imported stays what it was."""
    return identity(specs)
