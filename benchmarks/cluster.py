"""A hunt on a dask cluster with one worker and with two, and what a job, a result and a trace weigh.

The hunts take turns in one run on the same machine, so that their ratio means something; `docs/scale.md`
reckons from the other figures. They are campaigns alone: a step of a Hypothesis machine takes ten times as long, so
that with both it would be the mixture that is measured. What else the machine does takes from two workers more than
from one; the share of their time that the workers were at work does not depend on it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
from distributed import LocalCluster
from distributed.protocol import serialize

from conformance.runs.cluster import connected
from conformance.runs.describe import describe_job
from conformance.runs.executor import Executor
from conformance.runs.identity import identity
from conformance.runs.request import Request, Unit, units
from conformance.runs.result import Result
from conformance.runs.station import Task
from conformance.runs.unit import unit_job
from conformance.runs.work import Hunt

SECONDS = 15.0
TURNS = 2
JOBS = 200


def cluster(workers: int) -> LocalCluster:
    """One thread each."""
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )


def request(candidate: str = "upstream") -> Request:
    """A hunt in which every seed is another."""
    return Request((("uio_msi", f"builtin:{candidate}"),), engines=("campaign",), budget=SECONDS)


def hunt(place: Executor, results: list[Result], candidate: str = "upstream") -> tuple[int, float, float]:
    """(steps, seconds, seconds that workers were at work) of one hunt."""
    started = time.perf_counter()
    asked = request(candidate)
    work = Hunt(units(asked), asked)
    steps, at_work = 0, 0.0
    for number, result in place.run(unit_job, work, lambda *_: None, until=work.until):
        work.learn(number, result)
        results.append(result)
        steps += result.steps
        at_work += result.seconds
    return steps, time.perf_counter() - started, at_work


def per_job(place: Executor) -> tuple[float, float]:
    """From one job that takes no time to the next, on one worker whose process is there.

    (seconds, seconds of processor time of client and scheduler, which are one process here).
    """
    times, busy = [], []
    for _ in place.run(describe_job, [("uio_msi", "builtin:upstream")] * JOBS, lambda *_: None):
        times.append(time.perf_counter())
        busy.append(time.process_time())
    return (times[-1] - times[10]) / (JOBS - 11), (busy[-1] - busy[10]) / (JOBS - 11)


def size(value: Any) -> int:
    """Bytes as dask sends it."""
    _, frames = serialize(value)
    return sum(memoryview(frame).nbytes for frame in frames)


def learning(results: list[Result]) -> float:
    """Seconds of processor time to take up one result and to choose what leads the next seed."""
    asked = request()
    work = Hunt(units(asked), asked)
    given = iter(work)
    started = time.process_time()
    for number, result in enumerate(results):
        next(given)
        work.learn(number, result)
        work.rarest("uio_msi")
    return (time.process_time() - started) / len(results)


def main(seconds: float) -> None:
    """Measure and print."""
    global SECONDS  # noqa: PLW0603 - said on the command line
    SECONDS = seconds
    taken = {1: [0.0, 0.0, 0.0], 2: [0.0, 0.0, 0.0]}
    results: list[Result] = []
    with cluster(1) as single, cluster(2) as double:
        addresses = {1: single.scheduler_address, 2: double.scheduler_address}
        for _ in range(TURNS):
            for workers, address in addresses.items():
                with connected(address, ()) as place:
                    taken[workers] = [sum(pair) for pair in zip(taken[workers], hunt(place, results), strict=True)]
        with connected(addresses[1], ()) as place:
            between, handling = per_job(place)
            failing: list[Result] = []
            hunt(place, failing, "as-posted")
    rates = {workers: steps / elapsed for workers, (steps, elapsed, _) in taken.items()}
    busy = {workers: at_work / elapsed / workers for workers, (_, elapsed, at_work) in taken.items()}
    print(f"uio_msi, builtin:upstream, {TURNS} hunts of {SECONDS:g} s each in turn")
    for workers, rate in rates.items():
        name = f"{workers} worker{'s' if workers > 1 else ' '}"
        print(f"  steps per second, {name}      {rate:>10,.0f}   at work {busy[workers]:.0%} of the time")
    print(f"  two workers against one             {rates[2] / rates[1]:>6.2f} x")
    unit: Unit = next(iter(Hunt(units(request()), request())))
    failures = [data for result in failing for data in result.failures]
    print(f"  job, bytes                          {size(Task('0' * 32, 0, unit_job, unit, (), 1.0, identity())):>6,}")
    print(f"  result of a seed, bytes             {sum(map(size, results)) // len(results):>6,}")
    traces = [len(msgspec.json.encode(data["trace"])) for data in failures]
    print(f"  failure with its story, bytes       {sum(map(size, failures)) // len(failures):>6,}")
    print(f"  minimal trace, bytes                {sum(traces) // len(traces):>6,}")
    print(f"  from empty job to empty job, ms     {between * 1000:>6.1f}")
    print(f"  of it client's and scheduler's, ms  {handling * 1000:>6.1f}")
    print(f"  taking up a result, ms              {learning(results) * 1000:>6.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
