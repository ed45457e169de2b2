"""Jobs for the tests of the workers; worker processes import them by name."""

from __future__ import annotations

import os
import signal

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


def until_told(job: int, tell: Tell) -> int:
    """Goes on until it is to stop."""
    while True:
        tell(job, 0, 0)
