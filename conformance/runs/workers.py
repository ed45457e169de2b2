"""Jobs side by side in processes of their own, that can be stopped and that may die.

Workers are spawned, not forked, so that they share no descriptors and no threads with us; each
takes one job after the other through a pipe. A worker that dies takes only its job with it.
The first Ctrl-C asks the jobs to stop and waits for what they have; the second one ends at once.

`concurrent.futures` does none of this: there, a worker that dies breaks the whole pool, and a job
can neither be stopped nor say how far it is.

Each worker leads a session, so that what a candidate forks can be killed with it; a guard, which
does no more than wait for our end, kills them all where we are killed ourselves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from conformance.verdict import HarnessError, UsageError

Tell = Callable[[int, int, int], None]
"""(steps, clauses exercised, failures): a job says how far it is; raises KeyboardInterrupt when it is to stop."""


@dataclass(frozen=True, slots=True)
class Died:
    """Stands for the result of a job whose process ended under it."""

    how: str


class Jobs:
    """Runs `function(job, tell)` for each job. The function must be importable by name."""

    def __init__(
        self,
        function: Callable[[Any, Tell], Any],
        jobs: Sequence[Any],
        workers: int,
        progress: Callable[[int, int, int, int], None],
        *,
        apart: bool = False,
        limit: float | None = None,
    ) -> None:
        self.function = function
        self.jobs = jobs
        self.workers = min(workers, len(jobs))
        self.progress = progress
        """(number of the job, steps, clauses, failures)"""
        self.apart = apart
        """Whether even a single worker is a process of its own, because a job may end its process."""
        self.limit = limit
        """Seconds that all jobs together may take; what has not ended by then counts as died."""
        self.interrupted = False

    def run(self) -> Iterator[tuple[int, Any]]:
        """(number of the job, its result) as they end.

        Raises:
            UsageError, HarnessError  what a job raised
        """
        if self.workers > 1 or (self.apart and self.jobs):
            yield from self._side_by_side()
        else:
            yield from self._one_by_one()

    def _one_by_one(self) -> Iterator[tuple[int, Any]]:
        for number, job in enumerate(self.jobs):

            def tell(steps: int, clauses: int, failures: int, number: int = number) -> None:
                self.progress(number, steps, clauses, failures)

            try:
                result = self.function(job, tell)
            except KeyboardInterrupt:
                self.interrupted = True
                return
            yield number, result
            if getattr(result, "interrupted", False):
                self.interrupted = True
                return

    def _side_by_side(self) -> Iterator[tuple[int, Any]]:
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        waiting = list(reversed(range(len(self.jobs))))
        running: dict[Connection, tuple[_Worker, int]] = {}
        deadline = None if self.limit is None else time.monotonic() + self.limit
        guard = _Guard()

        def start() -> None:
            worker = _Worker(context, stop, self.function)
            guard.watch(worker.pid)
            self._give(worker, waiting, running)

        def interrupt(_signal: int, _frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            stop.set()

        before = _handle_interrupts(interrupt)
        try:
            for _ in range(self.workers):
                start()
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
                        if self.interrupted:
                            continue
                        yield number, Died(how)
                        if waiting and not self.interrupted:
                            start()
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
                    self._give(worker, waiting, running)
        finally:
            guard.end()
            _handle_interrupts(before)

    def _give(self, worker: _Worker, waiting: list[int], running: dict[Connection, tuple[_Worker, int]]) -> None:
        """Hand a worker its next job, or let it go."""
        if waiting and not self.interrupted:
            number = waiting.pop()
            worker.connection.send(self.jobs[number])
            running[worker.connection] = (worker, number)
        else:
            worker.connection.send(None)
            worker.connection.close()
            os.close(worker.exited)


class _Worker:
    """One process that does jobs."""

    def __init__(self, context: Any, stop: Any, function: Callable[[Any, Tell], Any]) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, stop, function), daemon=True)
        with _ignoring_interrupts():
            self.process.start()
        theirs.close()
        self.pid: int = self.process.pid
        self.exited = os.pidfd_open(self.pid)
        """Ready once the process has ended; what it has forked may keep its end of the pipe open."""

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

    def end(self) -> str:
        """How it ended, and the end of all that it has left behind."""
        self.process.join()
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self.connection.close()
        os.close(self.exited)
        return ended(self.process.exitcode)


class _Guard:
    """A process that kills the workers' sessions once we are gone, however we went."""

    PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for group in [int(line) for line in sys.stdin]:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""

    def __init__(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with the program above
            [sys.executable, "-I", "-S", "-c", self.PROGRAM], stdin=subprocess.PIPE, start_new_session=True, text=True
        )

    def watch(self, group: int | None) -> None:
        """Kill this session, too, when the time comes."""
        assert self.process.stdin is not None
        print(group, file=self.process.stdin, flush=True)

    def end(self) -> None:
        """The time has come."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _work(connection: Connection, stop: Any, function: Callable[[Any, Tell], Any]) -> None:
    """What a worker process does until it is sent None."""
    os.setsid()
    os.dup2(sys.stderr.fileno(), 1)  # what a candidate prints is not our verdict
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; whoever started us decides
        signal.signal(number, signal.SIG_IGN)
    said = 0.0
    home = Path.cwd()

    def tell(steps: int, clauses: int, failures: int) -> None:
        nonlocal said
        if stop.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - said >= 0.2:
            said = now
            connection.send(("progress", steps, clauses, failures))

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever started us is gone
        while (job := connection.recv()) is not None:
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


def _handle_interrupts(handler: Any) -> Any:
    """Set what Ctrl-C does and return what it did; off the main thread nobody interrupts us."""
    try:
        return signal.signal(signal.SIGINT, handler)
    except ValueError:
        return handler


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """A process started inside inherits that it ignores Ctrl-C, from its first instruction on."""
    before = _handle_interrupts(signal.SIG_IGN)
    try:
        yield
    finally:
        _handle_interrupts(before)


def ended(code: int | None) -> str:
    """How a process ended, by its exit code."""
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"
