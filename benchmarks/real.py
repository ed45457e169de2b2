"""How fast real implementations can be asked here, beside the rates that were measured on an idle machine.

`python -m benchmarks.real 6.1 6.12` asks those kernels of the cache; without a series it is 6.12, as in the facts. Exit
code 1 where something takes more than twice as long as there; what is not there is said, and does not count.
"""

from __future__ import annotations

import contextlib
import os
import sys

from conformance.real.guest.machine import end_all
from conformance.real.names import ADAPTERS, adapter
from conformance.subsystem import subsystem
from conformance.verdict import UsageError

_BEFORE_OTHERS = -10


def main() -> int:
    """A line for each rate; one sentence for what is not there."""
    with contextlib.suppress(OSError):  # where this user may not, others decide as well
        os.setpriority(os.PRIO_PROCESS, 0, _BEFORE_OTHERS)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; times a second, best of several rounds")
    print(f"{'adapter':<20} {'what':<50} {'facts':>9} {'here':>9} {'ratio':>6}")
    series = sys.argv[1:] or ["6.12"]
    held = True
    for (of, base), (_, versioned) in ADAPTERS.items():
        for name in [f"{base}@{version}" for version in series] if versioned else [base]:
            held &= tell(of, name)
    end_all()
    return 0 if held else 1


def tell(of: str, name: str) -> bool:
    """The rates of one real implementation; whether all are within a factor of two of the facts."""
    try:
        rates = adapter(f"real:{name}", name, subsystem(of)).rates()
    except UsageError as error:
        print(error)
        return True
    for rate in rates:
        verdict = "held" if rate.is_usual else "not held"
        figures = f"{rate.fact:>9,.0f} {rate.measured:>9,.0f} {rate.ratio:>6.2f}"
        print(f"{name:<20} {rate.what:<50} {figures} {verdict}")
    return all(rate.is_usual for rate in rates)


if __name__ == "__main__":
    sys.exit(main())
