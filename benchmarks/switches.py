"""How fast two threads are switched: the interleavings of each subsystem, and the scheduler alone.

Prints schedules and switches per second of the interleave engine over the correct candidate, and
the switches per second of two threads that yield at every point of preemption and do nothing else.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from conformance.candidates.load import load
from conformance.engines import interleave
from conformance.engines.context import Context
from conformance.environment.door import Frame
from conformance.environment.scheduler import Scheduler
from conformance.subsystem import available, subsystem

POINTS = 50_000
"""Points of preemption at which the idle threads switch."""


class _Idle:
    """As much of an environment as the scheduler needs."""

    def __init__(self) -> None:
        self.frame = Frame()
        self.atomic = 0
        self.preempt = None
        self.scheduler = None

    def at_switch(self) -> None:
        """Nothing holds here."""


def idle() -> float:
    """Switches per second of two threads that do nothing."""
    env = _Idle()
    scheduler = Scheduler(env, range(POINTS))  # type: ignore[arg-type]  # it has what is used

    def spin(count: int) -> None:
        for _ in range(count):
            env.preempt("nothing")  # type: ignore[misc]  # set while the scheduler runs

    started = time.perf_counter()
    scheduler.run([(partial(spin, POINTS // 2), Frame()), (partial(spin, POINTS // 2), Frame())])
    return scheduler.switches / (time.perf_counter() - started)


def explored(name: str) -> tuple[int, int, float]:
    """Schedules, switches and seconds of the gate's interleavings of one subsystem."""
    of = subsystem(name)
    candidate = load("builtin:upstream", of)
    context = Context(subsystem=of, candidate=candidate, profile=candidate.profile, engine="interleave")
    started = time.perf_counter()
    interleave.run(context)
    seconds = time.perf_counter() - started
    notes = context.notes
    return notes.get("interleave: schedules", 0), notes.get("interleave: switches", 0), seconds


def report() -> str:
    """The table."""
    lines = [f"{'subsystem':<20}{'schedules':>12}{'schedules/s':>14}{'switches/s':>14}"]
    for name in available():
        schedules, switches, seconds = explored(name)
        lines.append(f"{name:<20}{schedules:>12,}{schedules / seconds:>14,.0f}{switches / seconds:>14,.0f}")
    lines.append(f"{'idle threads':<40}{'':>6}{idle():>14,.0f}")
    return "\n".join(lines)


def test_switches() -> None:
    """Print how many switches a second there are."""
    print()
    print(report())


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
