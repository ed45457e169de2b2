"""Jobs for the tests of the workers and of clusters; worker processes import them by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from conformance.environment.door import Environment
from conformance.runs.watchdog import watching
from conformance.runs.workers import Tell
from conformance.verdict import Hang, UsageError


def square(job: int, tell: Tell) -> int:
    """Says how far it is, then answers."""
    tell(job, 2 * job, 3 * job)
    return job * job


def die(job: int, tell: Tell) -> int:
    """Job 1 takes its process with it."""
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(job, tell)


def refuse(job: int, tell: Tell) -> int:
    """Job 1 cannot be done."""
    if job == 1:
        raise UsageError("not like that")
    return square(job, tell)


def break_down(job: int, tell: Tell) -> int:
    """A mistake of ours."""
    del tell
    return job // 0


def loop(job: int, tell: Tell) -> str:
    """What a candidate's endless loop comes to."""
    del job, tell
    with watching(0.5):
        Environment.inside += 1
        try:
            while True:
                pass
        except Hang as hang:
            return str(hang)
        finally:
            Environment.inside -= 1


def leave_behind(job: int, tell: Tell) -> int:
    """Job 1 forks a child that goes on for ever, says which, and ends its own process."""
    if job == 1:
        child = os.fork()
        if not child:
            while True:
                signal.pause()
        tell(child, 0, 0)
        os._exit(7)
    return square(job, tell)


def fork_and_wait(job: int, tell: Tell) -> int:
    """Forks a child, says which, and goes on until it is to stop."""
    child = os.fork()
    if not child:
        while True:
            signal.pause()
    while True:  # who listens only now and then must hear of it as well
        tell(child, job, 0)


def until_told(job: int, tell: Tell) -> int:
    """Goes on until it is to stop."""
    while True:
        tell(job, 0, 0)


def unit_of_the_toy(job: Any, tell: Tell) -> Any:
    """A unit of work, of a short gate, on a subsystem that this process has to be told of first."""
    import pytest

    from conformance.engines import machine
    from conformance.runs import unit
    from tests.toyland import shipped

    with pytest.MonkeyPatch.context() as patch, shipped(patch):
        patch.setitem(unit.GATE_STEPS, "campaign", 2_000)
        patch.setattr(machine, "EXAMPLES", 5)
        return unit.unit_job(job, tell)


def kill_of_the_toy(job: Any, tell: Tell) -> Any:
    """A search for one of its defects."""
    import pytest

    from conformance.runs import strength
    from tests.toyland import shipped

    with pytest.MonkeyPatch.context() as patch, shipped(patch):
        return strength.kill_job(job, tell)


def machine() -> int:
    """The dask worker that has started this process."""
    return os.getppid()


def kill_its_machine(job: tuple[Path, int], tell: Tell) -> int:
    """Job 1 kills the machine that it is done on, the first time."""
    folder, number = job
    if number == 1 and first_time(folder):
        os.kill(machine(), signal.SIGKILL)
        while True:
            signal.pause()
    return square(number, tell)


def stop_its_machine(job: tuple[Path, int], tell: Tell) -> int:
    """Job 1 lets its machine fall asleep, the first time: it is not lost, but nothing comes from it."""
    folder, number = job
    if number == 1 and first_time(folder):
        os.kill(machine(), signal.SIGSTOP)
    return square(number, tell)


def first_time(folder: Path) -> bool:
    """Whether nobody else has come by; leaves the machine's id in `marker`."""
    try:
        with (folder / "marker").open("x") as marker:
            marker.write(str(machine()))
    except FileExistsError:
        return False
    return True


def contained_and_wait(job: int, tell: Tell) -> object:
    """In a process of its own, which has left a copy and a child in a group of their own: says their ids, and waits."""
    from conformance.runs.checkpoint import Runner
    from conformance.runs.containment import contained

    def work(tell: Tell) -> None:
        assert Runner.now is not None
        Runner.now.fork()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            while True:
                signal.pause()
        while True:
            tell(os.getpid(), Runner.now.copy, child)

    del job
    return contained(work, tell)
