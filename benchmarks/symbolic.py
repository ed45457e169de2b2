"""The magic zoo: what `symbolic` finds, in how many seconds and steps, and that the gate finds none of it.

    python -m benchmarks.symbolic [--gate] [SUBSYSTEM | DEFECT]...

With `--gate` each defect that is named is also given to the gate's engines, a minute for each defect.
"""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType

from conformance.candidates.defect import Defect
from conformance.candidates.load import load, magic
from conformance.engines import campaign, corpus, explore, interleave, machine, symbolic
from conformance.engines.context import Context
from conformance.runs.request import GATE_STEPS
from conformance.runs.watchdog import watching
from conformance.subsystem import NAMES, Subsystem, subsystem
from conformance.verdict import Failure

LIMIT = 60.0
"""Seconds of the processor's time for one defect."""
GATE: dict[str, ModuleType] = {
    "corpus": corpus,
    "explore": explore,
    "interleave": interleave,
    "campaign": campaign,
    "machine": machine,
}


def spent() -> float:
    """Seconds of the processor's time, those of ended child processes included."""
    return sum(os.times()[:4])


def search(of: Subsystem, defect: Defect, engine: ModuleType, name: str, seconds: float) -> Failure | None:
    """What one engine finds first, with its settings in the gate."""
    candidate = load(f"builtin:{defect.id}", of)
    context = Context(
        subsystem=candidate.part(of),
        candidate=candidate,
        profile=candidate.profile,
        steps=None if name == "symbolic" else GATE_STEPS.get(name),
        deadline=time.process_time() + seconds,
        clock=time.process_time,
        stop_at_first=True,
        engine=name,
    )
    with watching():
        engine.run(context)
    return next(iter(context.failures + context.warnings), None)


def gate(of: Subsystem, defect: Defect) -> str:
    """Which engine of the gate finds the defect, or nothing."""
    begun = spent()
    for name, engine in GATE.items():
        left = LIMIT - (spent() - begun)
        if left > 0 and search(of, defect, engine, name, left) is not None:
            return name
    return ""


def main(arguments: list[str]) -> int:
    """Print the table; 1 where a defect is not found, or the gate finds it."""
    with_gate = "--gate" in arguments
    named = [argument for argument in arguments if argument != "--gate"]
    missed = 0
    print("defect     found by symbolic     s  steps  of what                                    gate")
    for name in NAMES:
        of = subsystem(name)
        chosen = [d for d in magic(name) if not named or name in named or d.id in named]
        count = 0
        for defect in chosen:
            begun = spent()
            failure = search(of, defect, symbolic, "symbolic", LIMIT)
            seconds = spent() - begun
            count += failure is not None
            steps = len(failure.trace.steps) if failure is not None and failure.trace is not None else 0
            signature = failure.signature if failure is not None else "-"
            by_gate = (gate(of, defect) or "not found") if with_gate else ""
            missed += failure is None or by_gate not in ("", "not found")
            print(
                f"{defect.id:10} {signature:32} {seconds:5.1f} {steps:3}  {defect.text[:42]:42} {by_gate}", flush=True
            )
        if chosen:
            print(f"{name}: {count} of {len(chosen)}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
