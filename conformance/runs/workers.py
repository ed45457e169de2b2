"""Jobs side by side in processes of their own, that can be stopped and that may die.

Workers are programs of their own, not forked, so that they share no descriptors and no threads with us; each
takes one job after the other through a pipe. A worker that dies takes only its job with it.
The first Ctrl-C asks the jobs to stop and waits for what they have; the second one ends at once.

Each worker leads a session, so that what a candidate forks can be killed with it; a guard, which
does no more than wait for our end, kills them all where we are killed ourselves.
`docs/scale.md` says why neither `concurrent.futures` nor loky will do.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from conformance.engines.garbage import THRESHOLDS
from conformance.processes import Guard, ended, kill_sessions
from conformance.verdict import HarnessError, UsageError


class Tell(Protocol):
    """A job says how far it is, and what it has found since it last said so; KeyboardInterrupt when it is to stop."""

    def __call__(self, steps: int, clauses: int, failures: int, /, *found: dict[str, Any]) -> None:
        """`found` are failures as in results."""


@dataclass(frozen=True, slots=True)
class Died:
    """Stands for the result of a job whose process ended under it."""

    how: str


class Jobs:
    """Runs `function(job, tell)` for each job. The function must be importable by name."""

    def __init__(
        self,
        function: Callable[[Any, Tell], Any],
        jobs: Iterable[Any],
        workers: int,
        progress: Callable[..., None],
        *,
        apart: bool = False,
        limit: float | None = None,
    ) -> None:
        self.function = function
        self.jobs = enumerate(jobs)
        """Each is taken when a worker is free for it."""
        self.workers = min(workers, len(jobs)) if isinstance(jobs, Sized) else workers
        self.progress = progress
        """(number of the job, steps, clauses, failures, *those found since)"""
        self.apart = apart
        """Whether even a single worker is a process of its own, because a job may end its process."""
        self.limit = limit
        """Seconds that all jobs together may take; what has not ended by then counts as died."""
        self.interrupted = False
        self._crew: _Crew | None = None

    def run(self) -> Iterator[tuple[int, Any]]:
        """(number of the job, its result) as they end.

        Raises:
            UsageError, HarnessError  what a job raised
        """
        if self.workers > 1 or (self.apart and self.workers):
            yield from self._side_by_side()
        else:
            yield from self._one_by_one()

    def stop(self) -> None:
        """Ask the jobs to end with what they have, from any thread."""
        self.interrupted = True
        if self._crew is not None:
            self._crew.stop()

    def kill(self) -> None:
        """End the jobs' processes at once, from any thread."""
        self.interrupted = True
        if self._crew is not None:
            self._crew.guard.end()

    def _one_by_one(self) -> Iterator[tuple[int, Any]]:
        for number, job in self.jobs:
            try:
                result = self.function(job, partial(self.progress, number))
            except KeyboardInterrupt:
                self.interrupted = True
                return
            yield number, result
            if getattr(result, "interrupted", False):
                self.interrupted = True
                return

    def _side_by_side(self) -> Iterator[tuple[int, Any]]:
        running: dict[Connection, tuple[_Worker, int]] = {}
        deadline = None if self.limit is None else time.monotonic() + self.limit
        self._crew = crew = _Crew(self.function)

        def interrupt(_signal: int, _frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.stop()

        with on_interrupt(interrupt), closing(crew):
            for _ in range(self.workers):
                self._give(None, crew, running)
            while running:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = set(wait([end for worker, _ in running.values() for end in worker.ends], left))
                if not ready:
                    yield from ((number, Died(f"it did not end in {self.limit:g} s")) for _, number in running.values())
                    return
                for connection, (worker, number) in list(running.items()):
                    if not ready.intersection(worker.ends):
                        continue
                    told = worker.receive()
                    if told is None:
                        del running[connection]
                        how = worker.end()
                        if not self.interrupted:
                            yield number, Died(how)
                            self._give(None, crew, running)
                        continue
                    kind, *rest = told
                    if kind == "progress":
                        self.progress(number, *rest)
                        continue
                    del running[connection]
                    if kind == "failed":
                        raise rest[0]
                    if kind == "done":
                        yield number, rest[0]
                    self._give(worker, crew, running)

    def _give(self, worker: _Worker | None, crew: _Crew, running: dict[Connection, tuple[_Worker, int]]) -> None:
        """Hand a worker, a new one where there is none, the next job; where there is no more, let it go."""
        following = None if self.interrupted else next(self.jobs, None)
        if following is None:
            if worker is not None:
                worker.leave()
            return
        number, job = following
        worker = worker or crew.start()
        with suppress(BrokenPipeError, ConnectionResetError):  # it is gone, as we shall see
            worker.connection.send(job)
        running[worker.connection] = (worker, number)


class _Crew:
    """The processes of one run of jobs, and how they are ended."""

    def __init__(self, function: Callable[[Any, Tell], Any]) -> None:
        self.function = function
        self.asked, self._ask = os.pipe()
        """Its other end is closed when the jobs are to stop, by us or by our end."""
        self.guard = Guard()
        self.workers: list[_Worker] = []

    def start(self) -> _Worker:
        """One more."""
        worker = _Worker(self.function, self.asked)
        self.workers.append(worker)
        self.guard.watch(worker.pid)
        return worker

    def stop(self) -> None:
        """Ask them to end their jobs with what they have."""
        ask, self._ask = self._ask, -1
        if ask >= 0:
            os.close(ask)

    def close(self) -> None:
        """Kill those that are left, with all that they have left behind."""
        self.guard.end()
        self.stop()
        os.close(self.asked)
        for worker in self.workers:
            worker.process.kill()  # where it was started after the guard's end
            worker.process.wait()
            worker.leave()


class _Worker:
    """One process that does jobs."""

    PROGRAM = "import sys; sys.path[:] = {}; from conformance.runs.workers import work; work({}, {})"

    def __init__(self, function: Callable[[Any, Tell], Any], asked: int) -> None:
        self.connection, theirs = Pipe()
        with on_interrupt(signal.SIG_IGN):
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with the program above
                [sys.executable, "-c", self.PROGRAM.format([str(path) for path in sys.path], theirs.fileno(), asked)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), asked),
                start_new_session=True,
            )
        theirs.close()
        self.pid = self.process.pid
        self.exited = os.pidfd_open(self.pid)
        """Ready once the process has ended; what it has forked may keep its end of the pipe open."""
        self.connection.send(function)

    @property
    def ends(self) -> tuple[Any, ...]:
        """What to wait for."""
        return self.connection, self.exited

    def receive(self) -> Any:
        """What it says next; None when it says nothing any more."""
        try:
            return self.connection.recv() if self.connection.poll() else None
        except (EOFError, ConnectionResetError):
            return None

    def leave(self) -> None:
        """Nothing more to say to one another."""
        if not self.connection.closed:
            self.connection.close()
            os.close(self.exited)

    def end(self) -> str:
        """How it ended, and the end of all that it has left behind."""
        self.process.wait()
        kill_sessions({self.pid})
        self.leave()
        return ended(self.process.returncode)


