"""Jobs side by side in processes of their own, that can be stopped and that may die.

Workers are spawned, not forked, so that they share no descriptors and no threads with us; each
takes one job after the other through a pipe. A worker that dies takes only its job with it.
The first Ctrl-C asks the jobs to stop and waits for what they have; the second one ends at once.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
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
    ) -> None:
        self.function = function
        self.jobs = jobs
        self.workers = min(workers, len(jobs))
        self.progress = progress
        """(number of the job, steps, clauses, failures)"""
        self.apart = apart
        """Whether even a single worker is a process of its own, because a job may end its process."""
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
        running: dict[Any, tuple[Any, int]] = {}

        def start() -> None:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, stop, self.function), daemon=True)
            with _ignoring_interrupts():
                process.start()
            theirs.close()
            self._give(ours, process, waiting, running)

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
                for ready in wait(list(running)):
                    connection: Any = ready
                    process, number = running[connection]
                    try:
                        kind, *rest = connection.recv()
                    except (EOFError, ConnectionResetError):
                        del running[connection]
                        process.join()
                        if self.interrupted:
                            continue
                        yield number, Died(_how(process.exitcode))
                        if waiting and not self.interrupted:
                            start()
                        continue
                    if kind == "progress":
                        self.progress(number, *rest)
                        continue
                    del running[connection]
                    if kind == "failed":
                        raise rest[0]
                    if kind == "done":
                        yield number, rest[0]
                    self._give(connection, process, waiting, running)
        finally:
            for process, _ in running.values():
                process.kill()
            _handle_interrupts(before)

    def _give(self, connection: Connection, process: Any, waiting: list[int], running: dict[Any, Any]) -> None:
        """Hand a worker its next job, or let it go."""
        if waiting and not self.interrupted:
            number = waiting.pop()
            connection.send(self.jobs[number])
            running[connection] = (process, number)
        else:
            connection.send(None)
            connection.close()


def _work(connection: Connection, stop: Any, function: Callable[[Any, Tell], Any]) -> None:
    """What a worker process does until it is sent None."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; whoever started us decides
        signal.signal(number, signal.SIG_IGN)
    said = 0.0

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


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"
