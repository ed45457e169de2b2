"""What it costs to contain a candidate: one that behaves, and one that ends its process a thousand times.

Prints, in one run, the processor's time of the gate of a correct driver loaded from a file, contained and not, by
turns; the time from a death to the next trace; and what a thousand deaths leave behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from conformance.candidates.load import load
from conformance.lockstep import run_trace
from conformance.processes import children
from conformance.runs import unit as units
from conformance.runs.checkpoint import Runner
from conformance.runs.containment import contained
from conformance.runs.request import Request
from conformance.runs.request import units as units_of
from conformance.subsystem import subsystem
from conformance.trace import Trace, decode
from conformance.verdict import Failure

DEATHS = 1_000
ROUNDS = 2
"""How often the gate is run, contained and not."""

CORRECT = """
from conformance.candidates.builtin.uio_msi.upstream import Upstream


class Mine(Upstream):
    pass


class Dying(Upstream):
    def open(self):
        import ctypes

        ctypes.string_at(0)
"""
DEADLY = '{"schema": 1, "subsystem": "uio_msi", "steps": [{"op": "Probe"}, {"op": "Open"}]}'


def used() -> float:
    """Seconds of the processor's time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def gate(spec: str, engines: tuple[str, ...], *, apart: bool) -> float:
    """Seconds of the processor's time of a gate, contained or not, each unit in a process of its own."""
    begun = used()
    for unit in units_of(Request((("uio_msi", spec),), engines=engines)):
        work = partial(units._unit_job, unit)  # what `unit_job` contains
        if apart:
            contained(work, lambda *_: None)
        elif (pid := os.fork()) == 0:
            work(lambda *_: None)
            os._exit(0)
        else:
            os.waitpid(pid, 0)
    return used() - begun


def descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def deaths(spec: str) -> tuple[list[float], int, int]:
    """Seconds from one trace to the next while each of them ends its process; descriptors before and after."""
    of = subsystem("uio_msi")

    def work(_tell: Any) -> tuple[list[float], int, int]:
        candidate = load(spec, of)
        trace: Trace = decode(DEADLY.encode(), {of.name: of.config}, {of.name: of.operations})
        took, before = [], 0
        assert Runner.now is not None
        for number in range(DEATHS):
            begun = time.monotonic()
            with Runner.now.looking_into():
                failure: Failure | None = run_trace(of, trace, candidate.factory).failure
            assert failure is not None
            assert failure.kind == "crash"
            took.append(time.monotonic() - begun)
            before = before or descriptors()
            if number % 200 == 199:
                print(f"  {number + 1} deaths", file=sys.__stderr__)
        return took, before, descriptors()

    told: tuple[list[float], int, int] = contained(work, lambda *_: None)
    return told


def main() -> None:
    """Measure and print."""
    engines = tuple(sys.argv[1:]) or ("corpus", "explore", "interleave", "campaign", "machine")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.py"
        path.write_text(CORRECT)
        subsystem("uio_msi")
        figures: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for apart, seconds in figures.items():
                seconds.append(gate(f"{path}:Mine", engines, apart=apart))
        plain, apart = min(figures[False]), min(figures[True])
        print(f"uio_msi, a correct driver from a file, {', '.join(engines)}: seconds of the processor's time")
        print(f"  not contained  {plain:7.2f}\n  contained      {apart:7.2f}   {100 * (apart / plain - 1):+.1f} %")
        processes, held, files = children(), descriptors(), set(Path(folder).iterdir())
        begun = used()
        took, before, after = deaths(f"{path}:Dying")
        print(f"{len(took):,} deaths by SIGSEGV, each in its own trace")
        print(
            f"  to the next trace: median {1e3 * median(took):.1f} ms, mean {1e3 * mean(took):.1f} ms,"
            f" 99 % within {1e3 * quantiles(took, n=100)[-1]:.1f} ms;"
            f" {1e3 * (used() - begun) / len(took):.1f} ms of the processor's time"
        )
        print(f"  descriptors of the process itself: {before} after the first, {after} after the last")
        left = len(children()) - len(processes), descriptors() - held
        more = [path for path in Path(folder).iterdir() if path not in files and path.name != "__pycache__"]
        print(f"  left behind: {left[0]} processes, {left[1]} descriptors, {len(more)} files")


if __name__ == "__main__":
    main()
