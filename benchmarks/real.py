"""How fast real implementations can be asked here, beside the rates that were measured on an idle machine.

`python -m benchmarks.real 6.1 6.12` asks those kernels of the cache; without a series it is 6.12, as in the facts.
"""

from __future__ import annotations

import os
import sys

from conformance.real.guest.machine import end_all
from conformance.real.names import ADAPTERS, adapter
from conformance.subsystem import subsystem
from conformance.verdict import UsageError


def main() -> None:
    """A line for each rate; one sentence for what is not there."""
    series = sys.argv[1:] or ["6.12"]
    for (of, base), (_, versioned) in ADAPTERS.items():
        for name in [f"{base}@{version}" for version in series] if versioned else [base]:
            tell(of, name)
    end_all()


def tell(of: str, name: str) -> None:
    """The rates of one real implementation, and how busy the machine was."""
    try:
        rates = adapter(f"real:{name}", name, subsystem(of)).rates()
    except UsageError as error:
        print(error)
        return
    busy = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    for rate in rates:
        verdict = "as usual" if rate.is_usual else f"slower than usual, {busy}"
        print(f"real:{name}: {rate.what}: {rate.measured:,.0f} a second, elsewhere {rate.fact:,.0f}: {verdict}")


if __name__ == "__main__":
    main()
