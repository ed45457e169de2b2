"""The gate of the designs as posted, with all their failures known, against the gate of the correct candidates.

Both are measured in one process, one after the other, in processor time; what is known must cost little. The designs
have from six known failures to some eighty; the baseline is the one that continuous integration uses.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conformance.baseline import file
from conformance.baseline.entry import Entry
from conformance.runs.conclusion import conclude
from conformance.runs.request import BASELINE, Request, baselines, units
from conformance.runs.unit import run_unit
from conformance.subsystem import NAMES

ROOT = Path(__file__).parents[1]
LIMIT = 1.2
"""What twenty known failures may cost at most, in gates of the correct candidate."""


def gate(name: str, spec: str, known: Sequence[Entry] = ()) -> tuple[float, int, str]:
    """(processor time, steps, last line) of one gate."""
    started = time.process_time()
    request = Request(((name, spec),), baseline=tuple(known))
    results = [run_unit(unit) for unit in baselines(request)]
    signatures = tuple(signature for result in results for signature in sorted(result.known))
    results += [run_unit(replace(u, known=signatures)) for u in units(request) if u.engine != BASELINE]
    took = time.process_time() - started
    return took, sum(result.steps for result in results), conclude(results).why


def main(names: Sequence[str]) -> None:
    """Measure and print."""
    entries = file.read(ROOT / ".ci" / "baseline.toml").entries()
    print(f"{'':<20}{'correct':>12}{'as posted':>12}{'ratio':>8}{'known':>8}")
    for name in names or NAMES:
        known = [entry for entry in entries if entry.subsystem == name]
        correct, steps, _ = gate(name, "builtin:upstream")
        posted, others, why = gate(name, "builtin:as-posted", known)
        failures = sum(not entry.is_gap for entry in known)
        mark = "" if posted <= LIMIT * correct else f"   above {LIMIT}"
        print(f"{name:<20}{correct:>10.1f} s{posted:>10.1f} s{posted / correct:>8.2f}{failures:>8}{mark}")
        print(f"{'':<20}{steps:>12,}{others:>12,} steps; {why}")


if __name__ == "__main__":
    main(sys.argv[1:])