def work(pipe: int, asked: int) -> None:
    """What a worker process does until its pipe is closed: it is told the function, and then jobs."""
    gc.set_threshold(*THRESHOLDS)
    connection = Connection(pipe)
    os.dup2(sys.stderr.fileno(), 1)  # what a candidate prints is not our verdict
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; whoever started us decides
        signal.signal(number, signal.SIG_IGN)
    said = 0.0
    home = Path.cwd()

    def tell(steps: int, clauses: int, failures: int, /, *found: dict[str, Any]) -> None:
        nonlocal said
        if select.select([asked], [], [], 0)[0]:
            raise KeyboardInterrupt
        now = time.monotonic()
        if found or now - said >= 0.2:
            said = now
            connection.send(("progress", steps, clauses, failures, *found))

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever started us is gone
        function = connection.recv()
        while True:
            job = connection.recv()
            os.chdir(home)  # a candidate may have gone elsewhere
            connection.send(_answer(function, job, tell))


def _answer(function: Callable[[Any, Tell], Any], job: Any, tell: Tell) -> tuple[Any, ...]:
    """("done", result), ("stopped",) or ("failed", error)."""
    try:
        return "done", function(job, tell)
    except KeyboardInterrupt:
        return ("stopped",)
    except (UsageError, HarnessError) as error:
        return "failed", error
    except BrokenPipeError:
        raise
    except Exception as error:
        return "failed", HarnessError(f"{type(error).__name__}: {error}")


@contextmanager
def on_interrupt(handler: Any) -> Iterator[None]:
    """Set what Ctrl-C does meanwhile; off the main thread nobody interrupts us.

    A process started while it is ignored ignores it, too, from its first instruction on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
