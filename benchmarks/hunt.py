"""Hunts as a user starts them: two processes against one, and whether a long one grows in memory.

    python -m benchmarks.hunt                       # uio_msi, campaigns of 20 s with -n 1 and -n 2, in turn
    python -m benchmarks.hunt --memory 30 avic      # one hunt of half an hour with all its engines

The rates are of hunts that take turns in one run, so that their ratio means something; at least 1.8 is asked. What
else the machine does takes more from two processes than from one. Memory is that of the whole hunt, its processes
together, each counted for its share of what they share; the second quarter of the time is held against the last.
Exits with 1 where a figure does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

TURNS = 3
ASKED = 1.8
"""What two processes make of one, at least."""
GROWTH = 1.1
"""What the last quarter of a long hunt may use, in those of the second."""
CALM = 2.0
"""Seconds between two looks at the memory."""


def started(name: str, seconds: float, processes: int, report: Path, *options: str) -> subprocess.Popen[bytes]:
    """A hunt on the correct candidate, in a process of its own."""
    command = [sys.executable, "-m", "conformance", "run", name, "--candidate", "builtin:upstream"]
    command += ["--budget", f"{seconds:.0f}s", "-n", str(processes), "--report", f"json:{report}", *options]
    return subprocess.Popen(  # noqa: S603 - this interpreter and the suite
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=report.parent
    )


def footer(report: Path) -> tuple[int, float, int]:
    """(steps, seconds, exit) as the report's last line has them."""
    last = json.loads(report.read_text().splitlines()[-1])
    return last["steps"], last["seconds"], last["exit"]


def rate(name: str, seconds: float, processes: int, folder: Path) -> float:
    """Steps per second of one hunt, from start to end."""
    report = folder / "report.json"
    began = time.perf_counter()
    started(name, seconds, processes, report, "--engine", "campaign").wait()
    return footer(report)[0] / (time.perf_counter() - began)


def family(root: int) -> list[int]:
    """A process and all that come from it."""
    found, known = [root], {root}
    for process in found:
        for listed in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                children = [int(child) for child in listed.read_text().split()]
            except OSError:
                continue  # it has ended
            found += [child for child in children if child not in known]
            known.update(children)
    return found


def memory(process: int) -> int:
    """KiB of one process: its share of what it shares."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def growth(name: str, seconds: float, folder: Path) -> float:
    """How the memory of one long hunt goes on; prints it quarter by quarter."""
    report, used = folder / "report.json", []
    hunt = started(name, seconds, 1, report)
    while hunt.poll() is None:
        used.append(sum(map(memory, family(hunt.pid))))
        time.sleep(CALM)
    steps, took, code = footer(report)
    quarters = [median(used[at * len(used) // 4 : (at + 1) * len(used) // 4]) / 1024 for at in range(4)]
    print(f"{name}: {steps:,} steps in {took:,.0f} s, exit {code}")
    print("  MiB, by quarter of the time   " + "".join(f"{mebibytes:>8.1f}" for mebibytes in quarters))
    print(f"  last against second           {quarters[3] / quarters[1]:>8.2f}   at most {GROWTH}")
    return quarters[3] / quarters[1]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subsystem", nargs="?", default="uio_msi")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each hunt that is timed")
    parser.add_argument("--memory", type=float, metavar="MINUTES", help="watch the memory of one hunt that long")
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        if asked.memory:
            return int(growth(asked.subsystem, 60 * asked.memory, folder) > GROWTH)
        rates = [[rate(asked.subsystem, asked.seconds, n, folder) for n in (1, 2)] for _ in range(TURNS)]
    one, two = (max(column) for column in zip(*rates, strict=True))
    print(f"{asked.subsystem}, builtin:upstream, {TURNS} hunts of {asked.seconds:g} s each in turn, steps per second")
    print(f"  -n 1 {one:>10,.0f}\n  -n 2 {two:>10,.0f}   {two / one:.2f} times, at least {ASKED}")
    return int(two < ASKED * one)


if __name__ == "__main__":
    sys.exit(main())
