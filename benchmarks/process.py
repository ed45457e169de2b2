"""What it costs that a candidate is a process: steps a second of the campaign, a fresh process after a crash, leaks.

All figures come from one run on the same machine. The driver is the C one of examples/process/c; with `node` among the
arguments that of examples/process/node, too, and with `python` the Python one behind `conformance.wire.serve`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conformance.candidates.load import Candidate, load
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.lockstep import run_trace
from conformance.model.step import Step
from conformance.model.uio_msi.operations import Probe
from conformance.subsystem import subsystem
from conformance.trace import Trace

EXAMPLES = Path(__file__).parents[1] / "examples" / "process"
UIO = subsystem("uio_msi")
STEPS = 6_000
ROUNDS = 3
CRASHES = 1_000


def build(folder: Path) -> str:
    """The command of the C driver."""
    compiler = shutil.which("cc")
    assert compiler is not None, "there is no C compiler"
    sources = [str(EXAMPLES / "c" / name) for name in ("uio_msi.c", "wire.c")]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(folder / "uio_msi"), *sources], check=True)  # noqa: S603
    return f"cmd:{folder}/uio_msi"


def speed(candidate: Candidate) -> float:
    """Steps a second of the campaign."""
    context = Context(subsystem=UIO, candidate=candidate, profile="upstream", steps=STEPS)
    started = time.perf_counter()
    campaign.run(context)
    assert not context.failures
    return context.tally.steps / (time.perf_counter() - started)


def crashes(candidate: Candidate) -> tuple[float, int, int]:
    """Seconds from one crash to the next, and how many processes and descriptors are left after all of them."""
    config = next(config for config in UIO.configs if not config.vectors and config.irq)
    trace = Trace("uio_msi", "upstream", config, (Step(Probe()),))
    run_trace(UIO, trace, candidate.factory, environment=UIO.fast)
    before = _processes(), _descriptors()
    started = time.perf_counter()
    for _ in range(CRASHES):
        failure = run_trace(UIO, trace, candidate.factory, environment=UIO.fast).failure
        assert failure is not None
        assert "SIGSEGV" in failure.detail
    seconds = (time.perf_counter() - started) / CRASHES
    return seconds, _processes() - before[0], _descriptors() - before[1]


def _processes() -> int:
    """Children of ours, ended ones that nobody has waited for included."""
    found = Path("/proc/self/task").glob("*/children")
    return sum(len(path.read_text().split()) for path in found)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def report(others: list[str]) -> str:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        command = build(Path(folder))
        specs = {"C": command}
        if "node" in others:
            specs["Node.js"] = f"cmd:node {EXAMPLES}/node/uio_msi.js"
        if "python" in others:
            specs["Python"] = f"cmd:{sys.executable} -m conformance.wire.serve uio_msi builtin:upstream"
        candidates = {"a class": load("builtin:upstream", UIO), **{n: load(spec, UIO) for n, spec in specs.items()}}
        best = dict.fromkeys(candidates, 0.0)
        for _ in range(ROUNDS):  # the best of each, in turns: others use the machine, too
            for name, candidate in candidates.items():
                best[name] = max(best[name], speed(candidate))
        lines = [f"{'form':<24}{'steps/s':>12}{'ratio':>8}"]
        for name, steps in best.items():
            lines.append(f"{name:<24}{steps:>12,.0f}{steps / best['a class']:>8.2f}")
        seconds, processes, descriptors = crashes(load(f"{command} --defect UIO-D05", UIO))
        lines.append(f"a crash and a fresh process: {seconds * 1000:.1f} ms")
        lines.append(f"left after {CRASHES} crashes: {processes} processes, {descriptors} descriptors")
    return "\n".join(lines)


def test_process() -> None:
    """Print how much slower a process is."""
    print()
    print(report([]))


if __name__ == "__main__":
    sys.stdout.write(report(sys.argv[1:]) + "\n")
