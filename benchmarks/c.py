"""What a candidate in C costs: the campaign on the same uio_msi driver as a Python class and as a library.

Prints steps per second of the Python form, of the C form with the compiled module, and of the C form with callbacks,
and the ratios, which must stay above 1 and at 0.7 or more. The forms take turns, so that other work on the machine
hits all alike; processor time is what is measured, and the median of the rounds counts.

    python benchmarks/c.py [STEPS] [ROUNDS]
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from conformance.abi import modes
from conformance.abi.__main__ import compile_example
from conformance.abi.header import header
from conformance.candidates import library
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.subsystem import subsystem

STEPS = 2_000
ROUNDS = 15
NEEDED = {"compiled": 1.0, "callbacks": 0.7}


def main() -> int:
    """Measure, print, and fail where a ratio is too low."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    of = subsystem("uio_msi")
    with tempfile.TemporaryDirectory() as folder:
        built = compile_example("uio_msi", Path(folder) / "uio_msi.so")
        forms: dict[str, Candidate] = {"python": load("builtin:upstream", of)}
        for way in (modes.callbacks(header("uio_msi"), of), modes.compiled(header("uio_msi"), of)):
            factory = library.bind(f"lib:{built}", str(built), of, way)
            forms[way.name] = Candidate(f"lib:{built}", factory, forms["python"].profile, forms["python"].capabilities)
        speeds: dict[str, list[float]] = {name: [] for name in forms}
        for seed in range(rounds):
            # Each round in another order, so that none of them always finds the caches as another one left them.
            for name in sorted(forms, key=lambda name: hash((name, seed)) % 7):
                candidate = forms[name]
                context = Context(subsystem=of, candidate=candidate, profile=candidate.profile, seed=seed, steps=steps)
                gc.collect()
                started = time.process_time()
                campaign.run(context)
                speeds[name].append(context.tally.steps / (time.process_time() - started))
                assert not context.failures, context.failures
    speed = {name: median(speeds[name]) for name in forms}
    for name in forms:
        print(f"{name:<10} {speed[name]:10,.0f} steps/s {speed[name] / speed['python']:6.2f}")
    slow = [name for name, least in NEEDED.items() if speed[name] / speed["python"] < least]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
