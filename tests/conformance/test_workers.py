"""Jobs side by side: their results, their ends, and what happens when somebody interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conformance.runs.workers import Died, Jobs
from conformance.verdict import HarnessError, UsageError
from tests import jobs

ROOT = Path(__file__).parents[2]


def run(function: Callable[..., Any], workers: int, count: int = 4) -> dict[int, Any]:
    """The result of each job by number."""
    return dict(Jobs(function, list(range(count)), workers, lambda *_: None).run())


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    """The same results, however many work."""
    assert run(jobs.square, workers) == {0: 0, 1: 1, 2: 4, 3: 9}


def test_jobs_say_how_far_they_are() -> None:
    """Number of the job, steps, clauses, failures."""
    told: list[tuple[int, ...]] = []

    list(Jobs(jobs.square, [0, 5], 2, lambda *progress: told.append(progress)).run())

    assert (1, 5, 10, 15) in told


def test_a_worker_that_dies_takes_only_its_job_with_it() -> None:
    """The others are done by a new worker."""
    done = run(jobs.die, 2)

    assert done[1] == Died("its process was killed by SIGKILL")
    assert {n: v for n, v in done.items() if n != 1} == {0: 0, 2: 4, 3: 9}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_usage_error_crosses_the_border(workers: int) -> None:
    """It means the same from a worker."""
    with pytest.raises(UsageError, match="not like that"):
        run(jobs.refuse, workers)


def test_a_mistake_of_ours_becomes_a_harness_error() -> None:
    """With its type and message."""
    with pytest.raises(HarnessError, match="ZeroDivisionError"):
        run(jobs.break_down, 2)


def test_the_watchdog_works_in_workers() -> None:
    """Their main thread gets the alarm."""
    assert set(run(jobs.loop, 2, 2).values()) == {"did not return within 0.5 s"}


def test_the_first_interrupt_stops_the_jobs() -> None:
    """They end with what they have; those that never began do not begin."""
    told = 0

    def interrupt_once(*_progress: int) -> None:
        nonlocal told
        told += 1
        if told == 3:
            signal.raise_signal(signal.SIGINT)

    side_by_side = Jobs(jobs.until_told, list(range(9)), 2, interrupt_once)

    assert list(side_by_side.run()) == []
    assert side_by_side.interrupted


def test_the_second_interrupt_ends_at_once() -> None:
    """Whoever presses twice does not want to wait."""

    def interrupt_twice(*_progress: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        list(Jobs(jobs.until_told, list(range(9)), 2, interrupt_twice).run())


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Whether a process that was killed is gone, once the kernel had a moment."""
    return any(not is_alive(pid) or threading.Event().wait(0.02) for _ in range(500)) and not is_alive(pid)


def test_nothing_that_a_worker_forked_outlives_it() -> None:
    """It holds the worker's end of the pipe open, and is killed with the worker's session."""
    told: list[int] = []

    done = dict(Jobs(jobs.leave_behind, [0, 1, 2], 2, lambda _, child, *__: told.append(child)).run())

    assert done[1] == Died("its process ended with exit code 7")
    (child,) = [pid for pid in told if pid > 4]
    assert gone(child)


@pytest.mark.parametrize("job", ["fork_and_wait", "contained_and_wait"])
def test_nothing_outlives_a_run_that_is_killed(job: str) -> None:
    """The guard sees that we are gone, and kills the workers' sessions, whatever groups are in them."""
    program = (
        "import sys\n"
        "from conformance.runs.workers import Jobs\n"
        "from tests import jobs\n"
        "if __name__ == '__main__':\n"
        f"    list(Jobs(jobs.{job}, [0], 1, lambda *told: print(*told, flush=True), apart=True).run())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        pids = [pid for pid in map(int, run.stdout.readline().split()[1:]) if pid > 0]
        assert all(is_alive(pid) for pid in pids)
        run.kill()

    assert len(pids) == (3 if job.startswith("contained") else 1)
    assert all(gone(pid) for pid in pids)


def test_an_interrupt_reaches_what_is_contained() -> None:
    """And nothing of it is left."""
    told: list[tuple[int, ...]] = []

    def interrupt(*progress: int) -> None:
        told.append(progress)
        signal.raise_signal(signal.SIGINT)

    side_by_side = Jobs(jobs.contained_and_wait, [0], 1, interrupt, apart=True)

    with suppress(KeyboardInterrupt):
        assert list(side_by_side.run()) == []
    assert side_by_side.interrupted
    assert all(gone(pid) for pid in told[0][1:])


def test_a_job_that_takes_too_long_counts_as_died() -> None:
    """And its process is killed."""
    (died,) = dict(Jobs(jobs.until_told, [0], 1, lambda *_: None, apart=True, limit=0.5).run()).values()

    assert died == Died("it did not end in 0.5 s")
