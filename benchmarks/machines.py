"""The two engines that generate, each alone at gate settings: speed, clauses reached, defects killed.

    python benchmarks/machines.py                  # the shipped correct candidates
    python benchmarks/machines.py --kills          # and how much of each zoo either engine kills alone (minutes)

All figures come from one run. Seconds are the processor's; `taken` is the share of the rules fired that took a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from conformance.candidates.load import defects, load
from conformance.engines import campaign, machine
from conformance.engines.context import Context
from conformance.runs.request import GATE_STEPS
from conformance.runs.watchdog import watching
from conformance.subsystem import NAMES, Subsystem, subsystem

ENGINES: dict[str, Callable[[Context], None]] = {"machine": machine.run, "campaign": campaign.run}


def context(of: Subsystem, spec: str, engine: str, *, stop_at_first: bool = False) -> Context:
    """One engine's whole work in the gate, as one part."""
    given = load(spec, of)
    made = Context(of, given, given.profile, engine=engine, steps=GATE_STEPS.get(engine), stop_at_first=stop_at_first)
    made.wanted = frozenset(clause.id for clause in of.clauses) if stop_at_first else frozenset()
    return made


def correct(name: str, engine: str) -> str:
    """Steps, speed and clauses on the shipped correct candidate."""
    of = subsystem(name)
    done = context(of, "builtin:upstream", engine)
    began = time.process_time()
    ENGINES[engine](done)
    seconds = time.process_time() - began
    capabilities = done.candidate.capabilities
    owed = [c for c in of.clauses if c.level.is_binding and not c.untestable and c.applies(done.profile, capabilities)]
    reached = sum(done.tally.clauses.get(clause, 0) >= clause.minimum for clause in owed)
    taken = ""
    if engine == "machine":
        idle = done.notes.get("rules that found nothing to do", 0)
        taken = f"  taken {done.tally.steps / (done.tally.steps + idle):6.1%}"
    rate = done.tally.steps / seconds
    return f"{done.tally.steps:>7,} steps {rate:>8,.0f}/s {seconds:>6.1f} s  MUST {reached} of {len(owed)}{taken}"


def killed(name: str, engine: str) -> str:
    """How much of the zoo this engine alone kills."""
    of = subsystem(name)
    survivors, total, began = [], 0, time.process_time()
    for defect in defects(name):
        if defect.candidate is None:
            continue
        total += 1
        done = context(of, f"builtin:{defect.id}", engine, stop_at_first=True)
        with watching():
            ENGINES[engine](done)
        if not done.failures and not any(w.clause.id in defect.clauses for w in done.warnings):
            survivors.append(defect.id)
    seconds = time.process_time() - began
    share = (total - len(survivors)) / total
    return f"kills {total - len(survivors)} of {total} ({share:.0%}) in {seconds:.0f} s; not {', '.join(survivors)}"


def main() -> None:
    """Print one line per subsystem and engine."""
    for name in NAMES:
        for engine in ENGINES:
            print(f"{name:<18} {engine:<9} {correct(name, engine)}", flush=True)
            if "--kills" in sys.argv:
                print(f"{'':<18} {'':<9} {killed(name, engine)}", flush=True)


if __name__ == "__main__":
    main()
